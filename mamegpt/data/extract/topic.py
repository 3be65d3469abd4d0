"""What a topic is: words to look for and to avoid, how often and where; and the judgement of one document."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from itertools import accumulate
from operator import add
from typing import Annotated, Literal

from mamegpt.arguments import AtLeast, checked
from mamegpt.data.readers.prefilter import needles
from mamegpt.errors import ConfigError
from mamegpt.system.files import shown
from mamegpt.text.folding import FoldedText, fold, fold_fast

__all__ = ["Judgment", "Topic"]

CONTEXT_CHARACTERS = 24


@dataclass(frozen=True, slots=True)
class Judgment:
    """``reason`` is "" if the document is kept; then ``hits`` are counted by pattern, and ``text`` is what to keep.

    ``key`` is equal for texts that differ in width, case and white space only (`FoldedText.key`).
    """

    reason: str
    hits: tuple[int, ...] = ()
    text: str = ""
    key: int = 0


@checked
@dataclass(frozen=True)
class Topic:
    """Which documents are wanted. The patterns are the keywords, then the regular expressions.

    Keywords and ``exclude`` are compared without regard to width and case (`fold`). A ``regex`` sees title
    and text as they will be written: normalised to NFC, neither width nor case changed; line feeds are there, and
    flags stand in the expression, as in ``(?i)wii``. ``match`` says whether any of the patterns or all of them must
    occur, ``min_hits`` how often they must, counted together, without overlaps. With ``title_only`` nothing but the
    title is looked at, for ``exclude`` too. With ``window`` only the paragraphs (lines) with a hit are kept, and that
    many before and after each; the whole document if its title has a hit.

    Raises `ConfigError` for what cannot be meant.
    """

    keywords: tuple[str, ...] = ()
    match: Literal["any", "all"] = "any"
    exclude: tuple[str, ...] = ()
    regex: tuple[str, ...] = ()
    title_only: bool = False
    min_hits: Annotated[int, AtLeast(1)] = 1
    window: int | None = None
    _keywords: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _exclude: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _regex: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.patterns:
            raise ConfigError("nothing to look for; give --keyword or --regex")
        for word in (*self.keywords, *self.exclude, *self.regex):
            if shown(word) != word:
                raise ConfigError(f"{word!r} is not UTF-8; type it in a terminal that writes UTF-8")
        if self.window is not None and (self.window < 0 or self.title_only):
            why = "has no use with --title-only" if self.title_only else f"must be at least 0, not {self.window}"
            raise ConfigError(f"--window {why}; leave it out to keep whole documents")
        object.__setattr__(self, "_keywords", tuple(_folded(word, "--keyword") for word in self.keywords))
        object.__setattr__(self, "_exclude", tuple(_folded(word, "--exclude") for word in self.exclude))
        object.__setattr__(self, "_regex", tuple(map(_compiled, self.regex)))

    def settings(self) -> dict[str, str]:
        """Return what was asked for, by the names of the fields; defaults are left out."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.init and getattr(self, f.name) != f.default}
        return {name: ", ".join(value) if isinstance(value, tuple) else str(value) for name, value in given.items()}

    @property
    def patterns(self) -> tuple[str, ...]:
        """What is looked for, in the order of `Judgment.hits`; regular expressions stand between slashes."""
        return (*self.keywords, *(f"/{regex}/" for regex in self.regex))

    def needles(self) -> list[list[bytes]]:
        """Return lists of needles for `prefilter`: a document of this topic has, in title or text, one of each list."""
        groups = [needles(keyword) for keyword in self._keywords]
        known = [group for group in groups if group is not None]
        if self.match == "all":
            return known
        return [sorted({needle for group in known for needle in group})] if len(known) == len(self.patterns) else []

    def judge(self, title: str, document: FoldedText) -> Judgment:
        """Say whether a document is of this topic, and what of it is to be kept; ``title`` is normalised."""
        text = document.text.strip("\n")
        folded_title = fold_fast(title)
        in_title = [folded_title.count(keyword) for keyword in self._keywords] + self._expressions(title)
        hits = tuple(in_title)
        if not self.title_only:
            in_text = [document.count(keyword) for keyword in self._keywords] + self._expressions(text)
            hits = tuple(map(add, in_title, in_text))
        if not (any if self.match == "any" else all)(hits):
            return Judgment("no keyword")
        if sum(hits) < self.min_hits:
            return Judgment("too few hits")
        if any(word in folded_title or (not self.title_only and document.count(word)) for word in self._exclude):
            return Judgment("excluded")
        if not text.strip():
            return Judgment("empty")
        if self.window is not None and not any(in_title):
            document = FoldedText(text := self._window(text))
        return Judgment("", hits, text, document.key())

    def contexts(self, title: str, text: str) -> Iterator[str]:
        """Yield each hit in a document, marked >>so<<, with what stands before and after it in its line."""
        for line in (title, *([] if self.title_only else text.split("\n"))):
            for start, end in self._spans(line):
                before, after = line[:start], line[end:]
                if len(before) > CONTEXT_CHARACTERS:
                    before = "…" + before[-CONTEXT_CHARACTERS:]
                if len(after) > CONTEXT_CHARACTERS:
                    after = after[:CONTEXT_CHARACTERS] + "…"
                yield f"{before}>>{line[start:end]}<<{after}"

    def _expressions(self, text: str) -> list[int]:
        """Return how often each regular expression is in a text."""
        return [sum(1 for _ in pattern.finditer(text)) for pattern in self._regex]

    def _window(self, text: str) -> str:
        """Return the lines with a hit and their neighbours.

        Folding leaves line feeds where they are, and makes none.
        """
        lines = text.split("\n")
        hit = {
            i
            for i, line in enumerate(fold_fast(text).split("\n"))
            if any(keyword in line for keyword in self._keywords)
        }
        starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
        for pattern in self._regex:
            for found in pattern.finditer(text):
                first = bisect_right(starts, found.start()) - 1
                hit.update(range(first, bisect_left(starts, found.end(), lo=first + 1)))
        near = {i for at in hit for i in range(at - (self.window or 0), at + (self.window or 0) + 1)}
        return "\n".join(line for i, line in enumerate(lines) if i in near).strip("\n")

    def _spans(self, line: str) -> list[tuple[int, int]]:
        """Return where the hits in a line begin and end, in order."""
        spans = {found.span() for pattern in self._regex for found in pattern.finditer(line)}
        for keyword in self._keywords:
            start = 0
            while keyword in fold_fast(line[start:]):
                begin, start = _span(line, keyword, start)
                spans.add((begin, start))
        return sorted(spans)


def _span(line: str, keyword: str, start: int) -> tuple[int, int]:
    """Find the first shortest piece of ``line[start:]`` whose folding contains the keyword: where it begins and ends.

    A binary search for each end. A longer piece contains what a shorter one does, so "contains the keyword" turns from
    false to true once as the end moves right, and from true to false once as the beginning does.
    """
    end = bisect_left(range(len(line)), True, lo=start, key=lambda j: keyword in fold(line[start:j]))
    begin = bisect_left(range(end), True, lo=start, key=lambda i: keyword not in fold(line[i:end])) - 1
    return begin, end


def _folded(word: str, option: str) -> str:
    folded = fold(word)
    if not folded.strip():
        raise ConfigError(f"{option} is empty, which every text contains; give a word to look for")
    if "\n" in folded:
        raise ConfigError(f"{option} {word!r} has a line feed; give a word, or look for lines with --regex")
    return folded


def _compiled(regex: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise ConfigError(f"--regex {regex!r} is no regular expression ({error}); see Python's re") from error
    if pattern.search(""):
        raise ConfigError(f"--regex {regex!r} finds nothing at all in an empty text, so it is in every text; narrow it")
    return pattern
