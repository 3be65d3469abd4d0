"""The rows of jsonl and parquet files, as dictionaries."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from mamegpt.data.readers.jsonl import json_lines
from mamegpt.data.readers.parquet import open_parquet
from mamegpt.data.readers.read import format_of
from mamegpt.data.sources import SourceFile
from mamegpt.errors import DataError

__all__ = ["rows"]

BATCH_ROWS = 1024


def rows(file: SourceFile, encoding: str, columns: Collection[str]) -> Iterator[Any]:
    """Yield the rows of a file; of parquet only the ``columns``, or the first one if it has none of them.

    A row of jsonl may be any JSON value. Raises `DataError` for another format.
    """
    if format_of(file.path) == ".jsonl":
        yield from (row for _, row in json_lines(file.path, encoding))
    elif format_of(file.path) == ".parquet":
        with open_parquet(file.path) as table:
            names = table.schema_arrow.names
            wanted = sorted(set(columns) & set(names)) or names[:1]
            for batch in table.iter_batches(BATCH_ROWS, columns=wanted, use_threads=False):
                yield from batch.to_pylist()
    else:
        raise DataError("{path}: only jsonl and parquet have columns; give such a file", path=file.path)
