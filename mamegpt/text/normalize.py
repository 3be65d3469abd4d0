"""Normalization of text to the form that models are trained on."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["REPLACED", "normalize"]

REPLACED = (("\0", ""), ("\r\n", "\n"), ("\r", "\n"), ("\u2581", "_"))
"""The replacements of `normalize` in every form, in this order."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def normalize(text: str, form: str = "nfc") -> str:
    """Return ``text`` in the form that models are trained on; a second call changes nothing.

    ``form`` is the Unicode normalization form (Unicode Standard Annex 15): ``"nfc"`` composes characters (か + U+3099
    -> が), ``"nfkc"`` also unifies widths (ﾌｧﾐｺﾝ -> ファミコン, Ａ -> A, ～ -> ~), ``"none"`` does neither. In every
    form CRLF and lone CR become LF; NUL is removed; lone surrogates, which UTF-8 cannot represent, become U+FFFD; and ▁
    (U+2581), which SentencePiece uses for the space, becomes ``_``. Raises `ValueError` for another form.
    """
    if form not in ("nfc", "nfkc", "none"):
        raise ValueError(f"unknown normalisation form {form!r}; use 'nfc', 'nfkc' or 'none'")
    for old, new in REPLACED:
        text = text.replace(old, new)
    try:
        text.encode("utf-16-le")  # a faster test for surrogates than the expression
    except UnicodeEncodeError:
        text = _LONE_SURROGATE.sub("\ufffd", text)
    if form == "nfc":
        return unicodedata.normalize("NFC", text)
    return unicodedata.normalize("NFKC", text) if form == "nfkc" else text
