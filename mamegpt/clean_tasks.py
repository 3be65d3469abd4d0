"""`clean` as tasks for many processes or machines: the same steps, the same documents, the same report.

    prepare    a task for some files: edits, rules, test items, signatures   .work/prepared/00000.parquet
    decide     one task: each document after all before it, by signatures    .work/decided/00000.parquet
    write      a task for some files: what is kept, and what was counted     train-00000-of-00008.parquet, .work/counts/
    report     one task: the sum of the counts                               report.html

A task is a pure function of the files that it reads, and its own files appear whole or not at all. So one that failed
is run again, alone, and what runs the tasks is anybody's choice (`examples/clean_cluster.py`: datatrove, on one
machine, Slurm or Ray). All must see one file system.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mamegpt import __version__
from mamegpt.clean import Cleaned, Cleaner, CleanReport, Prepared, Version, chosen_steps, count, finished, read_items
from mamegpt.corpus.clean_steps import Normalisation, Step
from mamegpt.corpus.data_page import html_page
from mamegpt.corpus.data_report import DataReport
from mamegpt.corpus.dedup import Contamination, Folded
from mamegpt.corpus.readers import open_parquet
from mamegpt.corpus.writers import FORMATS, write_documents, write_rows
from mamegpt.errors import ConfigError, DataError, OutputError
from mamegpt.files import atomic_write, write_json
from mamegpt.sources import Document, SourceFile, find_files, read_files

__all__ = ["STAGES", "CleanTasks", "Stage", "StageName"]

StageName = Literal["prepare", "decide", "write", "report"]
STAGES: tuple[StageName, ...] = ("prepare", "decide", "write", "report")
"""The stages in their order; each needs all tasks of the one before."""

BY_FILES: tuple[StageName, ...] = ("prepare", "write")
BATCH_ROWS = 1000


@dataclass(frozen=True)
class CleanTasks:
    """What `clean` is to do, in ``n_tasks`` tasks.

    ``out`` is a folder of parts in a ``format`` (a suffix), which all else here reads as a data set; all others are as
    in `clean`.
    """

    data: str
    out: Path
    n_tasks: int
    split: str = "train"
    format: str = ".parquet"
    normalisation: Normalisation = "nfc"
    without: tuple[Step, ...] = ()
    only: tuple[Step, ...] = ()
    against: tuple[Path, ...] = ()

    def start(self) -> None:
        """Note the files to read and the settings in ``out``, or see that those noted there are the same.

        Raises `ConfigError` or `OutputError` for what cannot be done, `DataError` if there is no such corpus.
        """
        chosen_steps(self.without, self.only, self.against)
        files = find_files(self.data, self.split)
        if self.format not in FORMATS:
            raise ConfigError(f"format {self.format!r} is not known; give one of {', '.join(FORMATS)}")
        if not 1 <= self.n_tasks <= len(files):
            raise ConfigError(
                f"{self.n_tasks} tasks for {len(files)} files: a file is read by one task; give 1 to {len(files)}"
            )
        plan = self._settings() | {"files": [[str(file.path.resolve()), file.name, file.weight] for file in files]}
        if self._plan.is_file():
            if json.loads(self._plan.read_text(encoding="utf-8")) != plan:
                raise OutputError(f"{self.out} is of another version, other files or settings; choose another name")
        elif self.out.exists() and any(self.out.iterdir()):
            raise OutputError(f"{self.out} is not empty, and not of such tasks; choose another name")
        else:
            write_json(self._plan, plan)

    def stages(self) -> list[Stage]:
        """The stages, each to be called once for each of its tasks."""
        return [Stage(self, name) for name in STAGES]

    def prepare(self, rank: int) -> None:
        """Do all that depends on one document alone, for those of a task's files."""
        import pyarrow

        text, binary = pyarrow.string(), pyarrow.binary()
        columns = {
            "id": text, "title": text, "text": text, "edits": text, "fault": text, "passage": text, "key": binary,
            "line_keys": binary, "sketch": binary,
        }  # fmt: skip
        cleaner = self._cleaner(self._items())
        with write_rows(self._prepared(rank), pyarrow.schema(columns)) as write:
            for document in read_files(self._files(rank)):
                prepared = cleaner.prepare(document)
                version = prepared.version
                write(
                    {
                        "id": prepared.id, "title": prepared.title, "text": version.text.text,
                        "edits": json.dumps(prepared.edits), "fault": version.fault, "passage": version.passage,
                    }
                    | ({} if version.fault else version.text.signatures())
                )  # fmt: skip

    def decide(self) -> None:
        """Decide on all documents, in their order; only here they are compared with each other."""
        import pyarrow

        text = pyarrow.string()
        columns = {
            "reason": text, "detail": text, "edits": text, "text": text, "repeated_lines": pyarrow.list_(text),
        }  # fmt: skip
        cleaner = self._cleaner(self._items())
        for rank in range(self.n_tasks):
            with write_rows(self._decided(rank), pyarrow.schema(columns)) as write:
                for prepared in self._read_prepared(rank):
                    cleaned = cleaner.decide(prepared)
                    row: dict[str, Any] = {
                        "reason": cleaned.reason,
                        "detail": cleaned.detail,
                        "edits": json.dumps(cleaned.edits),
                    }
                    if cleaned.repeated_lines:
                        row |= {"text": cleaned.document.text, "repeated_lines": cleaned.repeated_lines}
                    write(row)

    def write(self, rank: int) -> None:
        """Write what is kept of a task's files, and what was counted."""
        counts = self._counts()
        documents = read_files(self._files(rank))
        prepared = _rows(self._prepared(rank), ["id", "title", "text"])
        with write_documents(self._part(rank)) as keep:
            for document, old, new in zip(documents, prepared, _rows(self._decided(rank)), strict=True):
                if document.id != old["id"]:
                    raise DataError(f"{document.id} was {old['id']} before; files changed meanwhile, so begin anew")
                text = old["text"] if new["text"] is None else new["text"]
                cleaned = Cleaned(
                    Document(document.id, old["title"], text), new["reason"], new["detail"],
                    Counter(json.loads(new["edits"])), new["repeated_lines"] or [],
                )  # fmt: skip
                count(counts, document, cleaned)
                if not cleaned.reason:
                    keep(asdict(cleaned.document))
        write_json(self._counted(rank), counts.to_dict())

    def report(self) -> CleanReport:
        """Add up what all tasks counted, write it to report.html, and remove what is needed no more."""
        started, counts = time.perf_counter(), self._counts()
        for rank in range(self.n_tasks):
            counts.merge(json.loads(self._counted(rank).read_text(encoding="utf-8")))
        done = finished(
            counts, self.data, self.split, self.normalisation, self._steps, self._items(), self.out, started
        )
        with atomic_write(self.out / "report.html") as file:
            file.write(html_page(counts, done.rows(), done.settings))
        for folder in (self._prepared(0).parent, self._decided(0).parent):
            shutil.rmtree(folder, ignore_errors=True)
        for path in self.out.glob(".*.partial"):
            path.unlink()  # of a task that was killed
        return done

    # Where things are

    @property
    def work(self) -> Path:
        """The folder for all that is no result."""
        return self.out / ".work"

    @property
    def _plan(self) -> Path:
        return self.work / "plan.json"

    def _prepared(self, rank: int) -> Path:
        return self.work / "prepared" / f"{rank:05}.parquet"

    def _decided(self, rank: int) -> Path:
        return self.work / "decided" / f"{rank:05}.parquet"

    def _counted(self, rank: int) -> Path:
        return self.work / "counts" / f"{rank:05}.json"

    def _part(self, rank: int) -> Path:
        return self.out / f"{self.split}-{rank:05}-of-{self.n_tasks:05}{self.format}"

    # What they share

    @property
    def _steps(self) -> tuple[Step, ...]:
        return chosen_steps(self.without, self.only, self.against)

    def _settings(self) -> dict[str, Any]:
        """All that a task's files depend on but the corpus, as JSON."""
        settings: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return settings | {"version": __version__}

    def _files(self, rank: int) -> list[SourceFile]:
        """The files of a task: as many as the others have, in their order."""
        files = json.loads(self._plan.read_text(encoding="utf-8"))["files"]
        first, last = (len(files) * at // self.n_tasks for at in (rank, rank + 1))
        return [SourceFile(Path(path), name, weight) for path, name, weight in files[first:last]]

    def _items(self) -> Contamination | None:
        return Contamination(read_items(self.against)) if self.against else None

    def _cleaner(self, items: Contamination | None) -> Cleaner:
        return Cleaner(self._steps, self.normalisation, items)

    def _counts(self) -> DataReport:
        cleaner = self._cleaner(self._items())
        return DataReport(cleaner.reasons, cleaner.edits)

    def _read_prepared(self, rank: int) -> Iterator[Prepared]:
        for row in _rows(self._prepared(rank)):
            text, fault = row["text"], row["fault"]
            signatures = {name: row[name] for name in ("key", "line_keys", "sketch")}
            folded = Folded(text) if fault else Folded.with_signatures(text, **signatures)
            edits = Counter(json.loads(row["edits"]))
            yield Prepared(row["id"], row["title"], edits, Version(folded, fault, row["passage"]))


@dataclass(frozen=True)
class Stage:
    """A stage of `CleanTasks`, to be called with a task's number as a step of datatrove is."""

    tasks: CleanTasks
    name: StageName

    @property
    def n_tasks(self) -> int:
        """How many tasks it has."""
        return self.tasks.n_tasks if self.name in BY_FILES else 1

    def __call__(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        """Run one task; ``data``, what an earlier step of a datatrove pipeline yields, is none here."""
        work = getattr(self.tasks, self.name)
        work(*([rank] if self.name in BY_FILES else []))


def _rows(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a parquet file; some columns, or all."""
    with open_parquet(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            yield from batch.to_pylist()
