"""Text without differences of width and case, for comparing: `fold`, the same fast, and the Unicode facts behind that.

A code point is *plain* if `fold` leaves it alone and it never joins its neighbours; it is *simple* if `fold` gives the
same for it wherever it stands. Text of simple code points can be folded one code point at a time: a look-up in a table,
many times as fast on long texts. What is not simple are combining marks and what becomes one (the half-width ﾞ), which
is rare.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import TYPE_CHECKING

from mamegpt.text.normalize import normalize

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["REGULAR", "FoldedText", "fold", "fold_fast", "matches", "parts", "unusual"]

REGULAR = (
    range(0x3400, 0xA640),
    range(0xAC00, 0xF900),
    range(0x12000, 0x16100),
    range(0x17000, 0x1B000),
    range(0x20000, 0x2F800),
    range(0x2FA20, 0x110000),
)
"""All of these code points are plain (the tests ask each): CJK ideographs, Hangul syllables, cuneiform, hieroglyphs,
Tangut and their neighbours, what is unassigned."""

MIN_TABLE_CHARACTERS = 64
"""Texts of fewer characters are folded directly; the table would not pay."""

_SPACES = "\x85\u1680\u2028\u2029"
"""White space outside ASCII that `fold` does not turn into a space."""

_CONTROLS = (*range(0x09), *range(0x0E, 0x1C))
"""Below the space, and no white space."""

_OTHER = 0
"""In the table: not simple, changed by `normalize`, or more than one 16-bit unit."""


def fold(text: str) -> str:
    """Return ``text`` without differences of width and case, for comparing only.

    ﾌｧﾐｺﾝ -> ファミコン, Ｗｉｉ -> wii.
    This is NFKC, case folding, and NFKC again, because folding can take composed letters apart
    (Unicode Standard, section 3.13, default caseless matching).
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def matches(text: str, folded_keyword: str) -> bool:
    """Say whether ``text``, folded, contains a keyword that `fold` was applied to already."""
    return folded_keyword in fold(text)


class FoldedText:
    """A text as `normalize` leaves it (``text``), with what `fold` makes of it in UTF-16, to count in and to compare.

    For nearly all texts one look-up in a table shows that `normalize` leaves them alone, and folds them.
    """

    def __init__(self, text: str) -> None:
        from stringzilla import Str

        self._units = _units(text)
        if self._units is None:
            text = normalize(text)
            self._units = _units(text)
        self.text = text
        self._folded = Str(fold(text).encode("utf-16-le") if self._units is None else self._units.data.cast("B"))

    def count(self, folded_keyword: str) -> int:
        """Return how often a keyword that was folded is in the folded text, without overlaps."""
        needle = folded_keyword.encode("utf-16-le", "surrogatepass")
        n, at = 0, self._folded.find(needle)
        while at >= 0:
            if at % 2:  # between two units, so it is no hit
                at = self._folded.find(needle, at + 1)
            else:
                n += 1
                at = self._folded.find(needle, at + len(needle))
        return n

    def key(self) -> int:
        """64 bits of a hash, equal for texts that differ in width, case and white space only."""
        import stringzilla

        if self._units is None:
            return int(stringzilla.hash("".join(fold(self.text).split()).encode("utf-16-le")))
        return int(stringzilla.hash(self._units[self._units > ord(" ")].data.cast("B")))


def fold_fast(text: str) -> str:
    """Return ``fold(text)``."""
    if text.isascii():
        return text.lower()
    units = _units(text) if len(text) >= MIN_TABLE_CHARACTERS else None
    return fold(text) if units is None else str(units.tobytes(), "utf-16-le")


def _units(text: str) -> npt.NDArray[np.uint16] | None:
    """``fold(text)`` in 16-bit units, None unless `normalize` leaves it alone and its code points fold alone."""
    import numpy as np

    table, longer = _table()
    try:
        units = np.frombuffer(text.encode("utf-16-le"), "<u2")
    except UnicodeEncodeError:
        return None
    folded = table.take(units)
    if np.count_nonzero(folded) < len(folded):
        characters = set(map(chr, units[folded == _OTHER].tolist()))
        if not all(character in longer for character in characters):
            return None
        for character in characters:
            text = text.replace(character, longer[character])
        folded = table.take(np.frombuffer(text.encode("utf-16-le"), "<u2"))
    return folded


def parts(text: str) -> frozenset[str]:
    """Return the code points that ``text`` is made of once folded and taken apart (NFKD)."""
    once = unicodedata.normalize("NFKD", normalize(text, "none")).casefold()
    return frozenset(unicodedata.normalize("NFKD", once))


@functools.cache
def unusual() -> dict[str, frozenset[str]]:
    """Return the `parts` of every code point that is not plain, ASCII letters excepted."""
    return {character: parts(character) for character in _folds() if not (character.isascii() and character.isalpha())}


@functools.cache
def _irregular() -> list[str]:
    """Return the code points outside `REGULAR`; there are some 47,000."""
    edges = [0, *(edge for block in REGULAR for edge in (block.start, block.stop))]
    return [chr(code) for pair in zip(edges[::2], edges[1::2], strict=False) for code in range(*pair)]


@functools.cache
def _folds() -> dict[str, str]:
    """Return what each code point outside `REGULAR` folds to once `normalize` has seen it, if it is not plain."""
    irregular, joining = _irregular(), _joining()
    # All at once, since a call for each would take a second. The line feed folds to itself and joins nothing.
    folded = [fold(normalize(character, "none")) for character in irregular[:14]]
    folded += fold(normalize("\n".join(irregular[14:]), "none")).split("\n")
    pairs = zip(irregular, folded, strict=True)
    return {character: folds_to for character, folds_to in pairs if folds_to != character or character in joining}


@functools.cache
def _joining() -> frozenset[str]:
    """Return the code points that may join or pass those before them (Unicode Standard, section 3.11)."""
    marks = filter(unicodedata.combining, _irregular())
    pairs = (mapping.split() for mapping in map(unicodedata.decomposition, _irregular()) if mapping)
    seconds = (chr(int(pair[1], 16)) for pair in pairs if len(pair) == 2 and pair[0][0] != "<")
    jamo = map(chr, range(0x1160, 0x1200))  # Hangul vowels and final consonants are composed by rule
    return frozenset(marks).union(seconds, jamo)


def _is_simple(character: str) -> bool:
    """Return whether what a code point folds to does not depend on its neighbours."""
    composed = unicodedata.normalize("NFKC", character).casefold()
    stages = (character, unicodedata.normalize("NFKD", character), composed, unicodedata.normalize("NFKD", composed))
    return not any(stage[0] in _joining() for stage in stages)


@functools.cache
def _table() -> tuple[npt.NDArray[np.uint16], dict[str, str]]:
    """Return what each 16-bit unit of UTF-16 folds to, (65,536,), and what folds to several.

    A leading surrogate stands for 1,024 code points; it is left alone if all of them are plain. What `normalize`
    changes is in neither, so that texts in them are normalised; and of what is, white space is not above U+0020.
    """
    import numpy as np

    table = np.arange(1 << 16, dtype="<u2")
    longer = {}
    for character, folded in _folds().items():
        code = ord(character)
        if code >= 1 << 16:
            table[0xD800 + ((code - 0x10000) >> 10)] = _OTHER
            continue
        simple = normalize(character) == character and _is_simple(character)
        single = len(folded) == 1 and folded < "\U00010000"
        table[code] = ord(folded) if single and simple else _OTHER
        if simple and not single:
            longer[character] = folded
    table[[*_CONTROLS, *map(ord, _SPACES)]] = _OTHER
    in_table = {
        c: folded for c, folded in longer.items() if all(c < "\U00010000" and table[ord(c)] == ord(c) for c in folded)
    }
    return table, in_table
