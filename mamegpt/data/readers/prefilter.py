"""Which rows of a text column may hold a keyword: never one too few, seldom many too many, at the speed of memory.

A keyword can be found in a row only if some stretch of it (its *anchor*) stands in the row's bytes as it is, up to the
case of ASCII letters, or if one of the `unusual` code points that share a part with the anchor does. For let the folded
row hold the anchor. If every code point of the row that this comes from is plain (or an ASCII letter), each has given
one character and nothing has come between them, so the row itself holds the anchor. Else one of them is unusual, and a
part of it is a part of the anchor. Both kinds of needle are looked for in the column's one buffer of UTF-8, all rows at
once, so that no row without any becomes a Python string.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mamegpt.text.folding import parts, unusual

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["needles", "rows_with_any"]

MAX_LETTERS = 3
"""ASCII letters in an anchor. Each doubles the needles."""

MARKERS = "start_article start_section start_paragraph newline"

EVERYDAY = (("\u2000", "\u203f"), ("\u3000", "\u30ff"), ("\uff00", "\uff7f"))
"""From and to: code points that most Japanese texts have some of, in punctuation, kana and full-width forms."""


def needles(folded_keyword: str) -> list[bytes] | None:
    """Byte strings of which at least one is in the UTF-8 of each text with the keyword; None if there are none such.

    ``folded_keyword`` is as `mamegpt.text.folding.fold` returns it.
    """
    anchor = _anchor(folded_keyword)
    if not anchor:
        return None
    cases = itertools.product(
        *({character, character.upper()} if character.isascii() else {character} for character in anchor)
    )
    pieces = parts(anchor)
    others = {_prefix(c) for c, has in unusual().items() if c == "\0" or not pieces.isdisjoint(has)}
    return sorted({"".join(case).encode() for case in cases} | others)


def rows_with_any(column: Any, wanted: Sequence[bytes]) -> npt.NDArray[np.bool_]:
    """Return whether each row of an Arrow string column contains any of these byte strings, (rows,).

    A match that runs over a row's end says nothing: neither about that row nor about what another needle found in it.
    """
    import numpy as np
    import pyarrow
    from stringzilla import Str

    array = column if pyarrow.types.is_large_string(column.type) else column.cast(pyarrow.large_string())
    _, offsets_buffer, data = array.buffers()
    if data is None:
        return np.zeros(len(array), bool)
    offsets = np.frombuffer(offsets_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    ends, text = offsets[1:], Str(memoryview(data))
    found = np.zeros(len(array), bool)
    for needle in wanted:
        position = text.find(needle, int(offsets[0]), int(offsets[-1]))
        while position >= 0:
            row = int(np.searchsorted(ends, position, "right"))
            found[row] |= position + len(needle) <= ends[row]
            position = text.find(needle, int(ends[row]), int(offsets[-1]))
    return found


def _anchor(folded: str) -> str:
    """Return the longest stretch of plain characters, not white space or _, with few ASCII letters ("" for none).

    A stretch that is part of a Wiki-40B marker is the last choice, since it would be found in every row.
    """
    best, start = "", 0
    for end, character in enumerate(folded, 1):
        if character in unusual() or character in "_\ufffd" or character.isspace():
            start = end
        while sum(c.isascii() and c.isalpha() for c in folded[start:end]) > MAX_LETTERS:
            start += 1
        best = max(best, folded[start:end], key=lambda stretch: (stretch not in MARKERS, len(stretch)))
    return best


def _prefix(character: str) -> bytes:
    """Return the bytes to look for in place of a code point: all if others that begin alike are common, else one."""
    code = character.encode()
    if any(first <= character <= last for first, last in EVERYDAY):
        return code
    return code[: 2 if len(code) == 3 and code[0] > 0xE1 else 1]
