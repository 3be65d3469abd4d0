"""One reader a format: from a file to its records, (title, text), a batch at a time."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast
from xml.etree.ElementTree import ParseError

from mamegpt.corpus.parallel import in_order
from mamegpt.corpus.parquet_pages import DAMAGES, can_read, read_pages
from mamegpt.corpus.wiki_dump import pages
from mamegpt.errors import DataError, first_line
from mamegpt.limits import usable_cores
from mamegpt.text import is_heading, parse_articles, parse_json, parse_wiki40b

__all__ = ["FORMATS", "Batch", "Schema", "describe", "format_of", "json_lines", "open_parquet",
           "read_file"]  # fmt: skip

PLAIN_TEXT_CHARACTERS = 10_000  # the least length of the documents that plain text is cut into
BATCH_RECORDS = 100
BATCH_CHARACTERS = 200_000
PARQUET_BATCH_BYTES = 1 << 20
PARQUET_BATCH_ROWS = 1024  # at most
MAX_LINE_BYTES = 1 << 28
DETECTION_BYTES = 1 << 14
BATCHES_AHEAD = 8

ENCODINGS = {
    "cp932": "cp932", "euc_jp": "euc-jp", "iso2022_jp": "iso-2022-jp", "utf_16": "utf-16", "utf_16_le": "utf-16le",
    "utf_16_be": "utf-16be", "cp1252": "cp1252",
}  # fmt: skip
"""What a text may be in instead of UTF-8: Python's names, and iconv's."""
COMPRESSIONS = (".gz", ".bz2", ".zst")
_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)


@dataclass(frozen=True, slots=True)
class Schema:
    """How records are found in files; what is None or ``auto`` is guessed.

    ``text_column`` and ``title_column`` are names in parquet and jsonl. ``txt_layout`` says what one document of a txt
    file is: the whole ``file``, a ``line``, or a ``block`` between blank lines; ``auto`` is articles if the first line
    that is not blank is ``【…】``, else pieces of at least 10,000 characters, cut at line ends.
    """

    text_column: str | None = None
    title_column: str | None = None
    txt_layout: Literal["auto", "file", "line", "block"] = "auto"


@dataclass(frozen=True, slots=True)
class Batch:
    """Some records of a file in order, each ``(number in the file, title, text)``; ``n_read`` counts all there were.

    ``dropped`` counts those that are no documents, by reason.
    """

    n_read: int
    records: list[tuple[int, str, str]]
    dropped: dict[str, int] = field(default_factory=dict)


def format_of(path: Path) -> str:
    """One of `FORMATS`, compression (.gz, .bz2, .zst) not counted; else the suffix that is unknown."""
    suffix = path.suffix.lower()
    inner = Path(path.stem).suffix.lower()
    return inner if suffix in COMPRESSIONS and inner in FORMATS[1:] else suffix


def read_file(path: Path, schema: Schema, needles: Sequence[Sequence[bytes]] = ()) -> Iterator[Batch]:
    """Yield the records of one file, empty ones too.

    With ``needles`` a reader may leave out records that have not, in title or text, one byte string of each list.
    Raises `DataError`, naming the place, for what cannot be read or has not what ``schema`` asks for.
    """
    if format_of(path) == ".parquet":
        yield from _read_parquet(path, schema, needles)
        return
    if format_of(path) == ".xml":
        yield from _read_dump(path)
        return
    records, n_characters = list[tuple[int, str, str]](), 0
    for number, (title, text) in enumerate(READERS[format_of(path)](path, schema)):
        records.append((number, title, text))
        n_characters += len(text)
        if len(records) == BATCH_RECORDS or n_characters > BATCH_CHARACTERS:
            yield Batch(len(records), records)
            records, n_characters = [], 0
    yield Batch(len(records), records)


def describe(path: Path, schema: Schema) -> str:
    """What is taken for the text and the title of a file, in a few words."""
    if format_of(path) == ".parquet":
        with open_parquet(path) as file:
            if file.metadata.num_rows:
                text, *titles = _parquet_columns(file.schema_arrow, schema, path)
                if titles:
                    return f"text in column {text!r}, title in {titles[0]!r}"
                return f"text in column {text!r}, no title column"
    if format_of(path) == ".jsonl":
        for where, record in _json_records(path):
            text, title = _json_names(record, schema, where)
            if title in record:
                return f"text under {text!r}, title under {title!r}"
            return f"text under {text!r}, no title"
    if format_of(path) == ".txt":
        if schema.txt_layout != "auto":
            return f"one document a {schema.txt_layout}"
        first = next((line for line in _lines(path) if line.strip()), "")
        return "articles headed 【title】" if is_heading(first) else "plain text, cut at line ends"
    return "pages of a dump" if format_of(path) == ".xml" else "no records"


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
            if needles and _pages_are_known(metadata, group, columns[0]):
                yield from _search_pages(path, metadata, group, columns, start, needles, batch_rows)
                return
            with open_parquet(path, metadata) as part:
                for batch in part.iter_batches(batch_rows, row_groups=[group], columns=columns):
                    yield _parquet_batch(batch.select(columns), start, needles)
                    start += batch.num_rows

        readers = [
            functools.partial(read, group, start) for group, start in zip(range(len(groups)), starts, strict=False)
        ]
        if needles:
            yield from in_order(readers, usable_cores(), BATCHES_AHEAD)
        else:
            yield from itertools.chain.from_iterable(reader() for reader in readers)


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


def _parquet_batch(rows: Any, start: int, needles: Sequence[Sequence[bytes]]) -> Batch:
    """An Arrow batch of text and perhaps title; its first row is number ``start`` of the file."""
    numbers: Sequence[int] = range(start, start + rows.num_rows)
    n_read = rows.num_rows
    if needles:
        import numpy as np

        from mamegpt.corpus.prefilter import rows_with_any

        masks = [np.logical_or.reduce([rows_with_any(column, group) for column in rows.columns]) for group in needles]
        wanted = np.flatnonzero(np.logical_and.reduce(masks))
        rows, numbers = rows.take(wanted), (wanted + start).tolist()
    texts = rows.column(0).to_pylist()
    titles = rows.column(1).to_pylist() if rows.num_columns > 1 else [""] * len(texts)
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

    from mamegpt.corpus.prefilter import rows_with_any

    titles, in_titles = None, [np.zeros(metadata.row_group(group).num_rows, bool)] * len(needles)
    if columns[1:]:
        with open_parquet(path, metadata) as part:
            titles = part.read_row_group(group, columns=columns[1:])[columns[1]].combine_chunks()
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
    strings = [field.name for field in arrow_schema if any(test(field.type) for test in is_string)]
    text, title = _names(arrow_schema.names, strings, schema, str(path))
    return [text, title] if title in strings else [text]


# jsonl


def _read_jsonl(path: Path, schema: Schema) -> Iterator[tuple[str, str]]:
    """Yield the records of a file with one JSON object a line; blank lines are passed over."""
    for where, record in _json_records(path):
        text, title = _json_names(record, schema, where)
        yield _record(record.get(title), record[text])


def _json_names(record: dict[str, Any], schema: Schema, where: str) -> tuple[str, str]:
    """The keys of text and title. A null counts as a string where a name is known, since it is no text."""
    known = {schema.text_column or "text", schema.title_column or "title"}
    strings = [key for key, value in record.items() if isinstance(value, str) or (value is None and key in known)]
    text, title = _names(list(record), strings, schema, where)
    return text, title if title in strings else ""


def _json_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each JSON object of a file, and where it stands."""
    for where, record in json_lines(path):
        if not isinstance(record, dict):
            raise DataError(f'{where}: not a JSON object; make it one like {{"text": "…"}}')
        yield where, record


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the value of each line of a jsonl file, compressed or not, and where it stands. Raises `DataError`."""
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = parse_json(line)
        except ValueError as error:
            what = first_line(error)
            if isinstance(error, json.JSONDecodeError):
                what = f"{error.msg} at character {error.colno}"
            raise DataError(f"{where}: not JSON ({what}); correct or remove it") from error
        yield where, record


# txt


def _read_txt(path: Path, schema: Schema) -> Iterator[tuple[str, str]]:
    """Yield the documents of a text file, cut as ``schema.txt_layout`` says."""
    lines = _lines(path)
    if schema.txt_layout == "file":
        return iter([("", "\n".join(lines))])
    if schema.txt_layout == "line":
        return (("", line) for line in lines if line.strip())
    if schema.txt_layout == "block":
        blocks = itertools.groupby(lines, lambda line: bool(line.strip()))
        return (("", "\n".join(block)) for is_text, block in blocks if is_text)
    lines = itertools.dropwhile(lambda line: not line.strip(), lines)
    first = next(lines, "")
    read = parse_articles if is_heading(first) else _pieces
    return read(itertools.chain([first], lines))


def _pieces(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Cut plain text at line ends into pieces of at least PLAIN_TEXT_CHARACTERS; the last is what is left."""
    piece, length = list[str](), 0
    for line in lines:
        piece.append(line)
        length += len(line) + 1
        if length > PLAIN_TEXT_CHARACTERS:  # without the last line feed, at least that many
            yield "", "\n".join(piece)
            piece, length = [], 0
    yield "", "\n".join(piece)


# xml


def _read_dump(path: Path) -> Iterator[Batch]:
    """Yield the pages of a dump, each a batch, since to take the markup off one takes a while."""
    try:
        with _open(path) as file:
            for number, (reason, title, text) in enumerate(pages(file)):
                yield Batch(1, [], {reason: 1}) if reason else Batch(1, [(number, title, text)])
    except ParseError as error:
        raise DataError(f"{path} is not a whole dump of a MediaWiki ({error}); fetch it again") from error
    except (LookupError, UnicodeError) as error:  # expat calls Python's codecs
        raise DataError(f"{path} is in an encoding that cannot be read ({first_line(error)}); make it UTF-8") from error
    except (*_DAMAGED, OSError) as error:
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
                f"{where}: cannot tell which of {list(names)} is the text; rename it to 'text' or say --text-column"
            )
        text = others[0]
    elif text not in strings:
        raise DataError(f"{where}: 'text' does not hold a string; make it one")
    return text, title


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, compressed or not, with or without a byte order mark, without line ends."""
    offset, number = 0, 0
    try:
        with _open(path) as file:
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                start = 3 if offset == 0 and line.startswith(b"\xef\xbb\xbf") else 0
                if len(line) == MAX_LINE_BYTES:
                    raise DataError(
                        f"{path}, line {number} is longer than {MAX_LINE_BYTES >> 20} MiB; cut it into several"
                    )
                if b"\x1b$" in line:  # ISO-2022-JP passes for ASCII
                    raise DataError(f"{path} is not UTF-8 text at byte {offset + line.index(27):,}; {_likely(path)}")
                yield line[start:].decode("utf-8").rstrip("\r\n")
                offset += len(line)
    except UnicodeDecodeError as error:
        position = offset + start + error.start
        raise DataError(f"{path} is not UTF-8 text at byte {position:,}; {_likely(path)}") from error
    except _DAMAGED as error:
        raise DataError(
            f"{path} is damaged or cut off after line {number:,} ({first_line(error)}); fetch it again"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({first_line(error)}); check the file, the disk and its permissions"
        ) from error


def _open(path: Path) -> BinaryIO:
    """Open a file, decompressing it if its name says so."""
    if path.suffix.lower() == ".gz":
        return cast(BinaryIO, gzip.open(path))
    if path.suffix.lower() == ".bz2":
        return cast(BinaryIO, bz2.open(path))
    if path.suffix.lower() == ".zst":
        import pyarrow

        return cast(BinaryIO, io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd")))
    return path.open("rb")


def _likely(path: Path) -> str:
    """What to do about a file in another encoding, which is guessed from its beginning."""
    import charset_normalizer

    try:
        with _open(path) as file:
            head = file.read(DETECTION_BYTES)
    except (*_DAMAGED, OSError):
        return "it is damaged or cut off as well: fetch it again"
    found = charset_normalizer.from_bytes(head, cp_isolation=list(ENCODINGS)).best()
    if not found:
        return "save it as UTF-8"
    name = ENCODINGS.get(found.encoding, found.encoding)
    return f"it looks like {name}: save it as UTF-8 (iconv -f {name} -t utf-8)"


READERS: dict[str, Callable[[Path, Schema], Iterator[tuple[str, str]]]] = {
    ".jsonl": _read_jsonl,
    ".txt": _read_txt,
}
FORMATS = (".parquet", *READERS, ".xml")
