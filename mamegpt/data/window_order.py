"""The data order: which windows of tokens a training step uses, as a pure function of (seed, step).

A window is a sequence of consecutive tokens. In each epoch the text is cut into windows at a new offset, and these are
permuted by a keyed permutation. Nothing is stored, so a resumed run needs only its step, and the data order does not
depend on the number of processes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mamegpt.errors import DataError

__all__ = ["WindowOrder", "feistel_key", "permute"]


@dataclass(frozen=True)
class WindowOrder:
    """The order of windows of ``n_tokens`` tokens; a pure function of ``seed`` and the step.

    A window has ``context_length`` inputs and as many targets, which are the inputs shifted by one token. An epoch uses
    each window from a random offset on once, in random order, or only ``samples_per_epoch`` of them. Depending on the
    offset, up to two windows of tokens at the ends of the text are left out, different ones in each epoch.

    Raises `DataError` if the text is shorter than one window.
    """

    n_tokens: int
    context_length: int
    batch_size: int
    seed: int
    samples_per_epoch: int = 0

    def __post_init__(self) -> None:
        if self.n_tokens < self.context_length + 1:
            raise DataError(
                "the text has {n_tokens} tokens, but one sequence needs {n} (--context-length + 1); use "
                "more text or a shorter --context-length",
                n_tokens=self.n_tokens,
                n=self.context_length + 1,
            )

    @property
    def epoch_size(self) -> int:
        """The number of windows in an epoch."""
        # One window fewer if the offset may push the last one over the end, so that all epochs have the same size.
        windows = max(1, (self.n_tokens - 1) // self.context_length - 1)
        return min(windows, self.samples_per_epoch) if self.samples_per_epoch else windows

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps in an epoch, rounded up."""
        return -(-self.epoch_size // self.batch_size)

    def epochs(self, step: int) -> int:
        """Return how many epochs are complete after ``step`` steps."""
        return step * self.batch_size // self.epoch_size

    def starts(self, step: int) -> npt.NDArray[np.int64]:
        """Return the positions of the first token of each window of a step, (batch_size,)."""
        sample = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epoch, index = np.divmod(sample, self.epoch_size)
        windows = max(1, (self.n_tokens - 1) // self.context_length - 1)
        starts = np.empty(self.batch_size, dtype=np.int64)
        for e in np.unique(epoch):
            key = feistel_key(self.seed, int(e))
            slack = self.n_tokens - 1 - windows * self.context_length
            offset = int(key[0] % np.uint64(slack + 1))
            here = epoch == e
            starts[here] = offset + permute(index[here], windows, key) * self.context_length
        return starts

    def batch(
        self, tokens: npt.NDArray[Any], step: int, rank: int = 0, world: int = 1
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return inputs and targets of one process, each (batch_size / world, context_length) int64."""
        share = self.batch_size // world
        starts = self.starts(step)[rank * share : (rank + 1) * share]
        windows = np.stack([tokens[s : s + self.context_length + 1] for s in starts]).astype(np.int64)
        return windows[:, :-1], windows[:, 1:]


def permute(index: npt.NDArray[np.int64], n: int, key: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return the images of ``index`` under a keyed random permutation of ``range(n)``, in constant memory.

    A four-round Feistel network (Luby and Rackoff 1988) permutes the range up to the next even power of two; values of
    ``n`` or more are permuted again until they are below ``n`` (cycle walking, Black and Rogaway 2002).
    """
    half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    out = np.asarray(index, dtype=np.uint64).copy()
    outside = np.ones(out.shape, dtype=bool)
    while outside.any():
        left, right = out[outside] >> half, out[outside] & mask
        for k in key:
            left, right = right, left ^ (_mix(right ^ k) & mask)
        out[outside] = (left << half) | right
        outside = out >= n
    return out.astype(np.int64)


def feistel_key(seed: int, epoch: int) -> npt.NDArray[np.uint64]:
    """Return the four round keys of an epoch, (4,), for `permute`."""
    digest = hashlib.blake2b(f"{seed}:{epoch}".encode(), digest_size=32).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Mix the bits of 64-bit integers (the finalizer of SplitMix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
