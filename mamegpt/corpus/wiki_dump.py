"""The articles of a MediaWiki dump (``jawiki-…-pages-articles.xml``), their markup taken off.

The XML is read by the standard library's expat, an element at a time; the markup is taken apart by mwparserfromhell.
mwxml, which does the first on top of the same library, would add nothing for dumps that hold one revision a page.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError, iterparse

from mamegpt.errors import ConfigError

__all__ = ["pages"]

UNSEEN_TAGS = frozenset({"gallery", "imagemap", "math", "ref", "references", "score", "style", "table", "timeline"})
MAX_LEVEL = 7  # headings have 1 to 6
UNSEEN_LINKS = ("file", "image", "category", "ファイル", "画像", "カテゴリ")


def pages(file: IO[bytes]) -> Iterator[tuple[str, str, str]]:
    """Yield ``(reason, title, text)`` for each page of a dump; of those with a reason to skip them nothing else.

    The reasons are ``redirect`` and ``other namespace`` than that of articles. In the text each paragraph and heading
    is a line; templates, tables, references, pictures and categories are gone, and so are sections with nothing left.
    Raises `ConfigError` without mwparserfromhell, and `xml.etree.ElementTree.ParseError` for damaged XML.
    """
    try:
        from mwparserfromhell import parse
    except ModuleNotFoundError as error:
        raise ConfigError("a dump needs mwparserfromhell; install it: pip install 'mamegpt[wiki]'") from error
    events = iterparse(file, ("start", "end"))
    _, root = next(events)
    for event, element in events:
        if event == "start" or _name(element) != "page":
            continue
        found = {_name(child): child for child in element.iter()}
        if "ns" in found and found["ns"].text != "0":
            yield "other namespace", "", ""
        elif "redirect" in found:
            yield "redirect", "", ""
        elif missing := {"ns", "title", "text"} - found.keys():
            raise ParseError(f"a page without {min(missing)}")
        else:
            yield "", found["title"].text or "", _lines(_plain(parse(found["text"].text or "")))
        root.clear()


def _name(element: Element) -> str:
    """The name of an element without its XML namespace, which changes with the version of the dump."""
    return element.tag.rpartition("}")[2]


def _plain(code: Any) -> str:
    """What a reader of the page sees. A heading ends in as many NUL, which no XML can hold, as its level says."""
    from mwparserfromhell import nodes

    seen = list[str]()
    for node in code.nodes:
        if isinstance(node, nodes.Text):
            seen.append(node.value)
        elif isinstance(node, nodes.Heading):
            seen.append("\n" + _plain(node.title).strip() + "\0" * node.level + "\n")
        elif isinstance(node, nodes.HTMLEntity):
            seen.append(node.normalize())
        elif isinstance(node, nodes.ExternalLink):
            seen.append(_plain(node.title) if node.title else "")
        elif isinstance(node, nodes.Wikilink):
            if not str(node.title).strip().lower().startswith(tuple(f"{name}:" for name in UNSEEN_LINKS)):
                seen.append(_plain(node.text or node.title).removeprefix(":"))
        elif isinstance(node, nodes.Tag) and (tag := str(node.tag).strip().lower()) not in UNSEEN_TAGS:
            seen.append("\n" if tag == "br" else _plain(node.contents) if node.contents else "")
    return "".join(seen)


def _lines(plain: str) -> str:
    """The lines that say something, without headings of sections that nothing is left of."""
    kept, below = list[str](), 0  # the level of what follows; text is below all headings
    for line in reversed(plain.split("\n")):
        level, line = line.count("\0"), line.strip("\0 \t")
        if line.strip("\u3000") and (not level or level < below):
            kept.append(line)
            below = level or MAX_LEVEL
    return "\n".join(reversed(kept))
