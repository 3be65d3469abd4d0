"""Soft targets from counts: what else followed the last few tokens, elsewhere in the training text.

Beside the token that followed, each position of a batch learns continuations drawn from an n-gram model of the
training text. So a rare context teaches at once what all its occurrences together would teach, and the gradient is
less noisy (Sathe and Sarawagi 2024, "Efficient Training of Language Models with Compact and Consistent Next Token
Distributions", arXiv 2407.02819). The share of these targets falls to zero over the run, so that a model ends on the
text itself.

The n-gram model is Kneser and Ney's (1995), interpolated, with one discount; it is never computed. A sorted array of
all n-grams is enough: a draw takes one of the places with the same context, and with probability `DISCOUNT` leaves the
first one of each kind, in favor of a context that is one token shorter. What is left has just the counts, less
`DISCOUNT` each. A context that occurs once is passed over, since its only place is the one that asks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mamegpt.data.shards import sample_tokens
from mamegpt.errors import ConfigError
from mamegpt.native.draw import draw
from mamegpt.native.library import Native

__all__ = ["NgramTargets", "counted", "true_share"]

ORDER = 3
"""Tokens of the longest n-gram: the last two and the one that follows."""
DISCOUNT = 0.75
N_DRAWS = 16
"""Continuations drawn for each position, spread evenly over all there are."""
COUNTED_TOKENS = 1 << 24
"""Tokens that are counted at most; of a longer text, pieces from everywhere in it."""
COUNTED_PIECES = 256
SMALLEST = 1e-9
"""Probability of a token that was never counted."""
FEWEST_HELD_OUT = 100
HELD_OUT_TOKENS = 1 << 15
"""Of these, tokens at the end that are kept to measure the n-gram model on; a fiftieth of a short text."""

BLOCK = 1 << 10
"""Keys between those that are looked at first in a search: the others need not be in the cache."""

MAX_VOCAB_SIZE = (1 << 63 // ORDER) - 1
"""Of this many an n-gram is a number of 63 bits."""

TRUE_SHARE = 0.1
"""Share of the token that really followed, at the start."""
FADE_STEPS = 2_000
"""Steps after which counts have no share any more: past them they hold a model back (docs/log.md)."""


def true_share(progress: float, step: int) -> float:
    """Return the share of the token that really followed in a step's targets; ``progress`` is that of the run, 0 to 1.

    It rises with the square of the progress to 1, and has risen after `FADE_STEPS` however long the run is.
    """
    return TRUE_SHARE + (1 - TRUE_SHARE) * min(1.0, max(progress, step / FADE_STEPS)) ** 2


class NgramTargets:
    """Draws continuations of tokens from the n-grams of ``tokens``, a sample of them if they are many."""

    def __init__(self, tokens: npt.NDArray[Any], vocab_size: int, seed: int, *, native: Native | None = None) -> None:
        """Sort the n-grams of ``tokens``; ``native``, if it is given, draws the same from them in less time.

        Raises `ConfigError` for a vocabulary too large for 64-bit keys.
        """
        if vocab_size > MAX_VOCAB_SIZE:
            raise ConfigError(
                "--ngrams needs a vocabulary of at most {most:,} tokens (got {vocab_size:,}); give --ngrams false",
                most=MAX_VOCAB_SIZE,
                vocab_size=vocab_size,
            )
        self.vocab_size, self.seed, self.native = vocab_size, seed, native
        text = counted(tokens)
        n_held_out = min(HELD_OUT_TOKENS, len(text) // 50)
        text, held_out = np.split(text, [len(text) - n_held_out])
        longest = min(ORDER, len(text))
        keys = np.sort(_ngrams(text, vocab_size, longest))
        self.levels = [keys]
        """For n = 1, 2, ... all n-grams, sorted; below the longest, one for each token seen before them."""
        for n in range(longest - 1, 0, -1):
            keys = np.sort(keys[_first_of_kind(keys)] % vocab_size**n)
            self.levels.insert(0, keys)
        self.heads = [np.ascontiguousarray(keys[::BLOCK]) for keys in self.levels]
        """Of each level, the first key of each block."""
        self.loss = self._loss(held_out)
        """Cross-entropy of this model on tokens that were not counted, in nats per token."""

    def draw(self, ids: npt.NDArray[np.int64], step: int, first: int = 0) -> npt.NDArray[np.int64]:
        """Return continuations of each position of ``ids``, drawn at random: (B, T) -> (B, T, N_DRAWS).

        ``first`` is the number of the first row in the whole batch of this ``step``. What is drawn for a row depends on
        the seed, the step and the row's number, so that it is the same for any number of processes.
        """
        B, T = ids.shape
        random = self.random(B, T, step, first)
        if self.native:
            return draw(
                self.native,
                self.levels,
                self.vocab_size,
                DISCOUNT,
                np.ascontiguousarray(ids),
                random[: len(self.levels)],
            )
        drawn = np.empty((B, T, N_DRAWS), np.int64)
        is_open = np.ones((B, T, N_DRAWS), bool)  # what is still to be drawn, from a shorter context
        for n in range(len(self.levels), 0, -1):
            begin_at = max(0, n - 2)  # the first position that has n - 1 tokens of context
            keys, rest, chance = self.levels[n - 1], is_open[:, begin_at:], random[n - 1, :, begin_at:]
            context = _ngrams(ids, self.vocab_size, n - 1) * self.vocab_size
            begin, end = _search(keys, self.heads[n - 1], np.stack((context, context + self.vocab_size)))[..., None]
            count = end - begin
            # Places spread evenly over all there are, beginning at a random one: each is as likely as any other.
            share = (rest.cumsum(-1) - 1 + chance[..., :1]) / np.maximum(1, rest.sum(-1, keepdims=True))
            place = np.minimum(begin + (share * count).astype(np.int64), len(keys) - 1)
            found = keys[place]
            taken = rest.copy()
            if n > 1:
                is_first = (place == 0) | (keys[place - 1] != found)
                taken &= (count > 1) & ~(is_first & (chance[..., 1:] < DISCOUNT))
            np.copyto(drawn[:, begin_at:], found % self.vocab_size, where=taken)
            rest &= ~taken
        return drawn

    def random(self, B: int, T: int, step: int, first: int = 0) -> npt.NDArray[np.float64]:
        """Return what `draw` decides by, from 0 to 1: (ORDER, B, T, 1 + N_DRAWS)."""
        streams = [np.random.Philox(key=[self.seed, step], counter=[0, 0, 0, first + row]) for row in range(B)]
        return np.stack([np.random.Generator(one).random((ORDER, T, 1 + N_DRAWS)) for one in streams], axis=1)

    def _loss(self, tokens: npt.NDArray[np.int64]) -> float:
        """Return the mean of -log P(token | tokens before it) over ``tokens`` (N,); 0 if they are too few to tell."""
        if len(tokens) < FEWEST_HELD_OUT:
            return 0.0
        probability = np.zeros(len(tokens) - ORDER + 1)
        for n, keys in enumerate(self.levels, start=1):
            grams = _ngrams(tokens, self.vocab_size, n)[ORDER - n :]
            context = grams - grams % self.vocab_size
            begin, end = np.searchsorted(keys, context), np.searchsorted(keys, context + self.vocab_size)
            occurs = np.searchsorted(keys, grams + 1) - np.searchsorted(keys, grams)
            kinds = np.concatenate((np.zeros(1, np.int32), _first_of_kind(keys).cumsum(dtype=np.int32)))
            total, discount = np.maximum(1, end - begin), DISCOUNT if n > 1 else 0.0
            own = (
                np.maximum(occurs - discount, 0) / total + discount * (kinds[end] - kinds[begin]) / total * probability
            )
            probability = np.where(end - begin > (n > 1), own, probability)
        return float(-np.log(np.maximum(probability, SMALLEST)).mean())


def counted(tokens: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the tokens that are counted: all, or pieces from everywhere in a long text."""
    return sample_tokens(tokens, COUNTED_TOKENS, COUNTED_PIECES).astype(np.int64)


def _ngrams(tokens: npt.NDArray[np.int64], vocab_size: int, n: int) -> npt.NDArray[np.int64]:
    """Return each ``n`` tokens in a row as one number, (..., T) -> (..., T - n + 1); zeros (..., T) for none."""
    if n == 0:
        return np.zeros(tokens.shape, np.int64)
    width = max(0, tokens.shape[-1] - n + 1)
    number = np.zeros((*tokens.shape[:-1], width), np.int64)
    for i in range(n):
        number = number * vocab_size + tokens[..., i : i + width]
    return number


def _search(
    keys: npt.NDArray[np.int64], heads: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return ``np.searchsorted(keys, numbers)``, given every `BLOCK`-th key.

    NumPy's search reads a dozen places far from each other for one number after another, and waits for each. Here those
    of all numbers are read at once, and the first half of them lies close together, in ``heads``.
    """
    last = (np.searchsorted(heads, numbers) - 1) * BLOCK  # the last key that is known to be smaller; below 0: none is
    step = BLOCK // 2
    while step:
        next_ = last + step
        is_smaller = (next_ < len(keys)) & (keys.take(next_, mode="clip") < numbers) & (last >= 0)
        np.copyto(last, next_, where=is_smaller)
        step //= 2
    return np.maximum(last, -1) + 1


def _first_of_kind(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    return np.concatenate(([True], keys[1:] != keys[:-1]))
