"""The rows of a csv or tsv file as records."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from mamegpt.data.readers.lines import MAX_LINE_CHARACTERS, lines
from mamegpt.data.readers.records import make_record, text_and_title
from mamegpt.data.schema import Schema
from mamegpt.errors import DataError, first_line

__all__ = ["DELIMITERS", "read_delimited", "table_columns", "table_names"]

DELIMITERS = {".csv": ",", ".tsv": "\t"}
MAX_FIELDS = 1 << 20
"""Most fields in a line; a line of delimiters alone would take 8 bytes of memory for each."""
SAMPLE_ROWS = 100
"""Rows at the beginning of a file from which its columns are chosen."""


def read_delimited(path: Path, schema: Schema) -> Iterator[tuple[str, str]]:
    """Yield the records of a csv or tsv file, whose first row names the columns.

    A field that begins with ``"`` ends at the next single ``"``. It may contain delimiters and line feeds, and ``"`` as
    ``""`` (RFC 4180, in tsv too). Raises `DataError`, naming the line where the row begins, for a row that is quoted
    otherwise, or has more or fewer fields than there are columns.
    """
    columns = table_columns(path, schema)
    if columns is None:
        return
    rows = _rows(path, schema.encoding)
    _, names = next(rows)
    text, title = names.index(columns[0]), names.index(columns[1]) if columns[1] else None
    for _, row in rows:
        yield make_record("" if title is None else row[title], row[text])


def table_columns(path: Path, schema: Schema) -> tuple[str, str] | None:
    """Choose the columns of text and title ("" without one) from a file's first rows; None if it has no row."""
    names, strings = table_names(path, schema)
    if not names:
        return None
    text, title = text_and_title(names, strings, schema, str(path))
    for name in (text, title):
        if names.count(name) > 1:
            raise DataError(
                "{path}: {n} columns are called {name!r}; rename all but one", path=path, n=names.count(name), name=name
            )
    return text, title if title in names else ""


def table_names(path: Path, schema: Schema) -> tuple[list[str], list[str]]:
    """Return the names of a file's columns, and of those that contain other values than numbers in the first rows."""
    rows = _rows(path, schema.encoding)
    _, names = next(rows, (0, []))
    known = {schema.text_column or "text", schema.title_column or "title"}
    sample = [row for _, row in itertools.islice(rows, SAMPLE_ROWS)]
    return names, [
        name for i, name in enumerate(names) if name in known or not all(_is_number(row[i]) for row in sample)
    ]


def _is_number(field: str) -> bool:
    """Return whether a field is a number, or empty."""
    try:
        return not field or float(field) is not None
    except ValueError:
        return False


def _rows(path: Path, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and fields of each row that is not blank; all have as many fields as the first."""
    inner = path if path.suffix.lower() in DELIMITERS else Path(path.stem)  # it may be compressed
    delimiter = DELIMITERS[inner.suffix.lower()]
    csv.field_size_limit(MAX_LINE_CHARACTERS)  # the module has one limit, by default 131,072
    rows = csv.reader(_bounded(path, encoding, delimiter), delimiter=delimiter, strict=True)
    n_fields, begin = 0, 1
    try:
        for row in rows:
            if row:
                n_fields = n_fields or len(row)
                if len(row) != n_fields:
                    raise DataError(
                        "{path}, line {begin}: {n} fields, where the first row has {n_fields}; quote what holds "
                        "delimiters or line ends",
                        path=path,
                        begin=begin,
                        n=len(row),
                        n_fields=n_fields,
                    )
                yield begin, row
            begin = rows.line_num + 1
    except csv.Error as error:
        raise DataError(
            '{path}, line {begin}: not quoted as csv is ({reason}); put the field between ", and write " in it as ""',
            path=path,
            begin=begin,
            reason=first_line(error),
        ) from error


def _bounded(path: Path, encoding: str, delimiter: str) -> Iterator[str]:
    """Yield the lines of a file with their line feeds. Raises `DataError` for one of more than MAX_FIELDS fields."""
    for number, line in enumerate(lines(path, encoding), 1):
        if line.count(delimiter) >= MAX_FIELDS and re.sub('"[^"]*"', "", line).count(delimiter) >= MAX_FIELDS:
            raise DataError(
                "{path}, line {number} has more than {max_fields:,} fields; give another file",
                path=path,
                number=number,
                max_fields=MAX_FIELDS,
            )
        yield line + "\n"
