"""Text without differences of width and case, for comparisons."""

from __future__ import annotations

import unicodedata

__all__ = ["fold", "matches"]


def fold(text: str) -> str:
    """Return ``text`` without differences of width and case, for comparisons only.

    Examples: ﾌｧﾐｺﾝ -> ファミコン, Ｗｉｉ -> wii. This is NFKC, case folding, and NFKC again, because case folding can
    decompose letters (Unicode Standard, section 3.13, default caseless matching).
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def matches(text: str, folded_keyword: str) -> bool:
    """Return whether the folded ``text`` contains a keyword that is already folded."""
    return folded_keyword in fold(text)
