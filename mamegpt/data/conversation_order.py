"""The rows of conversations, or of texts with labels, that a training step uses, as a pure function of (seed, step).

A row is one conversation or text, padded at its end to the longest of its forward pass. Attention is causal, so none
sees another and none sees the padding. In a conversation only the tokens of answers, and the token that ends each, are
targets; the only target of a text is its label, at its last token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mamegpt.data.window_order import feistel_key, permute
from mamegpt.tokenizer.reserved import Turns

__all__ = ["ConversationOrder", "Conversations", "Examples", "LabelledTexts", "Questions", "label_token"]


class Examples(Protocol):
    """Conversations, or texts with labels, of different lengths."""

    lengths: npt.NDArray[np.int64]
    """Tokens of each, (n,)."""
    n_targets: npt.NDArray[np.int64]
    """Targets of each, (n,)."""

    def __len__(self) -> int: ...

    def rows(
        self, which: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return some of them: inputs (B, T), targets (N,), and the places of these among the B T positions."""


class Conversations:
    """The conversations in a split of token shards, each of which ends with ``eos_id``."""

    def __init__(self, tokens: npt.NDArray[Any], turns: Turns, eos_id: int) -> None:
        """Find where each begins, and which tokens are answers."""
        self.turns = turns
        self.tokens = np.concatenate(([eos_id], tokens))  # the first one follows an end of text, too
        ends = np.flatnonzero(tokens == eos_id)
        self.begins = np.concatenate(([0], ends[:-1] + 1))
        """The position of the token before each conversation, which is the first input of its row."""
        self.lengths = ends - self.begins
        """Tokens of each conversation, (n,)."""
        is_begin = np.isin(self.tokens, [*turns.begin.values()]) | (self.tokens == eos_id)
        newest = np.maximum.accumulate(np.where(is_begin, np.arange(len(self.tokens)), 0))
        self.is_answer = (self.tokens[newest] == turns.begin["assistant"]) & ~is_begin
        """Whether each of ``tokens`` is a target."""
        counts = np.concatenate(([0], np.cumsum(self.is_answer)))
        self.n_targets = counts[self.begins + 1 + self.lengths] - counts[self.begins + 1]
        """Targets of each conversation, (n,)."""

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(
        self, which: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return some conversations: inputs (B, T), targets (N,), and the places of these among the B T positions."""
        T = int(self.lengths[which].max())
        places = np.arange(T)
        at = np.minimum(self.begins[which, None] + places, len(self.tokens) - 2)  # (B, T)
        is_inside = places < self.lengths[which, None]
        inputs = np.where(is_inside, self.tokens[at], self.tokens[0])
        learned = np.flatnonzero(is_inside & self.is_answer[at + 1])
        return inputs.astype(np.int64), self.tokens[at + 1].ravel()[learned].astype(np.int64), learned


class Questions(Conversations):
    """Conversations whose last answer a model is to give itself."""

    def split(self, i: int) -> tuple[list[int], list[int], list[int]]:
        """Return what a model reads before the last answer of a conversation, the question in it, and that answer."""
        ids = self.tokens[self.begins[i] : self.begins[i] + self.lengths[i] + 1].tolist()
        last = {role: len(ids) - 1 - ids[::-1].index(self.turns.begin[role]) for role in ("user", "assistant")}
        return ids[: last["assistant"] + 1], ids[last["user"] : last["assistant"]], ids[last["assistant"] :]


def label_token(label: int, eos_id: int) -> int:
    """Return the token that stands for a label in token shards: its number, but never the end of a text."""
    return label + (label >= eos_id)


class LabelledTexts:
    """The texts in a split of token shards; after each come the token of its label and ``eos_id``."""

    def __init__(self, tokens: npt.NDArray[Any], eos_id: int) -> None:
        """Find where each begins, and its label."""
        self.tokens = tokens
        ends = np.flatnonzero(tokens == eos_id)
        self.begins = np.concatenate(([0], ends[:-1] + 1))
        self.lengths = ends - self.begins - 1
        written = tokens[ends - 1].astype(np.int64)
        self.labels = written - (written > eos_id)
        """The number of each label, (n,)."""
        self.n_targets = np.ones(len(ends), np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(
        self, which: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return some texts: inputs (B, T), labels (B,), and the places of their last tokens among the B T."""
        lengths = self.lengths[which]
        T = int(lengths.max())
        places = np.arange(T)
        at = np.minimum(self.begins[which, None] + places, len(self.tokens) - 1)  # (B, T)
        inputs = np.where(places < lengths[:, None], self.tokens[at], self.tokens[-1])
        return inputs.astype(np.int64), self.labels[which], np.arange(len(which)) * T + lengths - 1


@dataclass(frozen=True)
class ConversationOrder:
    """Which of ``epoch_size`` conversations a step uses: in each epoch all of them once, in random order."""

    epoch_size: int
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps in an epoch, rounded up."""
        return -(-self.epoch_size // self.batch_size)

    def epochs(self, step: int) -> int:
        """Return how many epochs are complete after ``step`` steps."""
        return step * self.batch_size // self.epoch_size

    def conversations(self, step: int) -> npt.NDArray[np.int64]:
        """Return the conversations of a step, (batch_size,)."""
        sample = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epoch, index = np.divmod(sample, self.epoch_size)
        chosen = np.empty(self.batch_size, np.int64)
        for e in np.unique(epoch):
            here = epoch == e
            chosen[here] = permute(index[here], self.epoch_size, feistel_key(self.seed, int(e)))
        return chosen
