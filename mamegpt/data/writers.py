"""Write documents to a jsonl, parquet or txt file, atomically, in the form that `read_documents` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mamegpt.errors import OutputError, first_line
from mamegpt.system.files import atomic_write, refuse_existing
from mamegpt.text.articles import format_article

__all__ = ["COLUMNS", "OUTPUT_FORMATS", "refuse_failed_write", "write_documents", "write_jsonl", "write_rows"]

OUTPUT_FORMATS = (".jsonl", ".parquet", ".txt")
COLUMNS = ("id", "title", "text")
"""The columns of a parquet file without any document."""

GROUP_CHARACTERS = 4_000_000  # characters or bytes per row group of parquet, which is in memory until it is written


def _length(value: Any) -> int:
    """Return the length of a string or bytes, or the total length of those in a list; 0 for anything else."""
    if isinstance(value, list):
        return sum(map(_length, value))
    return len(value) if isinstance(value, str | bytes) else 0


@contextmanager
def refuse_failed_write(out: Path) -> Iterator[None]:
    """Raise `OutputError` if the block cannot write ``out``; that nobody reads a pipe any more is passed on."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError | BrokenPipeError):
            raise
        raise OutputError(
            "{out} cannot be written ({reason}); choose another place", out=out, reason=first_line(error)
        ) from error


@contextmanager
def write_documents(path: Path, suffix: str | None = None) -> Iterator[Callable[[dict[str, str]], object]]:
    """Yield a function that writes one document; ``path`` appears when the block ends without an error.

    Documents have the keys ``title`` and ``text``, and may have others, the same in all. jsonl and parquet keep all of
    them, as strings; txt has the format of `format_article`. ``suffix`` is that of the format, by default that of
    ``path``. Raises `OutputError` for an unknown format.
    """
    suffix = path.suffix.lower() if suffix is None else suffix
    if suffix == ".parquet":
        with write_rows(path) as write:
            yield write
    elif suffix in OUTPUT_FORMATS:
        with atomic_write(path) as file:
            if suffix == ".txt":
                yield lambda document: file.write(format_article(document["title"], document["text"]))
            else:
                yield lambda document: file.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        raise OutputError(
            "{path}: cannot write the format {suffix!r}; name it one of {formats}",
            path=path,
            suffix=suffix,
            formats=", ".join(OUTPUT_FORMATS),
        )


@contextmanager
def write_rows(path: Path, schema: Any = None) -> Iterator[Callable[[dict[str, Any]], object]]:
    """Yield a function that writes one row of a parquet file; ``path`` appears when the block ends without an error.

    Without a ``schema`` (Arrow's), all columns are strings with the names in the first row.
    """
    import pyarrow
    import pyarrow.parquet

    rows: list[dict[str, Any]] = []
    writer: pyarrow.parquet.ParquetWriter | None = None
    n_held = 0  # characters and bytes

    def flush() -> None:
        nonlocal writer, n_held
        if writer is None:
            names = rows[0] if rows else COLUMNS
            columns = schema or pyarrow.schema([(name, pyarrow.string()) for name in names])
            writer = pyarrow.parquet.ParquetWriter(file, columns, compression="zstd")
        if rows:
            writer.write_table(pyarrow.Table.from_pylist(rows, writer.schema))
        rows.clear()
        n_held = 0

    def write(row: dict[str, Any]) -> None:
        nonlocal n_held
        rows.append(row)
        n_held += sum(_length(value) for value in row.values())
        if n_held >= GROUP_CHARACTERS:
            flush()

    with atomic_write(path, "wb") as file:
        try:
            yield write
            flush()
        finally:
            if writer is not None:
                writer.close()


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]], *, overwrite: bool) -> None:
    """Write rows as JSON, one a line; ``path`` appears when all are written.

    Raises `OutputError` if it exists and not ``overwrite``, or cannot be written.
    """
    path = Path(path)
    if not overwrite:
        refuse_existing(path)
    with refuse_failed_write(path), atomic_write(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
