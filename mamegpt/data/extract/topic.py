"""Topics: keywords to search for or to exclude, with conditions; and the decision on one document."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from itertools import accumulate
from operator import add
from typing import Annotated, Literal

from mamegpt.arguments import AtLeast, checked
from mamegpt.errors import ConfigError
from mamegpt.system.files import shown
from mamegpt.text.folding import fold
from mamegpt.text.spellings import row_expression, spellings

__all__ = ["Judgment", "Topic"]

CONTEXT_CHARACTERS = 24
EXPRESSIONS_TOGETHER = 25
"""Most keywords in one expression; with 100 in Latin letters RE2 would run out of memory and get very slow."""


@dataclass(frozen=True, slots=True)
class Judgment:
    """Decision on a document. If it is kept, ``reason`` is "", ``hits`` are counted by pattern, and ``text`` is the
    text to keep.
    """

    reason: str
    hits: tuple[int, ...] = ()
    text: str = ""


@checked
@dataclass(frozen=True)
class Topic:
    """The conditions for a document. Its patterns are the keywords, followed by the regular expressions.

    Keywords and ``exclude`` match in every width and case (`spellings`). A ``regex`` is matched against title and text
    as they will be written: normalized to NFC, with width, case and line feeds unchanged; flags are part of the
    expression, as in ``(?i)wii``. ``match`` determines whether any pattern or all of them must occur, ``min_hits`` how
    often they must occur together, without overlaps. With ``title_only`` only the title is searched, for ``exclude``
    too. With ``window`` only the paragraphs (lines) with a hit are kept, with that many before and after each; the
    whole document is kept if its title has a hit.

    Raises `ConfigError` for impossible conditions.
    """

    keywords: tuple[str, ...] = ()
    match: Literal["any", "all"] = "any"
    exclude: tuple[str, ...] = ()
    regex: tuple[str, ...] = ()
    title_only: bool = False
    min_hits: Annotated[int, AtLeast(1)] = 1
    window: int | None = None
    _wanted: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)
    _unwanted: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.patterns:
            raise ConfigError("nothing to look for; give --keyword or --regex")
        for word in (*self.keywords, *self.exclude, *self.regex):
            if shown(word) != word:
                raise ConfigError("{word!r} is not UTF-8; type it in a terminal that writes UTF-8", word=word)
        if self.window is not None and (self.window < 0 or self.title_only):
            if self.title_only:
                raise ConfigError("--window does nothing with --title-only; leave one of them out")
            raise ConfigError("--window must be at least 0 (got {window})", window=self.window)
        keywords = [spellings(_folded(word, "--keyword")) for word in self.keywords]
        object.__setattr__(self, "_wanted", (*keywords, *map(_compiled, self.regex)))
        object.__setattr__(self, "_unwanted", tuple(spellings(_folded(word, "--exclude")) for word in self.exclude))

    def settings(self) -> dict[str, str]:
        """Return the conditions by field name, without those that have their default value."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.init and getattr(self, f.name) != f.default}
        return {name: ", ".join(value) if isinstance(value, tuple) else str(value) for name, value in given.items()}

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns in the order of `Judgment.hits`; regular expressions are written between slashes."""
        return (*self.keywords, *(f"/{regex}/" for regex in self.regex))

    def row_expressions(self) -> list[list[str]]:
        """Return lists of expressions for `read_file`: a wanted document has a match of one of each list in title or
        text.
        """
        each = [row_expression(fold(word)) for word in self.keywords]
        if self.match == "all":
            return [[one] for one in each]
        n = EXPRESSIONS_TOGETHER
        return [] if self.regex else [["|".join(each[i : i + n]) for i in range(0, len(each), n)]]

    def judge(self, title: str, text: str) -> Judgment:
        """Return whether a document matches, and which part of it to keep; title and text must be normalized."""
        text = text.strip("\n")
        hits = in_title = _counts(self._wanted, title)
        if not self.title_only:
            hits = tuple(map(add, in_title, _counts(self._wanted, text)))
        if not (any if self.match == "any" else all)(hits):
            return Judgment("no keyword")
        if sum(hits) < self.min_hits:
            return Judgment("too few hits")
        if any(word.search(title) or (not self.title_only and word.search(text)) for word in self._unwanted):
            return Judgment("excluded")
        if not text.strip():
            return Judgment("empty")
        if self.window is not None and not any(in_title):
            text = self._window(text, self.window)
        return Judgment("", hits, text)

    def contexts(self, title: str, text: str) -> Iterator[str]:
        """Yield each hit in a document, marked >>so<<, with the text around it in its line."""
        for line in (title, *([] if self.title_only else text.split("\n"))):
            for start, end in self._spans(line):
                before, after = line[:start], line[end:]
                if len(before) > CONTEXT_CHARACTERS:
                    before = "…" + before[-CONTEXT_CHARACTERS:]
                if len(after) > CONTEXT_CHARACTERS:
                    after = after[:CONTEXT_CHARACTERS] + "…"
                yield f"{before}>>{line[start:end]}<<{after}"

    def _window(self, text: str, n_around: int) -> str:
        """Return the lines with a hit, and ``n_around`` before and after each."""
        lines, near = text.split("\n"), set[int]()
        starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
        for pattern in self._wanted:
            for found in pattern.finditer(text):
                first = bisect_right(starts, found.start()) - 1
                near.update(range(first - n_around, bisect_left(starts, found.end(), lo=first + 1) + n_around))
        return "\n".join(line for i, line in enumerate(lines) if i in near).strip("\n")

    def _spans(self, line: str) -> list[tuple[int, int]]:
        """Return where the hits in a line begin and end, in order."""
        return sorted({found.span() for pattern in self._wanted for found in pattern.finditer(line)})


def _counts(patterns: Iterable[re.Pattern[str]], text: str) -> tuple[int, ...]:
    """Return how often each pattern is in a text."""
    return tuple(len(pattern.findall(text)) for pattern in patterns)


def _folded(word: str, option: str) -> str:
    folded = fold(word)
    if not folded.strip():
        raise ConfigError("{option} is empty, and every text contains it; give a keyword", option=option)
    if "\n" in folded:
        raise ConfigError(
            "{option} {word!r} contains a line feed; give a keyword, or search for lines with --regex",
            option=option,
            word=word,
        )
    return folded


def _compiled(regex: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise ConfigError(
            "--regex {regex!r} is not a valid regular expression ({reason}); see Python's re", regex=regex, reason=error
        ) from error
    if pattern.search(""):
        raise ConfigError(
            "--regex {regex!r} matches an empty text, so it matches every text; make it stricter", regex=regex
        )
    return pattern
