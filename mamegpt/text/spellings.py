"""All variants of a keyword as one regular expression, so that text can be searched without folding it.

ガンダム becomes ``(?:[ガ]|[カ㋕ｶ][゙ﾞ])[ンﾝ](?:[ダ]|[タ㋟ﾀ][゙ﾞ])[ム㋰ﾑ]``: each character is replaced by all code
points that `fold` maps to it, composed and decomposed, and by those that stand for several characters, such as ㈱ for
(株).
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
"""Code points that `fold` does not change (a test checks each): CJK ideographs, Hangul syllables, cuneiform,
hieroglyphs, Tangut and neighboring blocks, and unassigned code points."""

VOICING = "\u3099\u309a\uff9e\uff9f"
"""Combining and half-width voicing marks, which change the kana before them."""

ROW_PARTS = 8
"""Leading characters of a keyword by which rows are preselected: few rows match them and not the rest, and RE2's memory
is limited."""


def spellings(folded_keyword: str) -> re.Pattern[str]:
    """Return an expression that finds a keyword, as `fold` returns it, in text as `normalize` returns it.

    In ordinary text the hits are those of the keyword in the folded text, without overlaps. They differ in
    three cases:

    - A keyword that begins or ends inside one character that stands for several (``株)会`` in ㈱会, ``3キロ`` in 3㌖)
      is not found. If such a character contains the keyword twice (``.`` in ‥), it counts once.
    - If such characters could overlap in the keyword (``sst``: s and ﬆ besides ß and t), only the first is considered.
    - A mark in an unusual place (on a letter of another width or in a circle, as ｅ with a combining acute) is missed.
    """
    last = folded_keyword[-1:]
    joining = "".join(mark for mark in VOICING if len(fold(last + mark)) == 1)
    found = "|".join(["".join(_parts(folded_keyword)), *_around(folded_keyword)])
    return re.compile(f"(?:{found})(?![{joining}])" if joining else found)


def row_expression(folded_keyword: str) -> str:
    """Return an expression that RE2 finds in every text in which, once normalized, `spellings` finds a keyword.

    Other texts may match too: those with a NUL, which `normalize` removes, or with the beginning of a long keyword.
    """
    return "|".join(["".join(_parts(folded_keyword)[:ROW_PARTS]), *_around(folded_keyword), r"\x00"])


def _parts(folded: str, inside: str = "") -> list[str]:
    """Return the variants of the characters of ``folded``, except that all of ``inside`` is not one character."""
    parts, at, several = list[str](), 0, _several()
    longest = max(map(len, several))
    while at < len(folded):
        ends = range(min(len(folded), at + longest), at + 1, -1)
        to = next((to for end in ends if (to := folded[at:end]) in several and to != inside), "")
        parts.append(f"(?:{_any_of(several[to])}|{''.join(_parts(to, to))})" if to else _one(folded[at]))
        at += len(to) or 1
    return parts


def _around(folded: str) -> list[str]:
    """Return an expression of the characters that stand for ``folded`` and more; empty if there are none."""
    found = [character for to, some in _several().items() if folded in to != folded for character in some]
    return [_any_of(found)] if found else []


def _one(character: str) -> str:
    """Return the variants of one character; the last mark of a composed one is also decomposed."""
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
    """Return the code points that fold to several characters, keyed by these characters."""
    return {to: some for to, some in _folding_to().items() if len(to) > 1}


@functools.cache
def _folding_to() -> dict[str, list[str]]:
    """Return the code points that `normalize` and `fold` change, keyed by their result."""
    edges = [0, *(edge for block in UNCHANGED for edge in (block.start, block.stop))]
    codes = [chr(code) for pair in zip(edges[::2], edges[1::2], strict=False) for code in range(*pair)]
    # All in one call, since one call for each would take a second. Code points up to CR are not folded; the line
    # feed folds to itself and joins nothing.
    changed = fold(normalize("\n".join(codes[14:]), "none")).split("\n")
    found: dict[str, list[str]] = {}
    for code, to in zip(codes[14:], changed, strict=True):
        if to != code:
            found.setdefault(to, []).append(code)
    return found
