"""Rules that drop a whole document: pure functions ``str -> bool``, each with its threshold and its source.

The thresholds are low on purpose: they drop what hardly anybody would call Japanese prose. Everything they dropped from
Wikipedia, Wikinews and Aozora Bunko was reviewed (docs/log.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mamegpt.text.characters import JAPANESE, LETTERS, count_classes, ngram_hashes

__all__ = ["FILTERS", "is_not_japanese", "is_repetitive", "is_short", "lacks_sentence_end"]

MIN_CHARACTERS = 50
"""Least number of characters: one or two sentences. Japanese needs about half as many characters as English."""

MIN_KANA = 0.05
"""Least share of kana in the letters, as in the rule of the NINJAL Web Japanese Corpus (nwc-toolkit's text filter).
Lists of names and Chinese text are below it."""

MIN_JAPANESE = 0.3
"""Least share of kana and kanji in the letters. The NINJAL corpus requires 0.7 of each sentence; a whole Japanese
document with a list of English sources may have only 0.35."""

MAX_REPEATED_LINES = 0.3
"""Largest share of characters in repeated lines: Rae et al., "Scaling Language Models" (2021), table A1."""

MAX_REPEATED_10_GRAMS = 0.4
"""Largest share of repeated runs of ten characters, which are about five words. Rae et al. allow 0.15 of the characters
in repeated runs of five words, but a prayer, a song or a table of results in Japanese reaches 0.37."""

_SENTENCE_END = re.compile(r"[。！？．｡]|[.!?…]['”」』）)]*$", re.M)


def is_short(text: str) -> bool:
    """Return whether a text has less than MIN_CHARACTERS characters, white space not counted."""
    return sum(map(len, text.split())) < MIN_CHARACTERS


def lacks_sentence_end(text: str) -> bool:
    """Return whether a text has no 。！？ anywhere, and no . ! ? … at the end of a line: a list, a menu, or a poem.

    After Raffel et al., "Exploring the Limits of Transfer Learning" (2020), section 2.2, who require it of each line.
    """
    return _SENTENCE_END.search(text) is None


def is_repetitive(text: str) -> bool:
    """Return whether too much of a text is repeated, in lines or in runs of ten characters."""
    lines = [line for line in text.split("\n") if line.strip()]
    repeated = sum(map(len, lines)) - sum(map(len, set(lines)))
    if repeated > MAX_REPEATED_LINES * len(text):
        return True
    import numpy as np

    runs = np.sort(ngram_hashes("".join(text.split()), 10))
    return bool(np.count_nonzero(runs[1:] == runs[:-1]) > MAX_REPEATED_10_GRAMS * len(runs))


def is_not_japanese(text: str) -> bool:
    """Return whether too few letters of a text are kana, or kana and kanji; also True for a text without letters."""
    counts = count_classes(text)
    n_letters = sum(counts[name] for name in LETTERS)
    n_kana = counts["hiragana"] + counts["katakana"]
    n_japanese = sum(counts[name] for name in JAPANESE)
    return n_letters == 0 or n_kana < MIN_KANA * n_letters or n_japanese < MIN_JAPANESE * n_letters


FILTERS: dict[str, Callable[[str], bool]] = {
    "short": is_short,
    "no-sentence-end": lacks_sentence_end,
    "not-japanese": is_not_japanese,
    "repetitive": is_repetitive,  # the slowest, last
}
