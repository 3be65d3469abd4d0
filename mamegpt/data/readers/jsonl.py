"""The objects of a jsonl file as records."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mamegpt.data.readers.lines import COMPRESSIONS, lines
from mamegpt.data.readers.records import make_record, text_and_title
from mamegpt.data.schema import GUESS, Schema
from mamegpt.errors import DataError, first_line
from mamegpt.messages import msg
from mamegpt.system.parse import ParseError, parse_json

__all__ = ["json_columns", "json_lines", "read_jsonl"]

MAX_LINE_VALUES = 1 << 20
"""Most JSON values in a line of jsonl; each takes some 60 bytes of memory, however short it is."""
SAMPLE_ROWS = 100
"""Rows at the beginning of a jsonl file, and as many spread over it, from which its columns are chosen."""
SAMPLE_LINE_BYTES = 1 << 20


def read_jsonl(path: Path, schema: Schema) -> Iterator[tuple[str, str] | None]:
    """Yield the records of a file with one JSON object per line, None for those without the key of the text."""
    columns = json_columns(path, schema)
    if columns is None:
        return
    text, title = columns[0], schema.title_column or "title"  # it may be rare, and missing from the sample
    for where, record in _json_records(path, schema.encoding):
        value, heading = record.get(text), record.get(title)
        if isinstance(value, str) or (value is None and text in record):
            yield make_record(heading if isinstance(heading, str) else "", value)
        elif value is None:
            yield None
        else:
            raise DataError("{where}: {text!r} does not hold a string; make it one", where=where, text=text)


def json_columns(path: Path, schema: Schema) -> tuple[str, str] | None:
    """Choose the keys of text and title ("" without one) from a sample of a file's rows; None if it has no row."""
    names, strings = dict[str, None](), dict[str, None]()  # in order of first occurrence
    for record in _sample(path, schema.encoding):
        for key, value in record.items():
            names[key] = None
            if isinstance(value, str):
                strings[key] = None
    if not names:
        return None
    known = {schema.text_column or "text", schema.title_column or "title"}
    text, title = text_and_title(list(names), [*strings, *(names.keys() & known - strings.keys())], schema, str(path))
    return text, title if title in names else ""


def _sample(path: Path, encoding: str) -> Iterator[dict[str, Any]]:
    """Yield the first rows of a jsonl file, and some from places evenly spread over it.

    A file that is compressed or not UTF-8 cannot be read from an arbitrary place, so only its first rows are used. A
    row that cannot be parsed is left to the reader, which knows its line number.
    """
    first = [record for _, record in itertools.islice(_json_records(path, encoding), SAMPLE_ROWS)]
    yield from first
    if len(first) < SAMPLE_ROWS or path.suffix.lower() in COMPRESSIONS or encoding != GUESS.encoding:
        return
    with path.open("rb") as file:
        for i in range(1, SAMPLE_ROWS):
            file.seek(path.stat().st_size * i // SAMPLE_ROWS)
            file.readline(SAMPLE_LINE_BYTES)  # the rest of the line there
            try:
                record = _parsed(file.readline(SAMPLE_LINE_BYTES).decode("utf-8"))
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record


def _json_records(path: Path, encoding: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each JSON object of a file, with its place."""
    for where, record in json_lines(path, encoding):
        if not isinstance(record, dict):
            raise DataError('{where}: not a JSON object; make it one like {{"text": "…"}}', where=where)
        yield where, record


def json_lines(path: Path, encoding: str = GUESS.encoding) -> Iterator[tuple[str, Any]]:
    """Yield the value of each line of a jsonl file, compressed or not, with its place. Raises `DataError`."""
    for number, line in enumerate(lines(path, encoding), 1):
        if not line.strip():
            continue
        where = msg("{path}, line {number}", path=path, number=number)
        try:
            yield where, _parsed(line)
        except ParseError as error:
            raise DataError(
                "{where}: not JSON ({reason} at character {column}); correct or remove it",
                where=where,
                reason=error.reason,
                column=error.column,
            ) from error
        except ValueError as error:
            raise DataError(
                "{where}: not JSON ({reason}); correct or remove it", where=where, reason=first_line(error)
            ) from error


def _parsed(line: str) -> Any:
    """Return the JSON value of a line. Raises `ValueError` if it is not JSON, or would take much more memory."""
    if len(line) > MAX_LINE_VALUES and _n_values(line) > MAX_LINE_VALUES:
        raise ValueError(msg("it holds more than {most:,} values", most=MAX_LINE_VALUES))
    return parse_json(line)


def _n_values(line: str) -> int:
    """Estimate the number of values in JSON text from its commas and brackets."""
    return sum(map(re.sub(r'"(?:[^"\\]|\\.)*+"', "", line).count, ",[{")) + 1
