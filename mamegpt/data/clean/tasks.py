"""`clean` as tasks for many processes or machines: the same steps, the same documents, the same report.

    prepare    N tasks, each for some files: edits, rules, test items; 64-bit keys (`TextSignature.keys`) of everything
               that documents may share
    share      N tasks, each for a range of keys: find the keys that occur in more than one place
    decide     one task: decide on the documents that have such keys, in document order
    write      N tasks, each for some files: write the kept documents and the counts
    report     one task: add up the counts

A task is a pure function of the files that it reads, and writes its own files atomically. A failed task is run again
alone, and anything can run the tasks (`examples/clean_cluster.py`: datatrove, on one machine, Slurm or Ray). All
machines need one shared file system.

Documents without a shared key need no decision: whatever finds a document in another one has a key of it. The exception
are texts that are created while deciding, when repeated lines are removed. Their keys are looked up too; if another
document has one of them, it counts as shared, and "decide" runs again, until there is no such key left.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from mamegpt import __version__
from mamegpt.arguments import checked
from mamegpt.data.clean.clean import (
    Cleaned,
    Cleaner,
    Prepared,
    Version,
    chosen_steps,
    count,
    finished,
    read_items,
)
from mamegpt.data.clean.counts import CleanReport, Counted, DataReport
from mamegpt.data.clean.dedup import COMPARED, Compared, Contamination, TextSignature
from mamegpt.data.clean.page import html_page
from mamegpt.data.clean.steps import Normalisation, Step
from mamegpt.data.provenance import write_provenance
from mamegpt.data.readers.parquet import open_parquet
from mamegpt.data.schema import GUESS, Schema
from mamegpt.data.sources import Document, SourceFile, find_files, noted_source, read_files
from mamegpt.data.writers import OUTPUT_FORMATS, write_documents, write_rows
from mamegpt.errors import ConfigError, DataError, OutputError
from mamegpt.messages import without_secrets
from mamegpt.system.files import atomic_write, remove_leftovers, write_json
from mamegpt.system.validation import FromJSON, Lax, read_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["STAGES", "CleanTasks", "Stage", "StageName"]

StageName = Literal["prepare", "share", "decide", "write", "report"]
STAGES: tuple[StageName, ...] = get_args(StageName)
"""The stages in their order; each needs all tasks of the stage before it."""

BATCH_ROWS = 10_000


@checked
@dataclass(frozen=True)
class CleanTasks:
    """A cleaning job as ``n_tasks`` tasks.

    ``out`` is a folder of parts in a ``format`` (a suffix), which other commands read as a dataset; the other fields
    are as in `clean`.
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
    schema: Schema = GUESS

    def start(self) -> None:
        """Record the files to read and the settings in ``out``, or check that those recorded there are the same.

        Raises `ConfigError` or `OutputError` for an impossible job, `DataError` if there is no such corpus.
        """
        chosen_steps(self.without, self.only, self.against)
        files = find_files(self.data, self.split, self.schema)
        if self.format not in OUTPUT_FORMATS:
            raise ConfigError(
                "format {format!r} is not known; give one of {formats}",
                format=self.format,
                formats=", ".join(OUTPUT_FORMATS),
            )
        if not 1 <= self.n_tasks <= len(files):
            raise ConfigError(
                "{n_tasks} tasks for {n_files} files: a file is read by one task; give 1 to {n_files}",
                n_tasks=self.n_tasks,
                n_files=len(files),
            )
        listed = [[str(file.path.resolve()), file.name, file.weight, file.source] for file in files]
        plan = self._settings() | {"files": listed}
        if self._plan.is_file():
            with _reading(self._plan):
                is_same = read_json(self._plan, dict[str, Any]) == plan
            if not is_same:
                raise OutputError(
                    "{out} is of another version, other files or settings; choose another name", out=self.out
                )
        elif self.out.exists() and any(self.out.iterdir()):
            raise OutputError("{out} is not empty, and not of such tasks; choose another name", out=self.out)
        else:
            write_json(self._plan, plan)

    def stages(self) -> list[Stage]:
        """Return the stages. Call each once per task."""
        return [Stage(self, name) for name in STAGES]

    def prepare(self, rank: int) -> None:
        """Apply the steps that look at one document alone, to the documents in a task's files."""
        import numpy as np
        import pyarrow

        text, numbers = pyarrow.string(), pyarrow.list_(pyarrow.uint64())
        columns = dict.fromkeys(("id", "title", "text", "edits", "fault", "passage"), text)
        columns |= dict.fromkeys(self._compared, numbers)
        cleaner, keys = self._cleaner(self._items()), array("Q")
        with write_rows(self._prepared(rank), pyarrow.schema(columns)) as write:
            for document in read_files(self._files(rank), self.schema):
                prepared = cleaner.prepare(document)
                version, edits = prepared.version, json.dumps(prepared.edits)
                row: dict[str, Any] = {"id": prepared.id, "title": prepared.title, "text": version.text.text}
                row |= {"edits": edits, "fault": version.fault, "passage": version.passage}
                if not version.fault:
                    for step in self._compared:
                        row[step] = version.text.keys(step)
                        keys.frombytes(row[step].tobytes())
                write(row)
        _save(self._keys(rank), np.sort(np.frombuffer(keys, np.uint64)))

    def share(self, rank: int) -> None:
        """Find the keys that occur in more than one place, in a task's range of keys."""
        import numpy as np

        first, last = (rank << 64) // self.n_tasks, (rank + 1 << 64) // self.n_tasks - 1
        parts = []
        for task in range(self.n_tasks):
            keys = np.load(self._keys(task), mmap_mode="r")
            begin, end = np.searchsorted(keys, np.uint64(first)), np.searchsorted(keys, np.uint64(last), side="right")
            parts.append(keys[begin:end])
        keys, counts = np.unique(np.concatenate(parts), return_counts=True)
        _save(self._keys(rank, "all"), keys)
        _save(self._keys(rank, "shared"), keys[counts > 1])

    def decide(self) -> None:
        """Decide on the documents with shared keys, in document order."""
        import numpy as np

        shared = np.concatenate([np.load(self._keys(rank, "shared")) for rank in range(self.n_tasks)])
        while True:
            new = np.unique(self._decide(shared))
            new = new[~_holds(shared, new)]
            known = [new[_holds(np.load(self._keys(rank, "all"), mmap_mode="r"), new)] for rank in range(self.n_tasks)]
            if not sum(map(len, known)):
                return
            shared = np.union1d(shared, np.concatenate(known))

    def _decide(self, shared: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Decide, given the shared keys; return the keys of texts that were created meanwhile, (any,) uint64."""
        import numpy as np
        import pyarrow

        text = pyarrow.string()
        columns = dict.fromkeys(("reason", "detail", "edits", "text"), text)
        columns |= {"number": pyarrow.int64(), "repeated_lines": pyarrow.list_(text)}
        cleaner, new = self._cleaner(self._items()), [np.zeros(0, np.uint64)]
        for rank in range(self.n_tasks):
            with write_rows(self._decided(rank), pyarrow.schema(columns)) as write:
                for number, old, shares in self._sharing(rank, shared):
                    cleaned = cleaner.decide(_prepared(old), shares)
                    row = {"number": number, "reason": cleaned.reason, "detail": cleaned.detail}
                    row |= {"edits": json.dumps(cleaned.edits), "text": cleaned.document.text}
                    write(row | {"repeated_lines": cleaned.repeated_lines})
                    if cleaned.repeated_lines and cleaned.document.text.strip():
                        signature = TextSignature(cleaned.document.text)
                        new += (np.setdiff1d(signature.keys(step), old[step]) for step in self._compared)
        return np.concatenate(new)

    def _sharing(self, rank: int, shared: npt.NDArray[np.uint64]) -> Iterator[tuple[int, dict[str, Any], list[str]]]:
        """Yield a task's documents with shared keys: number, prepared row, and the steps whose keys are shared."""
        import numpy as np

        start = 0
        with open_parquet(self._prepared(rank)) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                shares = {}
                for name in self._compared:
                    lists = batch.column(name)
                    held = _holds(shared, lists.flatten().to_numpy())
                    rows = np.repeat(np.arange(len(lists)), lists.value_lengths().fill_null(0).to_numpy())
                    shares[name] = np.bincount(rows, held, len(lists)) > 0
                some = np.flatnonzero(np.logical_or.reduce([*shares.values(), np.zeros(batch.num_rows, bool)]))
                for number, row in zip(some.tolist(), batch.take(some).to_pylist(), strict=True):
                    yield start + number, row, [name for name in shares if shares[name][number]]
                start += batch.num_rows

    def write(self, rank: int) -> None:
        """Write the kept documents of a task's files, and the counts."""
        cleaner = self._cleaner(self._items())
        counts = DataReport(cleaner.reasons, cleaner.edits)
        documents = read_files(self._files(rank), self.schema)
        prepared = _rows(self._prepared(rank), ["id", "title", "text", "edits", "fault", "passage"])
        decided = _rows(self._decided(rank))
        decision = next(decided, None)
        with write_documents(self._part(rank)) as keep:
            for number, (document, row) in enumerate(itertools.zip_longest(documents, prepared)):
                if not document or not row or document.id != row["id"]:
                    raise DataError(
                        "{data}: files changed after they were prepared; start again with another output",
                        data=self.data,
                    )
                if decision and decision["number"] == number:
                    cleaned = Cleaned(
                        document=Document(document.id, row["title"], decision["text"]),
                        reason=decision["reason"],
                        detail=decision["detail"],
                        edits=Counter(json.loads(decision["edits"])),
                        repeated_lines=decision["repeated_lines"],
                    )
                    decision = next(decided, None)
                else:
                    cleaned = cleaner.decide(_prepared(row), shares=())
                count(counts, document, cleaned)
                if not cleaned.reason:
                    keep(asdict(cleaned.document))
        write_json(self._counted(rank), counts.to_dict())

    def report(self) -> CleanReport:
        """Add up the counts of all tasks, write report.html, and remove temporary files."""
        started, items = time.perf_counter(), self._items()
        cleaner = self._cleaner(items)
        counts = DataReport(cleaner.reasons, cleaner.edits)
        for rank in range(self.n_tasks):
            with _reading(self._counted(rank)):
                counts.merge(read_json(self._counted(rank), Counted))
        files = [file for rank in range(self.n_tasks) for file in self._files(rank)]
        source = f"{noted_source(files)} ({self.split})"
        done = finished(counts, source, self.normalisation, self._steps, items, self.out, started)
        with atomic_write(self.out / "report.html") as file:
            file.write(html_page(done))
        for rank in range(self.n_tasks):
            write_provenance(self._part(rank), done.provenance(), [file.path for file in files])
        for folder in (self._prepared(0).parent, self._keys(0).parent, self._decided(0).parent):
            shutil.rmtree(folder, ignore_errors=True)
        remove_leftovers(self.out)  # of tasks that were killed
        return done

    # Paths

    @property
    def work(self) -> Path:
        """The folder for everything but the results."""
        return self.out / ".work"

    @property
    def _plan(self) -> Path:
        return self.work / "plan.json"

    def _prepared(self, rank: int) -> Path:
        return self.work / "prepared" / f"{rank:05}.parquet"

    def _keys(self, rank: int, which: str = "task") -> Path:
        return self.work / "keys" / f"{which}-{rank:05}.npy"

    def _decided(self, rank: int) -> Path:
        return self.work / "decided" / f"{rank:05}.parquet"

    def _counted(self, rank: int) -> Path:
        return self.work / "counts" / f"{rank:05}.json"

    def _part(self, rank: int) -> Path:
        return self.out / f"{self.split}-{rank:05}-of-{self.n_tasks:05}{self.format}"

    # Used by several stages

    @property
    def _steps(self) -> tuple[Step, ...]:
        return chosen_steps(self.without, self.only, self.against)

    def _settings(self) -> dict[str, Any]:
        """Return everything but the corpus that a task's files depend on, as JSON values."""
        settings: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return settings | {"data": without_secrets(self.data), "version": __version__}

    def _files(self, rank: int) -> list[SourceFile]:
        """Return the files of a task: a contiguous, equal part of all."""
        with _reading(self._plan):
            files = read_json(self._plan, _Plan).files
        first, last = (len(files) * at // self.n_tasks for at in (rank, rank + 1))
        return [SourceFile(Path(path), name, weight, source) for path, name, weight, source in files[first:last]]

    def _items(self) -> Contamination | None:
        return Contamination(read_items(self.against, self.schema)) if self.against else None

    def _cleaner(self, items: Contamination | None) -> Cleaner:
        return Cleaner(self._steps, self.normalisation, items)

    @property
    def _compared(self) -> list[Compared]:
        return [step for step in COMPARED if step in self._steps]


@dataclass(frozen=True)
class Stage:
    """A stage of `CleanTasks`. Call it with the number of a task, like a step of datatrove."""

    tasks: CleanTasks
    name: StageName

    @property
    def n_tasks(self) -> int:
        """The number of tasks."""
        return 1 if self.name in ("decide", "report") else self.tasks.n_tasks

    def __call__(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:  # noqa: ARG002  (datatrove)
        """Run one task; ``data``, which an earlier step of a datatrove pipeline would yield, is not used."""
        tasks = self.tasks
        if self.name == "decide":
            tasks.decide()
        elif self.name == "report":
            tasks.report()
        else:
            getattr(tasks, self.name)(rank)


@dataclass(frozen=True)
class _Plan(FromJSON, extra="ignore"):
    """The files of all tasks: path, name, weight and source of each."""

    files: list[Annotated[tuple[str, str, float, str], Lax()]]


@contextmanager
def _reading(note: Path) -> Iterator[None]:
    """Raise `DataError` if a file that the tasks wrote is damaged."""
    try:
        yield
    except ValueError as error:
        raise DataError(
            "{note} is damaged ({reason}); start again with another output", note=note, reason=error
        ) from None


def _rows(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a parquet file, with all columns or some."""
    with open_parquet(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            yield from batch.to_pylist()


def _prepared(row: dict[str, Any]) -> Prepared:
    version = Version(TextSignature(row["text"]), row["fault"], row["passage"])
    return Prepared(row["id"], row["title"], Counter(json.loads(row["edits"])), version)


def _save(path: Path, keys: npt.NDArray[np.uint64]) -> None:
    """Write an array atomically."""
    import numpy as np

    with atomic_write(path, "wb") as file:
        np.save(file, keys, allow_pickle=False)


def _holds(keys: npt.NDArray[np.uint64], wanted: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Return which of the wanted numbers are among sorted keys: (len(wanted),) bool."""
    import numpy as np

    held, order = np.zeros(len(wanted), bool), np.argsort(wanted)  # in sorted order it takes a seventh of the time
    if len(keys):
        places = np.minimum(np.searchsorted(keys, wanted[order]), len(keys) - 1)
        held[order] = keys[places] == wanted[order]
    return held
