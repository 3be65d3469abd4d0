"""Pure functions on strings: cleaning, keyword match, Wiki-40B markers, the article format, JSON."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = [
    "UNTITLED",
    "fold",
    "format_article",
    "is_heading",
    "matches",
    "normalise",
    "parse_articles",
    "parse_json",
    "parse_wiki40b",
]

UNTITLED = "無題"  # what Japanese calls a work without a title

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_MARKER = re.compile("_(?:NEWLINE|START_(?:SECTION|PARAGRAPH|(ARTICLE)))_")


def normalise(text: str, form: str = "nfc") -> str:
    """Return ``text`` in the one spelling that is trained on; a second call changes nothing.

    ``form`` is the Unicode normalisation (Unicode Standard Annex 15): ``"nfc"`` joins accents that are
    written apart (か + U+3099 -> が), ``"nfkc"`` also unifies widths (ﾌｧﾐｺﾝ -> ファミコン, Ａ -> A, ～ -> ~),
    ``"none"`` does neither. In every form CRLF and lone CR become LF, NUL is dropped, lone surrogates, which
    no UTF-8 file can hold, become U+FFFD, and ▁ (U+2581), which SentencePiece writes for the space, becomes
    ``_``. Raises `ValueError` for another form.
    """
    if form not in ("nfc", "nfkc", "none"):
        raise ValueError(f"unknown normalisation form {form!r}; use 'nfc', 'nfkc' or 'none'")
    text = text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n").replace("\u2581", "_")
    try:
        text.encode("utf-16-le")  # a faster way to look than the expression
    except UnicodeEncodeError:
        text = _LONE_SURROGATE.sub("\ufffd", text)
    if form == "nfc":
        return unicodedata.normalize("NFC", text)
    return unicodedata.normalize("NFKC", text) if form == "nfkc" else text


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


def parse_wiki40b(raw: str) -> tuple[str, str]:
    """Split a row of Wiki-40B into ``(title, text)``; a row without markers is ``("", raw)``.

    The markers (Guo et al., "Wiki-40B: Multilingual Language Model Dataset", LREC 2020) may stand between
    line feeds or not. In the text each section heading and each paragraph begins a line of its own; there is
    no blank line, no marker and no title.
    """
    parts = _MARKER.split(raw)
    if len(parts) == 1:
        return "", raw
    title, pieces = "", parts[::2]
    for number, marker in enumerate(parts[1::2], 1):
        if marker and not title:
            title, _, pieces[number] = pieces[number].strip("\n").partition("\n")
            title = title.strip()
    return title, "\n".join(filter(str.strip, "\n".join(pieces).split("\n")))


def parse_json(text: str | bytes) -> Any:
    """The value of JSON text. Raises `ValueError` for all that is none, also for text nested too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def is_heading(line: str) -> bool:
    """Say whether a line (without its line feed) is a title in brackets: ``【title】``."""
    return len(line) >= 2 and line[0] == "【" and line[-1] == "】"


def format_article(title: str, text: str) -> str:
    """Return ``【title】``, a line feed, ``text`` and a blank line; `parse_articles` is the inverse.

    A document without a title is headed ``【無題】``: a heading must stand there to mark where a document
    begins, an empty one would teach a model to write empty titles, and one made of the text's first words
    would teach it to repeat itself. Line breaks inside a title become spaces.
    """
    return f"【{' '.join(title.splitlines()) or UNTITLED}】\n{text}\n\n"


def parse_articles(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield ``(title, text)`` for each article that `format_article` wrote; holds one article at a time.

    ``lines`` may end in line feeds or not. A line that is wholly ``【…】``, first or after an empty line,
    begins an article; ``【無題】`` and ``【】`` mean no title; lines before the first heading are an article
    without one.

    For a title with no line break and other than 無題, and a text that neither begins nor ends with a line
    feed, holds no CR, and has no ``【…】`` line after an empty line, the round trip gives both back exactly.
    What `parse_wiki40b` returns is such a text (but for the CR), since it has no empty lines.
    """
    title, body, after_blank = "", list[str](), True
    heading_seen = False
    for line in lines:
        line = line.rstrip("\r\n")
        if after_blank and is_heading(line):
            if heading_seen or any(body):
                yield title, "\n".join(body).strip("\n")
            title, body, heading_seen = line[1:-1], [], True
            title = "" if title == UNTITLED else title
        else:
            body.append(line)
        after_blank = not line
    if heading_seen or any(body):
        yield title, "\n".join(body).strip("\n")
