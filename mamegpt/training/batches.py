"""What a step learns from: the rows of each forward pass, and how much their targets count.

The trainer sees this interface only. Which rows a step has is a pure function of (seed, step, rank, world), and if the
model writes them itself (GRPO) of its weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mamegpt.data.conversation_order import ConversationOrder, Conversations, Examples
from mamegpt.data.window_order import WindowOrder

__all__ = ["Batches", "ConversationBatches", "ExampleBatches", "PairBatches", "Pass", "WindowBatches", "cuts"]


class Pass(NamedTuple):
    """The rows of one forward pass of one process."""

    inputs: npt.NDArray[np.int64]
    """Ids (B, T)."""
    targets: npt.NDArray[np.int64]
    """Ids (B, T), or (N,) for the ``learned`` positions."""
    divisor: float
    """By which the loss of each target is divided: the loss of a step is the sum of that, over all processes."""
    first_row: int = 0
    """The number of the first row in the whole batch of the step."""
    learned: npt.NDArray[np.int64] | None = None
    """The positions with a target, (N,) of all B T; None: all."""
    of_rows: npt.NDArray[Any] | None = None
    """What else the loss asks of each row, (B,): the number of its conversation (DPO) or its advantage (GRPO)."""
    figures: Mapping[str, float] = MappingProxyType({})
    """What was measured when the rows were made, for the metrics of the step; equal in all its passes."""


class Order(Protocol):
    """The order in which sequences are learned from."""

    @property
    def epoch_size(self) -> int:
        """Sequences in an epoch."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch, rounded up."""

    def epochs(self, step: int) -> int:
        """Return how many epochs are complete after ``step`` steps."""


class Batches(Protocol):
    """The batches of a run, in order."""

    @property
    def order(self) -> Order:
        """Which sequences a step learns from."""

    @property
    def n_tokens(self) -> int:
        """Tokens of the training data."""

    def n_tokens_after(self, step: int) -> int:
        """Return how many tokens all processes have read after ``step`` steps."""

    def passes(self, step: int, rank: int, world: int) -> list[Pass]:
        """Return the forward passes of one process in a step, at least one."""


@dataclass(frozen=True)
class WindowBatches:
    """Windows of a text: each of a step's ``order.batch_size`` rows has a target at each position."""

    order: WindowOrder
    tokens: npt.NDArray[Any]
    n_passes: int

    @property
    def n_tokens(self) -> int:
        """Tokens of the text."""
        return self.order.n_tokens

    def n_tokens_after(self, step: int) -> int:
        """Return how many tokens all processes have read after ``step`` steps."""
        return step * self.order.batch_size * self.order.context_length

    def passes(self, step: int, rank: int, world: int) -> list[Pass]:
        """Return the windows of one process in a step, cut into ``n_passes`` forward passes or fewer."""
        inputs, targets = self.order.batch(self.tokens, step, rank, world)
        n_targets = self.order.batch_size * self.order.context_length
        return [
            Pass(inputs[rows], targets[rows], n_targets, rank * len(inputs) + rows.start)
            for rows in chunks(len(inputs), self.n_passes)
        ]


@dataclass(frozen=True)
class ExampleBatches:
    """What batches of conversations, of pairs of answers, and of groups of answers have in common."""

    conversations: Examples
    order: ConversationOrder
    n_rows: int

    @property
    def n_tokens(self) -> int:
        """Tokens of all conversations."""
        return int(self.conversations.lengths.sum())


@dataclass(frozen=True)
class ConversationBatches(ExampleBatches):
    """Conversations, and beside them windows of a text, so that what was learned from it is not forgotten.

    The loss of a step is the mean over all targets in answers, and with ``text_share`` the mean over the text.
    Conversations of similar length share a forward pass, which is padded to the longest of them. They may also be texts
    with labels.
    """

    conversations: Examples
    order: ConversationOrder
    n_rows: int
    """Conversations, or windows of the text, in a forward pass, at most."""
    text: WindowOrder | None = None
    text_tokens: npt.NDArray[Any] | None = None
    text_share: float = 0.0
    pass_cost: int | None = None
    """How many tokens of padding take as long as a further forward pass; None: more than there are."""

    def n_tokens_after(self, step: int) -> int:
        """Return how many tokens all processes have read after ``step`` steps, by the mean length of conversations."""
        n_text = self.text.batch_size * self.text.context_length if self.text else 0
        return round(step * (self.order.batch_size * float(self.conversations.lengths.mean()) + n_text))

    def passes(self, step: int, rank: int, world: int) -> list[Pass]:
        """Return the conversations of one process in a step, the longest first, and its windows of the text."""
        chosen = self.order.conversations(step)
        n_targets = int(self.conversations.n_targets[chosen].sum())
        own = chosen[np.argsort(-self.conversations.lengths[chosen], kind="stable")][rank::world]
        found = []
        for rows in self._cuts(self.conversations.lengths[own]):
            inputs, targets, learned = self.conversations.rows(own[rows])
            found.append(Pass(inputs, targets, n_targets / (1 - self.text_share), learned=learned))
        if self.text is not None and self.text_tokens is not None:
            T = self.text.context_length
            starts = self.text.starts(step)[rank::world]
            for rows in chunks(len(starts), -(-len(starts) // self.n_rows)):
                text = np.stack([self.text_tokens[start : start + T + 1] for start in starts[rows]]).astype(np.int64)
                found.append(Pass(text[:, :-1], text[:, 1:], self.text.batch_size * T / self.text_share))
        return found

    def _cuts(self, lengths: npt.NDArray[np.int64]) -> Iterable[slice]:
        """Return which of one process's conversations, sorted from the longest, share a forward pass."""
        if self.pass_cost is None:
            return chunks(len(lengths), -(-len(lengths) // self.n_rows))
        return cuts(lengths, self.n_rows, self.pass_cost)


@dataclass(frozen=True)
class PairBatches(ExampleBatches):
    """Pairs of answers to a question: a step has ``order.batch_size`` of them, and its loss is the mean over them.

    Rows 2 i and 2 i + 1 of a forward pass are the better and the worse answer of a pair.
    """

    conversations: Conversations
    order: ConversationOrder
    n_rows: int
    """Pairs in a forward pass, at most."""

    def n_tokens_after(self, step: int) -> int:
        """Return how many tokens all processes have read after ``step`` steps, by the mean length of conversations."""
        return round(2 * step * self.order.batch_size * float(self.conversations.lengths.mean()))

    def passes(self, step: int, rank: int, world: int) -> list[Pass]:
        """Return the pairs of one process in a step, the longest first."""
        chosen = self.order.conversations(step)
        lengths = np.maximum(self.conversations.lengths[2 * chosen], self.conversations.lengths[2 * chosen + 1])
        own = chosen[np.argsort(-lengths, kind="stable")][rank::world]
        found = []
        for rows in chunks(len(own), -(-len(own) // self.n_rows)):
            which = np.stack((2 * own[rows], 2 * own[rows] + 1), axis=1).ravel()
            inputs, targets, learned = self.conversations.rows(which)
            found.append(Pass(inputs, targets, self.order.batch_size, learned=learned, of_rows=which))
        return found


def cuts(lengths: npt.NDArray[np.int64], n_rows: int, pass_cost: int) -> list[slice]:
    """Return the slices of rows, sorted from the longest, that cost least: their tokens with padding, and each its own.

    None has more than ``n_rows``.
    """
    n = len(lengths)
    cost, begin = np.zeros(n + 1), np.zeros(n + 1, np.int64)
    for end in range(1, n + 1):
        first = np.arange(max(0, end - n_rows), end)
        costs = cost[first] + lengths[first] * (end - first) + pass_cost
        best = int(costs.argmin())
        cost[end], begin[end] = costs[best], first[best]
    found: list[slice] = []
    while n > 0:
        found.append(slice(int(begin[n]), n))
        n = int(begin[n])
    return found[::-1]


def chunks(n: int, n_chunks: int) -> Iterator[slice]:
    """Yield slices of a range of ``n``, each as long as the others but the last; ``n_chunks`` of them or fewer."""
    size = -(-n // n_chunks)
    return (slice(begin, min(n, begin + size)) for begin in range(0, n, size))
