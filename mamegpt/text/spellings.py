"""All spellings of a keyword as one regular expression, so that text need not be folded to be searched.

ガンダム becomes ``(?:[ガ]|[カ㋕ｶ][゙ﾞ])[ンﾝ](?:[ダ]|[タ㋟ﾀ][゙ﾞ])[ム㋰ﾑ]``: each character as all code points that `fold`
makes of it, composed and taken apart, and with those that stand for several characters, such as ㈱ for (株).
"""

from __future__ import annotations

import functools
import re
import unicodedata

from mamegpt.text.folding import fold
from mamegpt.text.normalize import normalize

__all__ = ["UNCHANGED", "row_expression", "spellings"]

UNCHANGED = (
    range(0x3400, 0xA640),
    range(0xAC00, 0xF900),
    range(0x12000, 0x16100),
    range(0x17000, 0x1B000),
    range(0x20000, 0x2F800),
    range(0x2FA20, 0x110000),
)
"""Code points that `fold` leaves alone (the tests ask each): CJK ideographs, Hangul syllables, cuneiform, hieroglyphs,
Tangut and their neighbors, what is unassigned."""

VOICING = "\u3099\u309a\uff9e\uff9f"
"""Marks that turn the kana before them into another one, combining and half-width."""

ROW_PARTS = 8
"""Characters of a keyword that rows are chosen by: few have these and not the rest, and RE2's memory is limited."""


def spellings(folded_keyword: str) -> re.Pattern[str]:
    """Return an expression that finds a keyword, as `fold` returns it, in text as `normalize` returns it.

    In ordinary text the hits are those of the keyword in the folded text, without overlaps. They differ

    - if a keyword of several characters begins or ends within what is written as one (``株)会`` in ㈱会, ``3キロ`` in
      3㌖), which is not found, and if such a character holds it twice (``.`` in ‥), which counts once;
    - if such characters could overlap in it (``sst``: s and ﬆ besides ß and t), which is found with the first only;
    - if a mark stands where no text has it: on a letter of another width or in a circle (ｅ and a combining acute).
    """
    last = folded_keyword[-1:]
    joining = "".join(mark for mark in VOICING if len(fold(last + mark)) == 1)
    found = "|".join(["".join(_parts(folded_keyword)), *_around(folded_keyword)])
    return re.compile(f"(?:{found})(?![{joining}])" if joining else found)


def row_expression(folded_keyword: str) -> str:
    """Return an expression that RE2 finds in all text in which `spellings` finds a keyword once it is normalized.

    It may be in other text, too: whatever has a NUL, which `normalize` drops, or begins like a long keyword.
    """
    return "|".join(["".join(_parts(folded_keyword)[:ROW_PARTS]), *_around(folded_keyword), r"\x00"])


def _parts(folded: str, inside: str = "") -> list[str]:
    """Return the spellings of the characters of ``folded``; ``inside`` is what is not to be written as one of them."""
    parts, at, several = list[str](), 0, _several()
    longest = max(map(len, several))
    while at < len(folded):
        ends = range(min(len(folded), at + longest), at + 1, -1)
        to = next((to for end in ends if (to := folded[at:end]) in several and to != inside), "")
        parts.append(f"(?:{_any_of(several[to])}|{''.join(_parts(to, to))})" if to else _one(folded[at]))
        at += len(to) or 1
    return parts


def _around(folded: str) -> list[str]:
    """Return an expression of the characters that stand for ``folded`` and more; nothing if there are none."""
    found = [character for to, some in _several().items() if folded in to != folded for character in some]
    return [_any_of(found)] if found else []


def _one(character: str) -> str:
    """Return the spellings of one character, the last mark of a composed one also taken apart."""
    composed = _any_of([character, *_folding_to().get(character, [])])
    apart = unicodedata.normalize("NFD", character)
    if len(apart) == 1:
        return composed
    before = "".join(map(_one, unicodedata.normalize("NFC", apart[:-1])))
    return f"(?:{composed}|{before}{_one(apart[-1])})"


def _any_of(characters: list[str]) -> str:
    return f"[{''.join(map(re.escape, characters))}]"


@functools.cache
def _several() -> dict[str, list[str]]:
    """Return the code points that fold to several characters, by these."""
    return {to: some for to, some in _folding_to().items() if len(to) > 1}


@functools.cache
def _folding_to() -> dict[str, list[str]]:
    """Return the code points that `normalize` and `fold` change, by what they make of them."""
    edges = [0, *(edge for block in UNCHANGED for edge in (block.start, block.stop))]
    codes = [chr(code) for pair in zip(edges[::2], edges[1::2], strict=False) for code in range(*pair)]
    # All at once, since a call for each would take a second. Up to the carriage return nothing is folded; the line
    # feed folds to itself and joins nothing.
    changed = fold(normalize("\n".join(codes[14:]), "none")).split("\n")
    found: dict[str, list[str]] = {}
    for code, to in zip(codes[14:], changed, strict=True):
        if to != code:
            found.setdefault(to, []).append(code)
    return found
