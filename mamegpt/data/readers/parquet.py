"""The rows of a parquet file as records; unwanted rows never become Python strings."""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mamegpt.data.readers.records import Batch, make_record, text_and_title
from mamegpt.data.schema import Schema
from mamegpt.errors import DataError, first_line

__all__ = ["open_parquet", "parquet_columns", "read_parquet"]

BATCH_BYTES = 1 << 21
"""Bytes that are searched in one call; RE2 compiles the expression again for each call."""
BATCH_ROWS = 1024  # at most
MAX_BATCH_BYTES = 1 << 28
MAX_UNPACKING = 4096
"""Largest ratio of the bytes of a column in memory and in the file, for columns of more than MAX_BATCH_BYTES."""
FEW_ROWS = 32
"""A batch with fewer rows is slow to read; the dictionary may show that more rows fit."""
THREADS = 2
CALLS_AHEAD = 4
"""Batches that a thread makes of a row group before the caller needs them."""
READ_BYTES = 1 << 18
"""Bytes read from a file at a time; without a limit, Arrow reads a whole column of a row group at once."""


def read_parquet(path: Path, schema: Schema, expressions: Sequence[Sequence[str]]) -> Iterator[Batch]:
    """Yield the rows of a parquet file; only the necessary columns are read.

    With ``expressions`` (RE2 syntax), only rows in which one expression of each list matches text or title are yielded.
    Threads search ahead of the caller, since Arrow decodes and searches without Python's lock. `pyarrow.dataset` would
    do the same, but holds whole row groups in memory, and many files consist of one row group.
    """
    with open_parquet(path) as file:
        metadata = file.metadata
        if not metadata.num_rows:
            return
        columns = parquet_columns(file.schema_arrow, schema, path)

        def searches(group: int, start: int) -> Iterator[Callable[[], Batch]]:
            with open_parquet(path, metadata) as part:
                for arrays in _arrays(path, part, group, columns):
                    yield functools.partial(_to_batch, arrays, start, expressions)
                    start += len(arrays[0])

        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        groups = map(searches, range(len(sizes)), itertools.accumulate(sizes, initial=0))
        if not expressions:
            yield from (search() for group in groups for search in group)
        elif len(sizes) > 1:  # each thread decodes and searches a row group
            yield from _ahead(groups)
        else:  # this thread decodes the row group, the others search
            yield from _ahead(iter([search]) for search in next(groups))


def _ahead(streams: Iterator[Iterator[Callable[[], Batch]]]) -> Iterator[Batch]:
    """Yield the results of all calls in order. Threads make the next calls, at most CALLS_AHEAD of each of the next
    THREADS + 1 streams.
    """
    with ThreadPoolExecutor(THREADS) as pool:

        def submit(stream: Iterator[Callable[[], Batch]]) -> tuple[Iterator[Callable[[], Batch]], Future[list[Batch]]]:
            return stream, pool.submit(lambda: [call() for call in itertools.islice(stream, CALLS_AHEAD)])

        ahead = deque(map(submit, itertools.islice(streams, THREADS + 1)))
        while ahead:
            stream, future = ahead.popleft()
            batches = future.result()
            if len(batches) == CALLS_AHEAD:
                ahead.appendleft(submit(stream))
            else:
                ahead.extend(map(submit, itertools.islice(streams, 1)))
            yield from batches


def _arrays(path: Path, file: Any, group: int, columns: list[str]) -> Iterator[list[Any]]:
    """Yield about BATCH_BYTES of the columns of a row group at a time, each column as one Arrow array."""
    import pyarrow

    n_bytes, parts = 0, list[list[Any]]()
    for arrays in _pieces(path, file, group, columns):
        parts.append(arrays)
        n_bytes += sum(array.nbytes for array in arrays)
        if n_bytes >= BATCH_BYTES:
            yield [pyarrow.concat_arrays(some) for some in zip(*parts, strict=True)]
            n_bytes, parts = 0, []
    if parts:
        yield [pyarrow.concat_arrays(some) for some in zip(*parts, strict=True)]


def _pieces(path: Path, file: Any, group: int, columns: list[str]) -> Iterator[list[Any]]:
    """Yield Arrow arrays of the columns of a row group, at most MAX_BATCH_BYTES of each.

    Raises `DataError` for a column whose few bytes in the file expand to very many, by compression or by their
    dictionary.
    """
    chunks = [_chunk(file.metadata, group, name) for name in columns]
    n_rows, n_unpacked = _batch_rows(path, file.metadata, group, columns), [0] * len(columns)
    for batch in file.iter_batches(n_rows, row_groups=[group], columns=columns, use_threads=False):
        arrays = [_plain(batch.column(name)) for name in columns]
        for i, (name, chunk, array) in enumerate(zip(columns, chunks, arrays, strict=True)):
            n_unpacked[i] += array.nbytes
            _refuse_if_too_many(n_unpacked[i], chunk, name, path)
        yield arrays


def _batch_rows(path: Path, metadata: Any, group: int, columns: list[str]) -> int:
    """Return how many rows to read at once: about BATCH_BYTES, and at most MAX_BATCH_BYTES even if all values are the
    longest.

    A value is no longer than all values of its column chunk in the file, each counted once. If this bound is too weak,
    the dictionary is inspected.
    """
    chunks = [_chunk(metadata, group, name) for name in columns]
    for name, chunk in zip(columns, chunks, strict=True):
        _refuse_if_too_many(chunk.total_uncompressed_size, chunk, name, path)
    n_bytes = [max(1, chunk.total_uncompressed_size) for chunk in chunks]
    n_rows = max(1, min(BATCH_ROWS, BATCH_BYTES * metadata.row_group(group).num_rows // sum(n_bytes)))
    most = max(1, MAX_BATCH_BYTES // max(n_bytes))
    if most < min(n_rows, FEW_ROWS):
        with open_parquet(path, metadata, read_dictionary=columns) as file:
            first = next(file.iter_batches(1, row_groups=[group], columns=columns))
            dictionaries = [column.dictionary.nbytes for column in first.columns]
        most = max(1, MAX_BATCH_BYTES // max(1, *dictionaries))
    return int(min(n_rows, most))


def _refuse_if_too_many(n_bytes: int, chunk: Any, name: str, path: Path) -> None:
    """Raise `DataError` if a column of a row group unpacks to more than a text could."""
    if n_bytes > max(MAX_BATCH_BYTES, MAX_UNPACKING * chunk.total_compressed_size):
        raise DataError(
            "{path}: column {name!r} unpacks to more than {max_unpacking:,} times its bytes; give another file",
            path=path,
            name=name,
            max_unpacking=MAX_UNPACKING,
        )


@contextmanager
def open_parquet(path: Path, metadata: Any = None, read_dictionary: Sequence[str] = ()) -> Iterator[Any]:
    """Open a parquet file; errors of Arrow become `DataError`.

    Columns in ``read_dictionary`` are read as dictionaries.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(
            path, metadata=metadata, read_dictionary=read_dictionary, buffer_size=READ_BYTES, pre_buffer=False
        ) as file:
            yield file
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(
            "{path} has text that is not UTF-8 ({reason}); save it as UTF-8", path=path, reason=error.reason
        ) from error
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            "{path} is not a readable parquet file ({reason}); fetch it again", path=path, reason=first_line(error)
        ) from error


def _plain(column: Any) -> Any:
    """Return an Arrow array of strings as plain strings, neither a dictionary nor a view."""
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pyarrow.large_string()) if types.is_string_view(column.type) else column


def _to_batch(columns: Sequence[Any], start: int, expressions: Sequence[Sequence[str]]) -> Batch:
    """Make a batch of Arrow arrays of text and, if there is one, title, whose first row is number ``start`` of the
    file.
    """
    from pyarrow import compute

    n_read = len(columns[0])
    numbers: Sequence[int] = range(start, start + n_read)
    for alternatives in expressions:
        found = [compute.match_substring_regex(column, one) for one in alternatives for column in columns]
        wanted = functools.reduce(compute.or_kleene, found)  # a null is not wanted
        numbers = list(itertools.compress(numbers, wanted.to_pylist()))
        columns = [column.filter(wanted) for column in columns]
    texts, *titles = (column.to_pylist() for column in columns)
    titles = titles[0] if titles else [""] * len(texts)
    return Batch(
        n_read, [(i, *make_record(title, text)) for i, title, text in zip(numbers, titles, texts, strict=True)]
    )


def _chunk(metadata: Any, group: int, name: str) -> Any:
    """Return Arrow's metadata of a column in a row group."""
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    return metadata.row_group(group).column(paths.index(name))


def parquet_columns(arrow_schema: Any, schema: Schema, path: Path) -> list[str]:
    """Return the columns to read of a parquet file: the text, and the title if there is one."""
    from pyarrow import types

    is_string = (types.is_string, types.is_large_string, types.is_string_view)
    kinds = [(f.name, f.type.value_type if types.is_dictionary(f.type) else f.type) for f in arrow_schema]
    strings = [name for name, kind in kinds if any(test(kind) for test in is_string)]
    text, title = text_and_title(arrow_schema.names, strings, schema, str(path))
    return [text, title] if title in strings else [text]
