"""`mamegpt.text.fold`, many times as fast on long texts, and the facts about Unicode that make that exact.

A code point is *plain* if `fold` leaves it alone and it never joins its neighbours; it is *simple* if `fold` gives the
same for it wherever it stands. Text of simple code points can be folded one code point at a time: a look-up in a table.
What is not simple are combining marks and what becomes one (the half-width ﾞ), which is rare.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import TYPE_CHECKING

from mamegpt.text import fold, normalise

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["REGULAR", "fold_fast", "parts", "unusual"]

REGULAR = (
    range(0x3400, 0xA640), range(0xAC00, 0xF900), range(0x12000, 0x16100), range(0x17000, 0x1B000),
    range(0x20000, 0x2F800), range(0x2FA20, 0x110000),
)  # fmt: skip
"""All of these code points are plain (the tests ask each): CJK ideographs, Hangul syllables, cuneiform, hieroglyphs,
Tangut and their neighbours, what is unassigned."""

SHORT = 64
"""Texts of fewer characters are folded directly; the table would not pay."""

_OTHER = 0xFFFF
"""In the table: not simple, or more than one 16-bit unit. U+FFFF itself is no character, and counts as this."""


def fold_fast(text: str) -> str:
    """Return ``fold(text)``."""
    if text.isascii():
        return text.lower()
    if len(text) < SHORT:
        return fold(text)
    import numpy as np

    table, longer = _table()
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2")
    folded = table[units]
    if folded.max() == _OTHER:
        characters = [chr(unit) for unit in np.unique(units[folded == _OTHER]).tolist()]
        if not all(character in longer for character in characters):
            return fold(text)
        for character in characters:
            text = text.replace(character, longer[character])
        folded = table[np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2")]
    return str(folded.tobytes(), "utf-16-le", "surrogatepass")


def parts(text: str) -> frozenset[str]:
    """The code points that ``text`` is made of once folded and taken apart (NFKD)."""
    once = unicodedata.normalize("NFKD", normalise(text, "none")).casefold()
    return frozenset(unicodedata.normalize("NFKD", once))


@functools.cache
def unusual() -> dict[str, frozenset[str]]:
    """The `parts` of every code point that is not plain, ASCII letters excepted."""
    return {
        character: parts(character)
        for character, folded in _folds().items()
        if not (character.isascii() and character.isalpha()) and (folded != character or character in _joining())
    }


@functools.cache
def _irregular() -> list[str]:
    """The code points outside `REGULAR`; there are some 47,000."""
    edges = [0, *(edge for block in REGULAR for edge in (block.start, block.stop))]
    return [chr(code) for pair in zip(edges[::2], edges[1::2], strict=False) for code in range(*pair)]


@functools.cache
def _folds() -> dict[str, str]:
    """What each code point outside `REGULAR` folds to once `normalise` has seen it, if it is not plain."""
    irregular, joining = _irregular(), _joining()
    # All at once, since a call for each would take a second. The line feed folds to itself and joins nothing.
    folded = [fold(normalise(character, "none")) for character in irregular[:14]]
    folded += fold(normalise("\n".join(irregular[14:]), "none")).split("\n")
    pairs = zip(irregular, folded, strict=True)
    return {character: folds_to for character, folds_to in pairs if folds_to != character or character in joining}


@functools.cache
def _joining() -> frozenset[str]:
    """The code points that may join or pass those before them (Unicode Standard, section 3.11)."""
    marks = filter(unicodedata.combining, _irregular())
    pairs = (mapping.split() for mapping in map(unicodedata.decomposition, _irregular()) if mapping)
    seconds = (chr(int(pair[1], 16)) for pair in pairs if len(pair) == 2 and pair[0][0] != "<")
    jamo = map(chr, range(0x1160, 0x1200))  # Hangul vowels and final consonants are composed by rule
    return frozenset(marks).union(seconds, jamo)


def _is_simple(character: str) -> bool:
    """Whether what a code point folds to does not depend on its neighbours."""
    composed = unicodedata.normalize("NFKC", character).casefold()
    stages = (character, unicodedata.normalize("NFKD", character), composed, unicodedata.normalize("NFKD", composed))
    return not any(stage[0] in _joining() for stage in stages)


@functools.cache
def _table() -> tuple[npt.NDArray[np.uint16], dict[str, str]]:
    """What each 16-bit unit of UTF-16 folds to, (65,536,), and what folds to several.

    A leading surrogate stands for 1,024 code points; it is left alone if all of them are plain.
    """
    import numpy as np

    table = np.arange(1 << 16, dtype=np.uint16)
    longer = {}
    for character in _folds():
        code, folded = ord(character), fold(character)
        if code >= 1 << 16:
            table[0xD800 + ((code - 0x10000) >> 10)] = _OTHER
            continue
        single = len(folded) == 1 and folded < "\U00010000" and _is_simple(character)
        table[code] = ord(folded) if single else _OTHER
        if not single and _is_simple(character):
            longer[character] = folded
    simple = {
        c: folded for c, folded in longer.items() if all(c < "\U00010000" and table[ord(c)] == ord(c) for c in folded)
    }
    return table, simple
