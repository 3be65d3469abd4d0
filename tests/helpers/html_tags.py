"""A page's tags and texts, and that they are closed in order."""

from __future__ import annotations

from html.parser import HTMLParser

__all__ = ["Tags"]

VOID = {"meta", "input", "link", "br", "img"}


class Tags(HTMLParser):
    """Holds every tag against the one that closes it, and gathers attributes and text: of one language, if asked."""

    def __init__(self, text: str, without: str = "") -> None:
        super().__init__()
        self.hidden = 0
        self.without = without
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.names: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
            if self.hidden or (("lang", self.without) in attrs and tag != "html"):
                self.hidden += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.hidden -= self.hidden > 0

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.texts.append(data)
