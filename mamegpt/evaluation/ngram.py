"""The baseline: an n-gram model with interpolated modified Kneser-Ney smoothing, over the same token ids.

A trained model that is not better than this one has learned only how often words follow one another.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mamegpt.evaluation.scorer import Scorer

__all__ = ["KneserNey", "NgramScorer"]

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts of a level whose counts are too few to estimate them, as in KenLM's ``--discount_fallback``."""


class Level(NamedTuple):
    """All k-grams that occur: their sorted ``keys`` (n,), and ``share`` (n,), the discounted probability in their
    context.

    A key is the number of the context, which is its index among the (k-1)-grams, times the vocabulary size, plus the
    token. ``rest`` (contexts,) is the probability that each context leaves to the level below.
    """

    keys: npt.NDArray[np.int64]
    share: npt.NDArray[np.float64]
    rest: npt.NDArray[np.float64]


class KneserNey:
    """Probabilities of tokens given the ``order - 1`` tokens before them (Chen and Goodman 1998, section 3).

    The highest order counts occurrences, lower ones the different tokens seen before a k-gram. The lowest is
    interpolated with the uniform distribution over the vocabulary, so no token has probability 0.
    """

    def __init__(self, tokens: npt.NDArray[Any], vocab_size: int, order: int) -> None:
        """Count ``tokens`` (N,), at least one; orders above N are left out."""
        self.vocab_size = vocab_size
        self.levels: list[Level] = []
        context = np.zeros(len(tokens), np.int64)  # number of the context of each token; the empty one for all
        below: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int] | None = None
        n_contexts = 1
        for k in range(1, min(order, len(tokens)) + 1):
            keys, number, counts = np.unique(
                context * vocab_size + tokens[k - 1 :], return_inverse=True, return_counts=True
            )
            if below is not None:
                last = np.empty(len(keys), np.int64)
                last[number] = below[1][1:]  # the index of each k-gram without its first token
                self._add(below[0], np.bincount(last, minlength=len(below[0])), below[2])
            below = keys, number, n_contexts
            context, n_contexts = number[:-1], len(keys)
        assert below is not None, "there is a token, and an order"
        self._add(keys, counts, below[2])

    def _add(self, keys: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], n_contexts: int) -> None:
        """Add a level: discount its counts, and compute the probability that this frees."""
        discount = np.array([0.0, *discounts(counts)])[np.minimum(counts, 3)]
        context = keys // self.vocab_size
        total = np.bincount(context, counts, n_contexts)
        freed = np.bincount(context, discount, n_contexts)
        rest = np.divide(freed, total, out=np.ones(n_contexts), where=total > 0)
        share = np.divide(counts - discount, total[context], out=np.zeros(len(keys)), where=counts > 0)
        self.levels.append(Level(keys, share, rest))

    def probabilities(self, tokens: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the probability of each of ``tokens`` (N,), given the tokens before it."""
        probability = np.full(len(tokens), 1 / self.vocab_size)
        context = np.zeros(len(tokens), np.int64)  # -1: a context that was never seen
        for level in self.levels:
            key = context * self.vocab_size + tokens
            place = np.minimum(np.searchsorted(level.keys, key), len(level.keys) - 1)
            known = context >= 0
            seen = known & (level.keys[place] == key)
            rest = np.where(known, level.rest[context], 1.0)
            probability = np.where(seen, level.share[place], 0.0) + rest * probability
            context = np.concatenate(([-1], np.where(seen, place, -1)[:-1]))
        return probability


def discounts(counts: npt.NDArray[np.int64]) -> tuple[float, float, float]:
    """Return the discounts for counts of 1, of 2, and of 3 and more (Chen and Goodman 1998, equation 26).

    They are estimated from the numbers of counts from 1 to 4; if that is impossible, they are `FALLBACK`.
    """
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == c)) for c in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if all(0 <= d <= c for c, d in enumerate(found, 1)) else FALLBACK


class NgramScorer:
    """A `KneserNey` model as a `Scorer`, with the tokenizer of another scorer."""

    context_length = sys.maxsize  # unlimited: only the last few tokens count

    def __init__(self, like: Scorer, tokens: npt.NDArray[Any], order: int) -> None:
        self.encode, self.vocab_size = like.encode, like.vocab_size
        self.start_id, self.end_id, self.restarts = like.start_id, like.end_id, like.restarts
        self.fingerprint = like.fingerprint
        self._model = KneserNey(tokens, like.vocab_size, order)

    def nats(self, rows: Sequence[npt.NDArray[np.int64]]) -> list[float]:
        """See `Scorer.nats`."""
        return [-math.fsum(np.log(self._model.probabilities(row)[1:])) for row in rows]
