"""Count the characters of a text by class (hiragana, kanji and so on), and hash its n-grams."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["CLASSES", "JAPANESE", "LETTERS", "MULTIPLIER", "count_classes", "mixed", "ngram_hashes"]

CLASSES = ("hiragana", "katakana", "kanji", "Latin", "other letters", "digits", "punctuation", "white space", "other")
LETTERS = CLASSES[:5]
JAPANESE = CLASSES[:3]

MULTIPLIER = 0x9E3779B97F4A7C15
"""The base of polynomial hashes: an odd number near 2^64 divided by the golden ratio."""

_N_CODES = 0x323B1  # up to the last block of kanji (extension H), and one for all code points beyond, "other"
_RANGES = {
    "hiragana": ((0x3041, 0x3096), (0x309D, 0x309F)),
    "katakana": ((0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9D)),  # ー is one of them
    "kanji": ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF)),  # 々〆〇
    "Latin": ((0xFF21, 0xFF3A), (0xFF41, 0xFF5A)),
}


def count_classes(text: str) -> dict[str, int]:
    """Return the number of characters of ``text`` in each of `CLASSES`; every character is in one of them."""
    import numpy as np

    found = np.bincount(_table()[np.minimum(_codes(text), _N_CODES - 1)], minlength=len(CLASSES))
    return dict(zip(CLASSES, found.tolist(), strict=True))


def ngram_hashes(text: str, n: int) -> npt.NDArray[np.uint64]:
    """Return a hash of each run of ``n`` characters: an array (max(0, len(text) - n + 1),) of uint64.

    The hash is a polynomial in the code points, mixed as in MurmurHash3's final step. Equal runs have equal hashes; the
    probability that two among a million different runs have the same hash is 3e-8.
    """
    import numpy as np

    codes = _codes(text).astype(np.uint64)
    hashes = np.zeros(max(0, len(codes) - n + 1), np.uint64)
    for k in range(n):
        hashes *= np.uint64(MULTIPLIER)
        hashes += codes[k : k + len(hashes)]
    return mixed(hashes)


def mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Mix numbers, in place (uint64), so that each bit depends on all of their bits: MurmurHash3's final step."""
    import numpy as np

    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        numbers ^= numbers >> np.uint64(33)
        numbers *= np.uint64(multiplier)
    numbers ^= numbers >> np.uint64(33)
    return numbers


def _codes(text: str) -> npt.NDArray[np.uint32]:
    """Return the code points, (len(text),) uint32."""
    import numpy as np

    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@cache
def _table() -> npt.NDArray[np.uint8]:
    """Return the class of each code point, as an index into CLASSES: an array (_N_CODES,) of uint8."""
    import numpy as np

    table = np.full(_N_CODES, CLASSES.index("other"), np.uint8)
    table[:0x20000] = [CLASSES.index(_general_class(chr(code))) for code in range(0x20000)]  # planes 0 and 1
    for name, ranges in _RANGES.items():
        for first, last in ranges:
            table[first : last + 1] = CLASSES.index(name)
    return table


def _general_class(character: str) -> str:
    """Return the class by Unicode general category (Unicode Standard, section 4.5), for all but Japanese letters."""
    category = unicodedata.category(character)
    if character.isspace() or category == "Zs":
        return "white space"
    if category[0] == "L":
        return "Latin" if character < "\u3000" and "LATIN" in unicodedata.name(character, "") else "other letters"
    if category == "Nd":
        return "digits"
    return "punctuation" if category[0] in "PS" else "other"
