"""Text without differences of width and case, for comparing."""

from __future__ import annotations

import unicodedata

__all__ = ["fold", "matches"]


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
