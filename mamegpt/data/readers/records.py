"""Records (title, text), and the choice of the columns that contain them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mamegpt.data.schema import Schema
from mamegpt.errors import DataError
from mamegpt.text.articles import parse_wiki40b

__all__ = ["Batch", "make_record", "text_and_title"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some records of a file in order, each ``(number in the file, title, text)``; ``n_read`` counts all records read.

    ``dropped`` counts the records without a document, by reason; ``n_holes`` the sentences with a missing part.
    """

    n_read: int
    records: list[tuple[int, str, str]]
    dropped: dict[str, int] = field(default_factory=dict)
    n_holes: int = 0


def make_record(title: str | None, text: str | None) -> tuple[str, str]:
    """Return a row as (title, text). A null is empty; a title column takes precedence over Wiki-40B's title marker."""
    wiki_title, text = parse_wiki40b(text or "")
    return title or wiki_title, text


def text_and_title(names: Sequence[str], strings: Sequence[str], schema: Schema, where: str) -> tuple[str, str]:
    """Return the names of the columns of text and title: those in ``schema``; else ``title``, and ``text`` or the only
    other column that contains strings.
    """
    for name, option in ((schema.text_column, "--text-column"), (schema.title_column, "--title-column")):
        if name and name not in strings:
            raise DataError(
                "{where}: no {name!r} ({option}) that holds strings; there are {names}",
                where=where,
                name=name,
                option=option,
                names=list(strings),
            )
    title = schema.title_column or "title"
    text = schema.text_column or ("text" if "text" in names else None)
    if text is None:
        others = [name for name in strings if name != title]
        if not others:
            raise DataError(
                "{where}: none of {names} contains strings, so there is no text; give another file",
                where=where,
                names=list(names),
            )
        if len(others) != 1:
            raise DataError(
                "{where}: cannot tell which of {others} is the text; rename it to 'text' or use --text-column",
                where=where,
                others=others,
            )
        text = others[0]
    elif text not in strings:
        raise DataError("{where}: {text!r} does not hold a string; make it one", where=where, text=text)
    return text, title
