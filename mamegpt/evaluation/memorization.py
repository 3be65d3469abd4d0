"""Memorization: how much of the text that a model generates is copied from its training text.

The measure is the share of all 20-character strings in the generated text that occur in the training text. Because
language repeats itself, the same share is also computed for held-out text: a model far above it memorizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mamegpt.evaluation.scorer import Writer
from mamegpt.text.characters import ngram_hashes
from mamegpt.text.subsample import subsample

__all__ = ["continuations", "verbatim_overlap"]

LENGTH = 20
N_PROMPTS, PROMPT, N_TOKENS = 64, 40, 128
"""Number of prompts, characters of each, and tokens generated after each."""


def continuations(writer: Writer, texts: Sequence[str]) -> list[str]:
    """Return continuations of the beginnings of texts at temperature 1; empty without texts."""
    return writer.write([text[:PROMPT] for text in subsample(texts, N_PROMPTS, lambda _: 1)], N_TOKENS)


def verbatim_overlap(written: Mapping[str, Sequence[str]], training: Iterable[str]) -> dict[str, float | None]:
    """Return, for each group of texts, the share of its strings of `LENGTH` characters that occur in ``training``.

    None for a group without such a string. Strings are compared by a 64-bit hash. Memory is 8 bytes per character of
    the groups; it does not grow with the training text, which is read once.
    """
    found = {name: np.concatenate([_NONE, *(ngram_hashes(t, LENGTH) for t in ts)]) for name, ts in written.items()}
    wanted = np.unique(np.concatenate([_NONE, *found.values()]))
    seen = np.zeros(len(wanted), bool)
    if len(wanted):
        for text in training:
            hashes = ngram_hashes(text, LENGTH)
            places = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
            seen[places[wanted[places] == hashes]] = True
    return {
        name: float(seen[np.searchsorted(wanted, hashes)].mean()) if len(hashes) else None
        for name, hashes in found.items()
    }


_NONE = np.empty(0, np.uint64)
