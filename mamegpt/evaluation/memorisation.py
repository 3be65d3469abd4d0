"""How much of what a model writes was copied from its training text.

Of all strings of 20 characters in what it writes, how many occur in that text? Language repeats itself, so the same
share of held-out text stands beside it: a model far above that recites.
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
"""Prompts, characters of each, and tokens written after each."""


def continuations(writer: Writer, texts: Sequence[str]) -> list[str]:
    """Return what a model writes at temperature 1 after the beginnings of some texts; without texts, nothing."""
    return writer.write([text[:PROMPT] for text in subsample(texts, N_PROMPTS, lambda _: 1)], N_TOKENS)


def verbatim_overlap(written: Mapping[str, Sequence[str]], training: Iterable[str]) -> dict[str, float | None]:
    """By the name of each group of texts, the share of its strings of `LENGTH` characters that occur in ``training``.

    None for a group without such a string. Strings are told apart by 64 bits of a hash. Memory grows with what was
    written, 8 bytes a character, and not with the training text, which is read once.
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
