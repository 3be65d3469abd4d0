"""What a step learns from: the rows of each forward pass, and how much their targets count.

The trainer sees this interface only. Which rows a step has is a pure function of (seed, step, rank, world).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mamegpt.data.window_order import WindowOrder

__all__ = ["Batches", "Pass", "WindowBatches"]


class Pass(NamedTuple):
    """The rows of one forward pass of one process."""

    inputs: npt.NDArray[np.int64]
    """Ids (B, T)."""
    targets: npt.NDArray[np.int64]
    """Ids (B, T)."""
    divisor: float
    """By which the loss of each target is divided: the loss of a step is the sum of that, over all processes."""
    first_row: int = 0
    """The number of the first row in the whole batch of the step."""


class Batches(Protocol):
    """The batches of a run, in order."""

    @property
    def n_tokens(self) -> int:
        """Tokens of the training data."""

    @property
    def epoch_size(self) -> int:
        """Sequences in an epoch."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch, rounded up."""

    def epochs(self, step: int) -> int:
        """Return how many epochs are complete after ``step`` steps."""

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

    @property
    def epoch_size(self) -> int:
        """Windows in an epoch."""
        return self.order.epoch_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch, rounded up."""
        return self.order.steps_per_epoch

    def epochs(self, step: int) -> int:
        """Return how many epochs are complete after ``step`` steps."""
        return self.order.epochs(step)

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


def chunks(n: int, n_chunks: int) -> Iterator[slice]:
    """Yield slices of a range of ``n``, each as long as the others but the last; ``n_chunks`` of them or fewer."""
    size = -(-n // n_chunks)
    return (slice(begin, min(n, begin + size)) for begin in range(0, n, size))
