"""The rows of a parquet file as records; of many unwanted rows only the bytes are read."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mamegpt.data.readers.parallel import ordered_parallel
from mamegpt.data.readers.parquet_pages import DAMAGES, can_read, dictionary_size, read_pages
from mamegpt.data.readers.records import Batch, make_record, text_and_title
from mamegpt.data.schema import Schema
from mamegpt.errors import DataError, first_line
from mamegpt.system.limits import usable_cores

__all__ = ["open_parquet", "parquet_columns", "read_parquet"]

BATCH_BYTES = 1 << 20
BATCH_ROWS = 1024  # at most
MAX_BATCH_BYTES = 1 << 28
MAX_UNPACKING = 4096
"""Bytes of a column of parquet that may come of one in the file, if they are more than MAX_BATCH_BYTES."""
BATCHES_AHEAD = 8


def read_parquet(path: Path, schema: Schema, needles: Sequence[Sequence[bytes]]) -> Iterator[Batch]:
    """Yield the rows of a parquet file; only the columns that are needed are read.

    If few of the rows are wanted, most of the work is decompression, and several row groups are read at a time.
    """
    with open_parquet(path) as file:
        metadata = file.metadata
        if not metadata.num_rows:
            return
        columns = parquet_columns(file.schema_arrow, schema, path)
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        n_bytes = sum(group.total_byte_size for group in groups)
        batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES * metadata.num_rows // max(1, n_bytes)))
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
    """Return how many rows of a row group fit into MAX_BATCH_BYTES, even if all have the longest value of a dictionary.

    Raises `DataError` for a column of which a few bytes stand for very many, by compression or by their dictionary.
    """
    most, n_rows = BATCH_ROWS, metadata.row_group(group).num_rows
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
    """Open a parquet file; what Arrow has against it becomes a `DataError`."""
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
    return Batch(
        n_read, [(i, *make_record(title, text)) for i, title, text in zip(numbers, titles, texts, strict=True)]
    )


def _pages_are_known(metadata: Any, group: int, name: str) -> bool:
    """Return whether `_search_pages` can read a row group's text."""
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
                    (start + at + i, *make_record(titles[at + i].as_py() if titles else "", page.text(i))) for i in rows
                ]
                yield Batch(min(size, page.n_rows - first), records)
            if not wanted.any():
                yield Batch(page.n_rows, [])
            at += page.n_rows


def parquet_columns(arrow_schema: Any, schema: Schema, path: Path) -> list[str]:
    """Return the columns to read of a parquet file: the text, and the title if there is one."""
    from pyarrow import types

    is_string = (types.is_string, types.is_large_string, types.is_string_view)
    kinds = [(f.name, f.type.value_type if types.is_dictionary(f.type) else f.type) for f in arrow_schema]
    strings = [name for name, kind in kinds if any(test(kind) for test in is_string)]
    text, title = text_and_title(arrow_schema.names, strings, schema, str(path))
    return [text, title] if title in strings else [text]
