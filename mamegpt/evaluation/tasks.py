"""Questions of 豆対話 that no training data has: the share that a model answers rightly, by kind."""

from __future__ import annotations

from collections import defaultdict

from mamegpt.data.dialogues import DialogueSplit, dialogues
from mamegpt.evaluation.proportion import Proportion
from mamegpt.pretrained import Pretrained

__all__ = ["ALL", "SPLITS", "answered_rightly"]

SPLITS: tuple[DialogueSplit, ...] = ("test", "new")
"""Other questions with the words of the training data, and questions with other words."""
ALL = "all"
"""The name of the share over all kinds."""
N_QUESTIONS = 440
"""Questions of a split, 40 of a kind in the mean."""
SEED = 20261130
MAX_TOKENS = 24
"""Tokens of an answer, more than any right one has."""


def answered_rightly(model: Pretrained) -> dict[str, dict[str, Proportion]]:
    """Return the shares of right answers by split and kind, decoded greedily; empty for a model that only continues.

    An answer is right if it is, but for white space at its ends, the one that 豆対話 has.
    """
    if not model.answers:
        return {}
    found: dict[str, dict[str, Proportion]] = {}
    for split in SPLITS:
        asked = [*dialogues(SEED, N_QUESTIONS, split)]
        answers = model.answer_many([messages[:1] for _, messages in asked], max_new_tokens=MAX_TOKENS)
        right: dict[str, list[bool]] = defaultdict(list)
        for ((kind,), (_, expected)), answer in zip(asked, answers, strict=True):
            for name in (ALL, kind):
                right[name].append(answer.strip() == expected.content)
        found[split] = {name: Proportion(sum(some) / len(some), len(some)) for name, some in right.items()}
    return found
