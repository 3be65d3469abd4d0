"""Documents into a file: jsonl, parquet or txt, whole or not at all. What is written here `read_documents` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mamegpt.errors import OutputError
from mamegpt.files import atomic_write
from mamegpt.text import format_article

__all__ = ["FORMATS", "write_documents"]

FORMATS = (".jsonl", ".parquet", ".txt")
GROUP_CHARACTERS = 4_000_000  # of a row group of parquet, which is held in memory until it is written


@contextmanager
def write_documents(path: Path) -> Iterator[Callable[[dict[str, str]], object]]:
    """Yield a function that writes one document; ``path`` appears when the block ends without an error.

    A document has the keys ``title`` and ``text``, and may have others, the same in all. jsonl and parquet keep
    them all, as strings; txt is `format_article`'s format. Raises `OutputError` for another suffix.
    """
    if path.suffix.lower() == ".parquet":
        with _write_parquet(path) as write:
            yield write
    elif path.suffix.lower() in FORMATS:
        with atomic_write(path) as file:
            if path.suffix.lower() == ".txt":
                yield lambda document: file.write(format_article(document["title"], document["text"]))
            else:
                yield lambda document: file.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        raise OutputError(f"{path}: cannot write the format {path.suffix!r}; name it one of {', '.join(FORMATS)}")


@contextmanager
def _write_parquet(path: Path) -> Iterator[Callable[[dict[str, str]], object]]:
    import pyarrow
    import pyarrow.parquet

    rows: list[dict[str, str]] = []
    writer: pyarrow.parquet.ParquetWriter | None = None
    n_held = 0  # characters

    def flush() -> None:
        nonlocal writer, n_held
        if not rows:
            return
        table = pyarrow.table({key: pyarrow.array([row[key] for row in rows], pyarrow.string()) for key in rows[0]})
        if writer is None:
            writer = pyarrow.parquet.ParquetWriter(file, table.schema, compression="zstd")
        writer.write_table(table)
        rows.clear()
        n_held = 0

    def write(document: dict[str, str]) -> None:
        nonlocal n_held
        rows.append(document)
        n_held += sum(map(len, document.values()))
        if n_held >= GROUP_CHARACTERS:
            flush()

    with atomic_write(path, "wb") as file:
        try:
            yield write
            flush()
        finally:
            if writer is not None:
                writer.close()
