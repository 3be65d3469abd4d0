"""How a corpus file came about: what was read, asked for and left out, in a small file beside it.

``corpus.txt.origin.json`` belongs to ``corpus.txt`` as long as that has the size it was written with. Token shards keep
what it says, and a model's card tells it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mamegpt.errors import DataError, OutputError
from mamegpt.system.files import is_stream, neighbor, parse_json, write_json

__all__ = ["Provenance", "forget_provenance", "read_provenance", "refuse_other_note", "write_provenance"]

SUFFIX = ".origin.json"


@dataclass(frozen=True)
class Provenance:
    """One step: the ``command`` read ``source`` with ``settings`` and kept so many documents of those it read.

    ``dropped`` has the reasons for which documents were left out, and how many. Raises `ValueError` for values that
    are none of these.
    """

    command: str
    source: str
    settings: Mapping[str, str]
    read: int
    kept: int
    dropped: Mapping[str, int]

    def __post_init__(self) -> None:
        counts = [self.read, self.kept, *dict(self.dropped).values()]
        texts = [self.command, self.source, *self.dropped, *self.settings, *dict(self.settings).values()]
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("a count is none")
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a text is none")


def write_provenance(out: Path, last: Provenance, sources: Iterable[Path]) -> None:
    """Note beside ``out``, which is complete, its last step and before it those of the files it was made from.

    Of a pipe or a device nothing is noted.
    """
    if is_stream(out):
        return
    steps = [*read_provenance(sources), last]
    write_json(_beside(out), {"n_bytes": out.stat().st_size, "steps": [asdict(step) for step in steps]})


def refuse_other_note(out: Path) -> None:
    """Raise `OutputError` if the file in which the origin of ``out`` would be noted is no such note."""
    note = _beside(out)
    if note.exists():
        try:
            value: Any = parse_json(note.read_text(encoding="utf-8"))
            is_ours = isinstance(value, dict) and value.keys() == {"n_bytes", "steps"}
        except (OSError, ValueError):
            is_ours = False
        if not is_ours:
            raise OutputError(f"{note} would be replaced, and is no note on the origin of a corpus; move it away")


def forget_provenance(out: Path) -> None:
    """Remove the note beside ``out``, before a file with another origin takes that name."""
    _beside(out).unlink(missing_ok=True)


def read_provenance(files: Iterable[Path]) -> list[Provenance]:
    """Return the steps that made these files, in order; of files without a note, or changed since, there are none.

    Raises `DataError` for a note that is damaged.
    """
    found: list[Provenance] = []
    for file in files:
        note = _beside(file)
        if not note.is_file():
            continue
        try:
            value: Any = parse_json(note.read_text(encoding="utf-8"))
            steps = [Provenance(**step) for step in value["steps"]]
            is_of_file = value["n_bytes"] == file.stat().st_size
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{note} is damaged ({error}); remove it, and nothing is said of the origin") from None
        found += [step for step in steps if is_of_file and step not in found]  # parts have the steps of the whole
    return found


def _beside(path: Path) -> Path:
    return neighbor(path, "", SUFFIX)
