"""Clean a corpus: pass documents through named steps, and count edits and dropped documents (by reason)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mamegpt.arguments import checked
from mamegpt.data.clean.counts import CleanReport, DataReport
from mamegpt.data.clean.dedup import Contamination, Duplicates, NearDuplicates, RepeatedLines, TextSignature
from mamegpt.data.clean.edits import EDITS, edit
from mamegpt.data.clean.filters import FILTERS
from mamegpt.data.clean.page import html_page, markdown_page
from mamegpt.data.clean.steps import STEPS, Normalisation, Step
from mamegpt.data.events import Counted
from mamegpt.data.provenance import forget_provenance, refuse_other_note, write_provenance
from mamegpt.data.readers.jsonl import json_lines
from mamegpt.data.readers.parquet import open_parquet
from mamegpt.data.readers.read import format_of
from mamegpt.data.schema import GUESS, Schema
from mamegpt.data.sources import Document, find_files, noted_source, read_documents, read_files
from mamegpt.data.writers import write_documents
from mamegpt.errors import ConfigError, DataError, OutputError
from mamegpt.messages import tally
from mamegpt.system.files import atomic_write
from mamegpt.system.outputs import check_outputs
from mamegpt.text.articles import parse_wiki40b
from mamegpt.text.normalize import normalize

__all__ = [
    "Cleaned",
    "Cleaner",
    "Prepared",
    "Version",
    "chosen_steps",
    "clean",
    "count",
    "finished",
    "read_items",
]

EMPTY = "empty"
"""The one reason that cannot be switched off: nothing of a document is left after the edits."""


@dataclass(frozen=True)
class Version:
    """A text, the rule that drops it ("" without one), and a passage it shares with a test item ("" without one)."""

    text: TextSignature
    fault: str
    passage: str


@dataclass(frozen=True)
class Prepared:
    """A document after the steps that look at one document alone; ``edits`` as in `Cleaned`."""

    id: str
    title: str
    edits: Counter[str]
    version: Version


@dataclass(frozen=True)
class Cleaned:
    """The result for one document: its title and text after cleaning, and why it is dropped ("" if it is kept).

    ``detail`` explains the reason: the id of the document it duplicates, or the passage it shares with a test item.
    ``edits`` has the number of places by edit, ``repeated_lines`` the lines that this step removed.
    """

    document: Document
    reason: str
    detail: str
    edits: Counter[str]
    repeated_lines: list[str]


class Cleaner:
    """Cleans documents one by one and remembers the kept ones. Cleaning its output again changes nothing."""

    def __init__(
        self,
        steps: Collection[Step] = STEPS,
        normalisation: Normalisation = "nfc",
        against: Contamination | None = None,
    ) -> None:
        """Take these ``steps``, always in the order of `STEPS`; "contamination" needs ``against``."""
        self._form = normalisation
        self._edits = [name for name in EDITS if name in steps]
        self._filters = {name: test for name, test in FILTERS.items() if name in steps}
        self._against = against if "contamination" in steps else None
        self._memories: dict[str, Duplicates | NearDuplicates | None] = {}  # None: `prepare` finds it
        if "duplicates" in steps:
            self._memories["duplicates"] = Duplicates()
        if self._against:
            self._memories["contamination"] = None
        if "near-duplicates" in steps:
            self._memories["near-duplicates"] = NearDuplicates()
        self._lines = RepeatedLines() if "repeated-lines" in steps else None
        self.reasons = [EMPTY, *self._filters, *self._memories]
        """All reasons for which this cleaner may drop a document."""
        self.edits = ["normalisation", *self._edits, *(["repeated-lines"] if self._lines else [])]
        """All edits that this cleaner may count."""

    def __call__(self, document: Document) -> Cleaned:
        """Clean one document."""
        return self.decide(self.prepare(document))

    def prepare(self, document: Document) -> Prepared:
        """Apply the steps that look at one document alone, so that many processes can do it, in any order."""
        title = " ".join(normalize(document.title, self._form).split())
        text, edits = edit(document.text, self._edits, self._form)
        return Prepared(document.id, title, edits, self._version(text))

    def decide(self, document: Prepared, shares: Collection[str] = STEPS) -> Cleaned:
        """Decide on a document, given the documents that were decided on before it.

        Of the steps that compare documents, only those in ``shares`` look at the text and remember it. Leaving a step
        out is correct if no other text, earlier or later, shares a number of `TextSignature.keys` with this one.
        """
        versions, edits, repeated = [(document.version, shares)], Counter(document.edits), list[str]()
        reason, detail = self._judge(*versions[0])
        if self._lines and "repeated-lines" in shares and not reason:
            shorter, repeated = self._lines.drop(document.version.text)
            if repeated:
                edits["repeated-lines"] = len(repeated)
                text, _ = edit(shorter, self._edits, self._form)
                versions.append((self._version(text), STEPS))
                reason, detail = self._judge(*versions[-1])
        if not reason:
            for version, steps in versions:  # with and without its repeated lines: a later document may resemble either
                self._remember(document.id, version.text, steps)
        new = Document(document.id, document.title, versions[-1][0].text.text)
        return Cleaned(new, reason, detail, edits, repeated)

    def _version(self, text: str) -> Version:
        """Apply the rules and look for test items in a text."""
        signature, fault = TextSignature(text), ""
        if not text.strip():
            fault = EMPTY
        else:
            fault = next((name for name, is_bad in self._filters.items() if is_bad(text)), "")
        passage = self._against.find(signature) if self._against and not fault else ""
        return Version(signature, fault, passage)

    def _judge(self, version: Version, shares: Collection[str]) -> tuple[str, str]:
        """Return the first reason to drop a text, and its detail; both are "" to keep it."""
        if version.fault:
            return version.fault, ""
        for name, memory in self._memories.items():
            found = version.passage if name == "contamination" else ""
            if memory and name in shares:
                found = memory.find(version.text)
            if found:
                return name, found
        return "", ""

    def _remember(self, document_id: str, text: TextSignature, shares: Collection[str]) -> None:
        """Remember a text, for later documents to be compared with."""
        for name, memory in self._memories.items():
            if memory and name in shares:
                memory.add(document_id, text)
        if self._lines and "repeated-lines" in shares:
            self._lines.add(text)


@checked
def clean(
    data: str | Path,
    out: str | Path,
    *,
    split: str = "train",
    normalisation: Normalisation = "nfc",
    without: Collection[Step] = (),
    only: Collection[Step] = (),
    against: Collection[str | Path] = (),
    write_dropped: str | Path | None = None,
    report: str | Path | None = None,
    schema: Schema = GUESS,
    overwrite: bool = False,
    on_event: Callable[[Counted], None] = lambda _: None,
) -> CleanReport:
    """Clean the documents of ``data`` (as in `read_documents`) and write the kept ones to ``out``, in their order.

    ``out`` is jsonl or parquet (with ``id``, ``title``, ``text``) or txt. ``without`` omits steps; ``only`` omits all
    other steps. ``against`` are files of test items (`read_items`). ``write_dropped`` (jsonl) receives the dropped
    documents as they were read, with ``reason`` and ``detail``; ``report`` (html or md) receives counts and samples.
    ``on_event`` is called with `Counted` every 100 documents. The same input gives the same files. They appear when
    everything is done, ``out`` last; a note next to ``out`` records how it was made (`data.provenance`).

    Raises `ConfigError` for options that contradict each other, `OutputError` for a place that cannot be written to,
    `DataError` if the corpus cannot be read or nothing of it is kept.
    """
    started = time.perf_counter()
    out = Path(out)
    write_dropped, report = (path if path is None else Path(path) for path in (write_dropped, report))
    steps = chosen_steps(without, only, against)
    _check_names(write_dropped, report)
    sources = find_files(data, split, schema)
    places = (out, write_dropped, report)
    check_outputs(places, [*(file.path for file in sources), *against], overwrite=overwrite)
    refuse_other_note(out)
    items = Contamination(read_items(against, schema)) if "contamination" in steps else None
    cleaner = Cleaner(steps, normalisation, items)
    counts = DataReport(cleaner.reasons, cleaner.edits)
    with ExitStack() as files:
        keep = files.enter_context(write_documents(out))
        drop = files.enter_context(write_documents(write_dropped)) if write_dropped else None
        for n_read, document in enumerate(read_files(sources, schema)):
            if n_read % 100 == 0:
                on_event(Counted(n_read, counts.after.n_documents))
            cleaned = cleaner(document)
            count(counts, document, cleaned)
            if not cleaned.reason:
                keep(asdict(cleaned.document))
            elif drop:
                original = {key: normalize(getattr(document, key), "none") for key in ("id", "title", "text")}
                drop(original | {"reason": cleaned.reason, "detail": cleaned.detail})
        done = finished(counts, f"{noted_source(sources)} ({split})", normalisation, steps, items, out, started)
        if report:
            page = html_page if report.suffix.lower() == ".html" else markdown_page
            files.enter_context(atomic_write(report)).write(page(done))
        forget_provenance(out)
    write_provenance(out, done.provenance(), (file.path for file in sources))
    return done


def finished(
    counts: DataReport,
    source: str,
    normalisation: Normalisation,
    steps: Sequence[Step],
    items: Contamination | None,
    out: Path,
    started: float,
) -> CleanReport:
    """Return the report of a corpus cleaned since ``started`` (`time.perf_counter`).

    Raises `DataError` if nothing of it is kept.
    """
    if not counts.before.n_documents:
        raise DataError("{source} holds no document at all; give one that does", source=source)
    if not counts.after.n_documents:
        raise DataError(
            "every document of {source} was dropped: {reasons}; leave a step out with --without",
            source=source,
            reasons=tally(counts.dropped),
        )
    return CleanReport(
        counts,
        out,
        time.perf_counter() - started,
        n_items=items.n_items if items else 0,
        n_items_too_short=items.n_too_short if items else 0,
        settings={"data": source, "steps": ", ".join([f"normalisation {normalisation}", *steps])},
    )


def read_items(files: Iterable[str | Path], schema: Schema = GUESS) -> Iterator[str]:
    """Yield the test items in files: the documents of a txt file; every string in jsonl and parquet, at any depth.

    Each question, choice and answer of a benchmark is therefore an item of its own. Titles are not items, because other
    articles mention them. Raises `DataError` for a file that is missing or cannot be read.
    """
    for path in map(Path, files):
        if not path.is_file():
            raise DataError("no file of test items {path}; give a jsonl, parquet or txt file", path=path)
        if format_of(path) == ".jsonl":
            values: Iterable[Any] = (value for _, value in json_lines(path, schema.encoding))
        elif format_of(path) == ".parquet":
            values = _parquet_rows(path)
        else:
            yield from (document.text for document in read_documents(path, schema=schema))
            continue
        for value in values:
            yield from (parse_wiki40b(string)[1] for string in _strings(value))


def _parquet_rows(path: Path) -> Iterator[Any]:
    with open_parquet(path) as file:
        for batch in file.iter_batches(256):
            yield from batch.to_pylist()


def _strings(value: Any) -> Iterator[str]:
    """Yield all strings in a JSON value, except those under the key "title"."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
    elif isinstance(value, dict):
        yield from _strings([part for key, part in value.items() if key != "title"])


def count(counts: DataReport, document: Document, cleaned: Cleaned) -> None:
    """Count one document, as read and as cleaned, in the report."""
    if not cleaned.reason:
        counts.keep(document.id, cleaned.document.title, document.text, cleaned.document.text, cleaned.edits)
        for line in cleaned.repeated_lines:
            counts.repeat(line)
        return
    counts.drop(cleaned.reason, document.id, cleaned.document.title, document.text, cleaned.detail)
    if cleaned.reason in ("duplicates", "near-duplicates"):
        counts.repeat(cleaned.document.text)


def chosen_steps(without: Collection[Step], only: Collection[Step], against: Collection[object]) -> tuple[Step, ...]:
    """Return the steps to take, in their order. Raises `ConfigError` for options that contradict each other."""
    if without and only:
        raise ConfigError("--without and --only contradict each other; give one of them")
    chosen = [name for name in STEPS if (name in only if only else name not in without)]
    if against and "contamination" not in chosen:
        raise ConfigError("--against is for the step contamination, which is left out; leave out one or the other")
    if not against:
        if "contamination" in only:
            raise ConfigError("--only contamination needs --against, the files to look for")
        chosen = [name for name in chosen if name != "contamination"]
    return tuple(chosen)


def _check_names(write_dropped: Path | None, report: Path | None) -> None:
    """Raise `OutputError` for a file name whose suffix does not fit its content, before any work is done."""
    if write_dropped and write_dropped.suffix.lower() != ".jsonl":
        raise OutputError(
            "{write_dropped}: dropped documents are written as .jsonl; name it so", write_dropped=write_dropped
        )
    if report and report.suffix.lower() not in (".html", ".md"):
        raise OutputError("{report}: a report is .html or .md; name it so", report=report)
