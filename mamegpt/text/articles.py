"""The article format, a line ``【title】`` followed by the text; and the markers of Wiki-40B."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["UNTITLED", "format_article", "is_heading", "one_line", "parse_articles", "parse_wiki40b"]

UNTITLED = "無題"  # Japanese for "untitled"

GUARD = "\u2581"
"""The escape before a line of an article, or a title, that would be misread (`format_article`)."""
_MAY_NEED_GUARD = ("【", "\r", "\ufeff", GUARD)  # one regular expression for all is far slower

_LINE_END = re.compile("\r\n?|\n")
_MARKER = re.compile("_(?:NEWLINE|START_(?:SECTION|PARAGRAPH|(ARTICLE)))_")


def parse_wiki40b(raw: str) -> tuple[str, str]:
    """Split a row of Wiki-40B into ``(title, text)``; a row without markers is ``("", raw)``.

    The markers (Guo et al., "Wiki-40B: Multilingual Language Model Dataset", LREC 2020) may be surrounded by line
    feeds. In the text, each section heading and each paragraph is a line; there are no blank lines, no markers and no
    title.
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


def is_heading(line: str) -> bool:
    """Return whether a line (without its line feed) is a title in brackets: ``【title】``."""
    return len(line) >= 2 and line[0] == "【" and line[-1] == "】"


def one_line(title: str) -> str:
    """Return a title with spaces in place of line ends (LF, CR LF and CR)."""
    return _LINE_END.sub(" ", title.strip("\r\n"))


def format_article(title: str, text: str) -> str:
    """Return ``【title】``, a line feed, ``text`` and a blank line; `parse_articles` restores both.

    A document without a title is headed ``【無題】``. A heading is necessary to mark its beginning; an empty one would
    teach a model to generate empty titles, and one made of the first words of the text would teach it to repeat itself.
    Line ends in a title become spaces (`one_line`).

    Lines that would be misread are preceded by ▁ (U+2581), which `normalize` removes from all text: a line ``【…】``
    after an empty line, a line that begins with U+FEFF, an empty first or last line, the title 無題; and any of these
    that already begins with ▁.
    """
    title = one_line(title)
    if title.lstrip(GUARD) == UNTITLED:
        title = GUARD + title
    return f"【{title or UNTITLED}】\n{_guarded(text)}\n\n"


def _guarded(text: str) -> str:
    """Put `GUARD` before the lines that `parse_articles` would misread."""
    if not (text.startswith("\n") or text.endswith("\n") or any(sign in text for sign in _MAY_NEED_GUARD)):
        return text
    lines = _LINE_END.split(text)
    ends, before = (0, len(lines) - 1), UNTITLED
    for i, line in enumerate(lines):
        bare = line.lstrip(GUARD)
        if (not bare and i in ends) or bare.startswith("\ufeff") or (not before and is_heading(bare)):
            lines[i] = GUARD + line
        before = lines[i]
    return "\n".join(lines)


def parse_articles(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield ``(title, text)`` for each article that `format_article` wrote; one article at a time is in memory.

    ``lines`` may end with line feeds or not. A line ``【…】``, as the first line or after an empty one, begins an
    article; ``【無題】`` and ``【】`` mean no title; lines before the first heading are an article without a title.
    Empty lines at both ends of a text are removed, and so is a ▁ that `format_article` put before a line or a title.

    Any title of one line and any text with LF line ends are restored exactly.
    """
    title, body, after_blank = "", list[str](), True
    heading_seen = False
    for line in lines:
        line = line.rstrip("\r\n")
        if after_blank and is_heading(line):
            if heading_seen or any(body):
                yield title, _unguarded(body)
            title, body, heading_seen = line[1:-1], [], True
            title = "" if title == UNTITLED else _without_guard(title, title.lstrip(GUARD) == UNTITLED)
        elif line[:1] == GUARD:
            bare = line.lstrip(GUARD)
            body.append(_without_guard(line, bare[:1] == "\ufeff" or (after_blank and is_heading(bare))))
        else:
            body.append(line)
        after_blank = not line
    if heading_seen or any(body):
        yield title, _unguarded(body)


def _without_guard(text: str, is_guarded: bool) -> str:
    """Remove the `GUARD` from a title or a line that has one."""
    return text.removeprefix(GUARD) if is_guarded else text


def _unguarded(body: list[str]) -> str:
    """Join the lines of a text, without empty lines at its ends, and without the `GUARD` of escaped ones."""
    text = "\n".join(body).strip("\n")
    if text[:1] != GUARD and text[-1:] != GUARD:
        return text
    lines = text.split("\n")
    for i in {0, len(lines) - 1}:
        lines[i] = _without_guard(lines[i], not lines[i].strip(GUARD))
    return "\n".join(lines)
