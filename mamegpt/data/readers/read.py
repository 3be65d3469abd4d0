"""One reader a format: from a file to its records, (title, text), a batch at a time."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import ParseError

from mamegpt.data.readers.lines import COMPRESSIONS, DAMAGED, lines, open_file
from mamegpt.data.readers.mediawiki import MAX_PAGE_BYTES, pages
from mamegpt.data.readers.parallel import ordered_parallel
from mamegpt.data.readers.parquet_pages import DAMAGES, can_read, dictionary_size, read_pages
from mamegpt.data.schema import GUESS, Schema
from mamegpt.errors import DataError, first_line
from mamegpt.system.files import parse_json
from mamegpt.system.limits import usable_cores
from mamegpt.text.articles import is_heading, parse_articles, parse_wiki40b

__all__ = [
    "INPUT_FORMATS",
    "Batch",
    "Layout",
    "describe",
    "format_of",
    "has_text",
    "json_lines",
    "open_parquet",
    "read_file",
]

PLAIN_TEXT_CHARACTERS = 10_000  # the least length of the documents that plain text is cut into
BATCH_RECORDS = 100
BATCH_CHARACTERS = 200_000
PARQUET_BATCH_BYTES = 1 << 20
PARQUET_BATCH_ROWS = 1024  # at most
MAX_BATCH_BYTES = 1 << 28
MAX_UNPACKING = 4096
"""Bytes of a column of parquet that may come of one in the file, if they are more than MAX_BATCH_BYTES."""
BATCHES_AHEAD = 8

MAX_LINE_VALUES = 1 << 20
"""JSON values in a line of jsonl; each takes some 60 bytes of memory, however short it is."""
SAMPLE_ROWS = 100
"""Rows at the beginning of a jsonl file, and as many from places all over it, that its columns are chosen by."""
SAMPLE_LINE_BYTES = 1 << 20
NO_TEXT = "no text column"
"""The reason to leave out a row that has not the column of text that its file was found to have."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some records of a file in order, each ``(number in the file, title, text)``; ``n_read`` counts all there were.

    ``dropped`` counts those that are no documents, by reason; ``n_holes`` the sentences of which a part is missing.
    """

    n_read: int
    records: list[tuple[int, str, str]]
    dropped: dict[str, int] = field(default_factory=dict)
    n_holes: int = 0


def format_of(path: Path) -> str:
    """One of `INPUT_FORMATS`, compression (.gz, .bz2, .zst) not counted; else the suffix that is unknown."""
    suffix = path.suffix.lower()
    inner = Path(path.stem).suffix.lower()
    return inner if suffix in COMPRESSIONS and inner in INPUT_FORMATS[1:] else suffix


def read_file(path: Path, schema: Schema, needles: Sequence[Sequence[bytes]] = ()) -> Iterator[Batch]:
    """Yield the records of one file, empty ones too.

    With ``needles`` a reader may leave out records that have not, in title or text, one byte string of each list.
    Raises `DataError`, naming the place, for what cannot be read or has not what ``schema`` asks for.
    """
    if format_of(path) == ".parquet":
        yield from _read_parquet(path, schema, needles)
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
    """Whether a file may hold text; a parquet file does not if none of its columns, or several, can be the text."""
    if format_of(path) != ".parquet":
        return True
    with open_parquet(path) as file:
        try:
            return bool(_parquet_columns(file.schema_arrow, schema, path))
        except DataError:
            return False


@dataclass(frozen=True)
class Layout:
    """What is taken for the text and the title of a file.

    ``kind`` is "column" (of parquet) or "key" (of JSON), ``text`` and ``title`` (if there is one) being its name; for
    txt "article" (headed 【title】), "plain" (cut at line ends) or a `Schema.txt_layout`; "page" (of a dump); or "none"
    if there is nothing to read.
    """

    kind: Literal["column", "key", "article", "plain", "file", "line", "block", "page", "none"]
    text: str = ""
    title: str = ""


def describe(path: Path, schema: Schema) -> Layout:
    """Return where a file has its text and its titles."""
    if format_of(path) == ".parquet":
        with open_parquet(path) as file:
            if file.metadata.num_rows:
                return Layout("column", *_parquet_columns(file.schema_arrow, schema, path))
    if format_of(path) == ".jsonl" and (found := _json_columns(path, schema)):
        return Layout("key", *found)
    if format_of(path) == ".txt":
        if schema.txt_layout != "auto":
            return Layout(schema.txt_layout)
        first = next((line for line in lines(path, schema.encoding) if line.strip()), "")
        return Layout("article" if is_heading(first) else "plain")
    return Layout("page" if format_of(path) == ".xml" else "none")


# parquet


def _read_parquet(path: Path, schema: Schema, needles: Sequence[Sequence[bytes]]) -> Iterator[Batch]:
    """Yield the rows of a parquet file; only the columns that are needed are read.

    If few of the rows are wanted, most of the work is decompression, and several row groups are read at a time.
    """
    with open_parquet(path) as file:
        metadata = file.metadata
        if not metadata.num_rows:
            return
        columns = _parquet_columns(file.schema_arrow, schema, path)
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        n_bytes = sum(group.total_byte_size for group in groups)
        batch_rows = max(1, min(PARQUET_BATCH_ROWS, PARQUET_BATCH_BYTES * metadata.num_rows // max(1, n_bytes)))
        starts = itertools.accumulate((group.num_rows for group in groups), initial=0)

        def read(group: int, start: int) -> Iterator[Batch]:
            n_rows = min(batch_rows, _most_rows(path, metadata, group, columns))
            if needles and _pages_are_known(metadata, group, columns[0]):
                yield from _search_pages(path, metadata, group, columns, start, needles, n_rows)
                return
            with open_parquet(path, metadata) as part:
                for batch in part.iter_batches(n_rows, row_groups=[group], columns=columns):
                    yield _parquet_batch([_plain(batch.column(name)) for name in columns], start, needles)
                    start += batch.num_rows

        readers = [
            functools.partial(read, group, start) for group, start in zip(range(len(groups)), starts, strict=False)
        ]
        if needles:
            yield from ordered_parallel(readers, usable_cores(), BATCHES_AHEAD)
        else:
            yield from itertools.chain.from_iterable(reader() for reader in readers)


def _most_rows(path: Path, metadata: Any, group: int, columns: Sequence[str]) -> int:
    """How many rows of a row group fit into MAX_BATCH_BYTES, even if all have the longest value of a dictionary.

    Raises `DataError` for a column of which a few bytes stand for very many, by compression or by their dictionary.
    """
    most, n_rows = PARQUET_BATCH_ROWS, metadata.row_group(group).num_rows
    with path.open("rb") as file:
        for name in columns:
            chunk, _ = _chunk(metadata, group, name)
            n_bytes, n_values = dictionary_size(file, chunk)
            unpacked = max(chunk.total_uncompressed_size, n_rows * n_bytes // max(1, n_values))
            if unpacked > max(MAX_BATCH_BYTES, MAX_UNPACKING * chunk.total_compressed_size):
                raise DataError(
                    f"{path}: column {name!r} unpacks to more than {MAX_UNPACKING:,} times its bytes; give another file"
                )
            most = min(most, max(1, MAX_BATCH_BYTES // max(1, n_bytes)))
    return most


@contextmanager
def open_parquet(path: Path, metadata: Any = None) -> Iterator[Any]:
    """An open parquet file; what Arrow has against it becomes a `DataError`."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, metadata=metadata) as file:
            yield file
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{path} holds text that is not UTF-8 ({error.reason}); write it anew as UTF-8") from error
    except (pyarrow.ArrowException, OSError, *DAMAGES) as error:
        raise DataError(f"{path} is not a readable parquet file ({first_line(error)}); fetch it again") from error


def _plain(column: Any) -> Any:
    """Return an Arrow array of strings that is no dictionary."""
    from pyarrow import types

    return column.dictionary_decode() if types.is_dictionary(column.type) else column


def _parquet_batch(columns: Sequence[Any], start: int, needles: Sequence[Sequence[bytes]]) -> Batch:
    """Make a batch of Arrow arrays of text and perhaps title, whose first row is number ``start`` of the file."""
    n_read = len(columns[0])
    numbers: Sequence[int] = range(start, start + n_read)
    if needles:
        import numpy as np

        from mamegpt.data.readers.prefilter import rows_with_any

        masks = [np.logical_or.reduce([rows_with_any(column, group) for column in columns]) for group in needles]
        wanted = np.flatnonzero(np.logical_and.reduce(masks))
        columns, numbers = [column.take(wanted) for column in columns], (wanted + start).tolist()
    texts, *titles = (column.to_pylist() for column in columns)
    titles = titles[0] if titles else [""] * len(texts)
    return Batch(n_read, [(i, *_record(title, text)) for i, title, text in zip(numbers, titles, texts, strict=True)])


def _pages_are_known(metadata: Any, group: int, name: str) -> bool:
    """Whether `_search_pages` can read a row group's text."""
    return can_read(*_chunk(metadata, group, name))


def _chunk(metadata: Any, group: int, name: str) -> tuple[Any, Any]:
    """Arrow's metadata of a row group's column, and of the column."""
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    return metadata.row_group(group).column(paths.index(name)), metadata.schema.column(paths.index(name))


def _search_pages(
    path: Path, metadata: Any, group: int, columns: list[str], start: int, needles: Sequence[Sequence[bytes]], size: int
) -> Iterator[Batch]:
    """Yield a row group's rows that may be wanted, from the bytes of its pages, at most ``size`` at a time."""
    import numpy as np

    from mamegpt.data.readers.prefilter import rows_with_any

    titles, in_titles = None, [np.zeros(metadata.row_group(group).num_rows, bool)] * len(needles)
    if columns[1:]:
        with open_parquet(path, metadata) as part:
            titles = _plain(part.read_row_group(group, columns=columns[1:])[columns[1]].combine_chunks())
        in_titles = [rows_with_any(titles, some) for some in needles]
    at = 0
    with path.open("rb") as file:
        for page in read_pages(file, *_chunk(metadata, group, columns[0])):
            here = slice(at, at + page.n_rows)
            found = [page.with_any(some) | inside[here] for some, inside in zip(needles, in_titles, strict=True)]
            wanted = np.logical_and.reduce(found)
            for first in range(0, page.n_rows, size) if wanted.any() else ():
                rows = (np.flatnonzero(wanted[first : first + size]) + first).tolist()
                records = [
                    (start + at + i, *_record(titles[at + i].as_py() if titles else "", page.text(i))) for i in rows
                ]
                yield Batch(min(size, page.n_rows - first), records)
            if not wanted.any():
                yield Batch(page.n_rows, [])
            at += page.n_rows


def _parquet_columns(arrow_schema: Any, schema: Schema, path: Path) -> list[str]:
    """The columns to read of a parquet file: the text, and the title if there is one."""
    from pyarrow import types

    is_string = (types.is_string, types.is_large_string, types.is_string_view)
    kinds = [(f.name, f.type.value_type if types.is_dictionary(f.type) else f.type) for f in arrow_schema]
    strings = [name for name, kind in kinds if any(test(kind) for test in is_string)]
    text, title = _names(arrow_schema.names, strings, schema, str(path))
    return [text, title] if title in strings else [text]


# jsonl


def _read_jsonl(path: Path, schema: Schema) -> Iterator[tuple[str, str] | None]:
    """Yield the records of a file with one JSON object a line, None for those without the text's key."""
    columns = _json_columns(path, schema)
    if columns is None:
        return
    text, title = columns[0], schema.title_column or "title"  # few rows may have one, none of them in the sample
    for where, record in _json_records(path, schema.encoding):
        value, heading = record.get(text), record.get(title)
        if isinstance(value, str) or (value is None and text in record):
            yield _record(heading if isinstance(heading, str) else "", value)
        elif value is None:
            yield None
        else:
            raise DataError(f"{where}: {text!r} does not hold a string; make it one")


def _json_columns(path: Path, schema: Schema) -> tuple[str, str] | None:
    """Choose the keys of text and title ("" if there is none) by a sample of a file's rows; None if it has no row."""
    names, strings = dict[str, None](), dict[str, None]()  # in the order they are met
    for record in _sample(path, schema.encoding):
        for key, value in record.items():
            names[key] = None
            if isinstance(value, str):
                strings[key] = None
    if not names:
        return None
    known = {schema.text_column or "text", schema.title_column or "title"}
    text, title = _names(list(names), [*strings, *(names.keys() & known - strings.keys())], schema, str(path))
    return text, title if title in names else ""


def _sample(path: Path, encoding: str) -> Iterator[dict[str, Any]]:
    """Yield the first rows of a jsonl file, and some from places evenly spread over it.

    A compressed file, or one that is not UTF-8, cannot be entered at any place: of these it is the first rows only.
    What cannot be parsed at such a place is left to the reader, who knows its line.
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
    """Yield each JSON object of a file, and where it stands."""
    for where, record in json_lines(path, encoding):
        if not isinstance(record, dict):
            raise DataError(f'{where}: not a JSON object; make it one like {{"text": "…"}}')
        yield where, record


def json_lines(path: Path, encoding: str = GUESS.encoding) -> Iterator[tuple[str, Any]]:
    """Yield the value of each line of a jsonl file, compressed or not, and where it stands. Raises `DataError`."""
    for number, line in enumerate(lines(path, encoding), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            yield where, _parsed(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{where}: not JSON ({error.msg} at character {error.colno}); correct or remove it"
            ) from error
        except ValueError as error:
            raise DataError(f"{where}: not JSON ({first_line(error)}); correct or remove it") from error


def _parsed(line: str) -> Any:
    """Return the JSON value of a line. Raises `ValueError` for what is none, or would take much more memory."""
    if len(line) > MAX_LINE_VALUES and _n_values(line) > MAX_LINE_VALUES:
        raise ValueError(f"it holds more than {MAX_LINE_VALUES:,} values")
    return parse_json(line)


def _n_values(line: str) -> int:
    """Count the values in JSON text, as far as commas and brackets tell."""
    return sum(map(re.sub(r'"(?:[^"\\]|\\.)*+"', "", line).count, ",[{")) + 1


# txt


def _read_txt(path: Path, schema: Schema) -> Iterator[tuple[str, str]]:
    """Yield the documents of a text file, cut as ``schema.txt_layout`` says."""
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
    """Cut plain text at line ends into pieces of at least PLAIN_TEXT_CHARACTERS; the last is what is left."""
    piece, length = list[str](), 0
    for line in all_lines:
        piece.append(line)
        length += len(line) + 1
        if length > PLAIN_TEXT_CHARACTERS:  # without the last line feed, at least that many
            yield "", "\n".join(piece)
            piece, length = [], 0
    yield "", "\n".join(piece)


# xml


def _read_dump(path: Path, encoding: str) -> Iterator[Batch]:
    """Yield the pages of a dump, each a batch, since to take the markup off one takes a while."""
    try:
        with open_file(path) as file:
            for number, (reason, title, text, n_holes) in enumerate(pages(file, encoding)):
                yield Batch(1, [], {reason: 1}) if reason else Batch(1, [(number, title, text)], n_holes=n_holes)
    except ParseError as error:
        raise DataError(f"{path} is not a whole dump of a MediaWiki ({error}); fetch it again") from error
    except (LookupError, UnicodeError) as error:
        raise DataError(f"{path} is in an encoding that cannot be read ({first_line(error)}); make it UTF-8") from error
    except OverflowError as error:
        raise DataError(
            f"{path}: a page is larger than {MAX_PAGE_BYTES >> 20} MiB; give a dump with one revision a page "
            "(pages-articles)"
        ) from error
    except (*DAMAGED, OSError) as error:
        raise DataError(f"{path} is damaged or cut off ({first_line(error)}); fetch it again") from error


# What they share


def _record(title: str | None, text: str | None) -> tuple[str, str]:
    """A row as (title, text): null is no text; a title of its own goes before the one in the markers."""
    wiki_title, text = parse_wiki40b(text or "")
    return title or wiki_title, text


def _names(names: Sequence[str], strings: Sequence[str], schema: Schema, where: str) -> tuple[str, str]:
    """The names that hold text and title: those asked for; ``title``; ``text``, or the only other that has strings."""
    for name, option in ((schema.text_column, "--text-column"), (schema.title_column, "--title-column")):
        if name and name not in strings:
            raise DataError(f"{where}: no {name!r} ({option}) that holds strings; there are {list(strings)}")
    title = schema.title_column or "title"
    text = schema.text_column or ("text" if "text" in names else None)
    if text is None:
        others = [name for name in strings if name != title]
        if not others:
            raise DataError(
                f"{where}: none of {list(names)} holds strings, so there is no text in it; give another file"
            )
        if len(others) != 1:
            raise DataError(
                f"{where}: cannot tell which of {others} is the text; rename it to 'text' or say --text-column"
            )
        text = others[0]
    elif text not in strings:
        raise DataError(f"{where}: {text!r} does not hold a string; make it one")
    return text, title


READERS: dict[str, Callable[[Path, Schema], Iterator[tuple[str, str] | None]]] = {
    ".jsonl": _read_jsonl,
    ".txt": _read_txt,
}
INPUT_FORMATS = (".parquet", *READERS, ".xml")
