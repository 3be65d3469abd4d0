"""Questions of 豆対話 that no training data has: what a model answers, and the share that is right, by kind."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

from mamegpt.data.dialogues import DialogueSplit, dialogues, is_right
from mamegpt.errors import ConfigError
from mamegpt.evaluation.proportion import Proportion
from mamegpt.pretrained import Pretrained
from mamegpt.tokenizer.chat import Message

__all__ = ["ALL", "SPLITS", "Answered", "answered", "answered_rightly"]

SPLITS: tuple[DialogueSplit, ...] = ("test", "new")
"""Other questions with the words of the training data, and questions with other words."""
ALL = "all"
"""The name of the share over all kinds."""
N_QUESTIONS = 480
"""Questions of a split, 40 of a kind in the mean."""
SEED = 20261130
MAX_TOKENS = 24
"""Tokens of an answer, more than any right one has."""


class Answered(NamedTuple):
    """A question of a kind, a right answer, in most kinds the only one, and the model's."""

    kind: str
    question: str
    expected: str
    answer: str

    @property
    def is_right(self) -> bool:
        """Whether the model's answer is right."""
        return is_right(self.question, self.expected, self.answer)


def answered(
    model: Pretrained, split: DialogueSplit, n: int = N_QUESTIONS, without: Collection[str] = ()
) -> list[Answered]:
    """Return the first ``n`` questions of a split, but for some kinds, with a model's answers, decoded greedily.

    A question that is longer than the model's context has no answer, "".
    """
    asked = [dialogue for dialogue in dialogues(SEED, n, split) if dialogue.kinds[0] not in without]
    questions = [messages[:1] for _, messages in asked]
    fits = [_fits(model, question) for question in questions]
    answers = iter(model.answer_many(list(itertools.compress(questions, fits)), max_new_tokens=MAX_TOKENS))
    return [
        Answered(kind, question.content, expected.content, next(answers) if is_read else "")
        for ((kind,), (question, expected)), is_read in zip(asked, fits, strict=True)
    ]


def _fits(model: Pretrained, question: Sequence[Message]) -> bool:
    """Return whether a question fits into a model's context."""
    try:
        model.chat_ids(question, max_new_tokens=MAX_TOKENS)
    except ConfigError:
        return False
    return True


def answered_rightly(model: Pretrained) -> dict[str, dict[str, Proportion]]:
    """Return the shares of right answers by split and kind; empty for a model that only continues."""
    if not model.answers:
        return {}
    found: dict[str, dict[str, Proportion]] = {}
    for split in SPLITS:
        right: dict[str, list[bool]] = defaultdict(list)
        for one in answered(model, split):
            for name in (ALL, one.kind):
                right[name].append(one.is_right)
        found[split] = {name: Proportion(sum(some) / len(some), len(some)) for name, some in right.items()}
    return found
