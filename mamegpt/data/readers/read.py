"""Read a file in any known format as batches of records (title, text)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import ParseError

from mamegpt.data.readers.delimited import DELIMITERS, read_delimited, table_columns, table_names
from mamegpt.data.readers.jsonl import json_columns, read_jsonl
from mamegpt.data.readers.lines import COMPRESSIONS, DAMAGED, lines, open_file
from mamegpt.data.readers.mediawiki import MAX_PAGE_BYTES, pages
from mamegpt.data.readers.parquet import open_parquet, parquet_columns, read_parquet
from mamegpt.data.readers.records import Batch, text_and_title
from mamegpt.data.schema import Schema
from mamegpt.errors import DataError, first_line
from mamegpt.text.articles import is_heading, parse_articles

__all__ = ["INPUT_FORMATS", "Layout", "describe", "format_of", "has_text", "read_file"]

PLAIN_TEXT_CHARACTERS = 10_000  # least length of the documents that plain text is cut into
BATCH_RECORDS = 100
BATCH_CHARACTERS = 200_000
NO_TEXT = "no text column"
"""The reason to drop a record that lacks the text column of its file."""


def format_of(path: Path) -> str:
    """Return the format of a file, one of `INPUT_FORMATS`, without its compression (`COMPRESSIONS`); else its
    suffix.
    """
    suffix = path.suffix.lower()
    inner = Path(path.stem).suffix.lower()
    return inner if suffix in COMPRESSIONS and inner in INPUT_FORMATS[1:] else suffix


def read_file(path: Path, schema: Schema, expressions: Sequence[Sequence[str]] = ()) -> Iterator[Batch]:
    """Yield the records of one file, including empty ones.

    With ``expressions`` (RE2 syntax), a reader may leave out records in which an expression of some list matches
    neither title nor text. Raises `DataError`, naming the place, for a file that cannot be read or does not fit
    ``schema``.
    """
    if format_of(path) == ".parquet":
        yield from read_parquet(path, schema, expressions)
        return
    if format_of(path) == ".xml":
        yield from _read_dump(path, schema.encoding)
        return
    records, n_characters = list[tuple[int, str, str]](), 0
    n_dropped = 0
    for number, record in enumerate(READERS[format_of(path)](path, schema)):
        if record is None:
            n_dropped += 1
            continue
        records.append((number, *record))
        n_characters += len(record[1])
        if len(records) == BATCH_RECORDS or n_characters > BATCH_CHARACTERS:
            yield Batch(len(records) + n_dropped, records, {NO_TEXT: n_dropped} if n_dropped else {})
            records, n_characters, n_dropped = [], 0, 0
    yield Batch(len(records) + n_dropped, records, {NO_TEXT: n_dropped} if n_dropped else {})


def has_text(path: Path, schema: Schema) -> bool:
    """Return whether a file may contain text.

    A parquet, csv or tsv file does not if none of its columns, or several, can be the text.
    """
    if format_of(path) in DELIMITERS:
        names = table_names(path, schema)
        try:
            return bool(names[0] and text_and_title(*names, schema, str(path)))
        except DataError:
            return False
    if format_of(path) != ".parquet":
        return True
    with open_parquet(path) as file:
        try:
            return bool(parquet_columns(file.schema_arrow, schema, path))
        except DataError:
            return False


@dataclass(frozen=True)
class Layout:
    """Where a file has its text and title.

    ``kind`` is "column" (parquet, csv or tsv) or "key" (jsonl), with the names in ``text`` and ``title`` ("" without
    one); for txt it is "article" (headed 【title】), "plain" (cut at line ends) or a `Schema.txt_layout`; "page" for a
    dump; "none" if there is nothing to read.
    """

    kind: Literal["column", "key", "article", "plain", "file", "line", "block", "page", "none"]
    text: str = ""
    title: str = ""


def describe(path: Path, schema: Schema) -> Layout:
    """Return the layout of a file."""
    if format_of(path) == ".parquet":
        with open_parquet(path) as file:
            if file.metadata.num_rows:
                return Layout("column", *parquet_columns(file.schema_arrow, schema, path))
    if format_of(path) in DELIMITERS and (found := table_columns(path, schema)):
        return Layout("column", *found)
    if format_of(path) == ".jsonl" and (found := json_columns(path, schema)):
        return Layout("key", *found)
    if format_of(path) == ".txt":
        if schema.txt_layout != "auto":
            return Layout(schema.txt_layout)
        first = next((line for line in lines(path, schema.encoding) if line.strip()), "")
        return Layout("article" if is_heading(first) else "plain")
    return Layout("page" if format_of(path) == ".xml" else "none")


# txt


def _read_txt(path: Path, schema: Schema) -> Iterator[tuple[str, str]]:
    """Yield the documents of a text file, split according to ``schema.txt_layout``."""
    all_lines = lines(path, schema.encoding)
    if schema.txt_layout == "file":
        return iter([("", "\n".join(all_lines))])
    if schema.txt_layout == "line":
        return (("", line) for line in all_lines if line.strip())
    if schema.txt_layout == "block":
        blocks = itertools.groupby(all_lines, lambda line: bool(line.strip()))
        return (("", "\n".join(block)) for is_text, block in blocks if is_text)
    all_lines = itertools.dropwhile(lambda line: not line.strip(), all_lines)
    first = next(all_lines, "")
    read = parse_articles if is_heading(first) else _pieces
    return read(itertools.chain([first], all_lines))


def _pieces(all_lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Cut plain text at line ends into pieces of at least PLAIN_TEXT_CHARACTERS; the last piece may be shorter."""
    piece, length = list[str](), 0
    for line in all_lines:
        piece.append(line)
        length += len(line) + 1
        if length > PLAIN_TEXT_CHARACTERS:  # at least that many without the last line feed
            yield "", "\n".join(piece)
            piece, length = [], 0
    yield "", "\n".join(piece)


# xml


def _read_dump(path: Path, encoding: str) -> Iterator[Batch]:
    """Yield the pages of a dump, one per batch, since parsing the markup of a page takes a while."""
    try:
        with open_file(path) as file:
            for number, (reason, title, text, n_holes) in enumerate(pages(file, encoding)):
                yield Batch(1, [], {reason: 1}) if reason else Batch(1, [(number, title, text)], n_holes=n_holes)
    except ParseError as error:
        raise DataError(
            "{path} is not a whole dump of a MediaWiki ({reason}); fetch it again", path=path, reason=error
        ) from error
    except (LookupError, UnicodeError) as error:
        raise DataError(
            "{path} is in an encoding that cannot be read ({reason}); make it UTF-8",
            path=path,
            reason=first_line(error),
        ) from error
    except OverflowError as error:
        raise DataError(
            "{path}: a page is larger than {most} MiB; give a dump with one revision a page (pages-articles)",
            path=path,
            most=MAX_PAGE_BYTES >> 20,
        ) from error
    except (*DAMAGED, OSError) as error:
        raise DataError(
            "{path} is damaged or cut off ({reason}); fetch it again", path=path, reason=first_line(error)
        ) from error


READERS: dict[str, Callable[[Path, Schema], Iterator[tuple[str, str] | None]]] = {
    ".jsonl": read_jsonl,
    ".txt": _read_txt,
    **dict.fromkeys(DELIMITERS, read_delimited),
}
INPUT_FORMATS = (".parquet", *READERS, ".xml")
