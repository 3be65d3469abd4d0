"""Provenance of a corpus file: sources, settings and dropped documents, in a small file next to it.

``corpus.txt.origin.json`` belongs to ``corpus.txt`` as long as that file has the size it was written with. Token shards
copy it, and model cards show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mamegpt.errors import DataError, OutputError
from mamegpt.system.files import is_stream, neighbor, write_json
from mamegpt.system.validation import Count, FromJSON, read_json

__all__ = ["Provenance", "forget_provenance", "read_provenance", "refuse_other_note", "write_provenance"]

SUFFIX = ".origin.json"


@dataclass(frozen=True)
class Provenance(FromJSON):
    """One step: the ``command`` read ``source`` with ``settings``, read ``read`` documents and kept ``kept`` of them.

    ``dropped`` counts the dropped documents by reason.
    """

    command: str
    source: str
    settings: Mapping[str, str]
    read: Count
    kept: Count
    dropped: Mapping[str, Count]


@dataclass(frozen=True)
class _Note(FromJSON, extra="ignore"):
    """The content of the file: the size of the corpus file, and the steps that made it."""

    n_bytes: Count
    steps: list[Provenance]


def write_provenance(out: Path, last: Provenance, sources: Iterable[Path]) -> None:
    """Write the provenance of ``out``, which is complete, next to it: the steps of its sources, and its ``last`` step.

    Nothing is written for a pipe or a device.
    """
    if is_stream(out):
        return
    steps = [*read_provenance(sources), last]
    write_json(_beside(out), {"n_bytes": out.stat().st_size, "steps": [asdict(step) for step in steps]})


def refuse_other_note(out: Path) -> None:
    """Raise `OutputError` if the file for the provenance of ``out`` exists and is something else."""
    note = _beside(out)
    if note.exists():
        try:
            is_ours = read_json(note, dict[str, Any]).keys() == {"n_bytes", "steps"}
        except (OSError, ValueError):
            is_ours = False
        if not is_ours:
            raise OutputError(
                "{note} would be overwritten and is not the provenance of a corpus; move it away", note=note
            )


def forget_provenance(out: Path) -> None:
    """Remove the provenance of ``out``, before a file with another origin takes that name."""
    _beside(out).unlink(missing_ok=True)


def read_provenance(files: Iterable[Path]) -> list[Provenance]:
    """Return the steps that made these files, in order. Files without provenance, or changed since, have none.

    Raises `DataError` for a damaged provenance file.
    """
    found: list[Provenance] = []
    for file in files:
        note = _beside(file)
        if not note.is_file():
            continue
        try:
            stored = read_json(note, _Note)
        except ValueError as error:
            raise DataError(
                "{note} is damaged ({reason}); remove it (only the provenance is lost)", note=note, reason=error
            ) from None
        if stored.n_bytes == file.stat().st_size:
            found += [step for step in stored.steps if step not in found]  # all parts of a corpus have the same steps
    return found


def _beside(path: Path) -> Path:
    return neighbor(path, "", SUFFIX)
