"""Cut a topic out of a corpus: the documents that mention a keyword, cleaned, once each, in one file."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mamegpt import __version__
from mamegpt.arguments import checked
from mamegpt.data.events import Counted, Event, Reading
from mamegpt.data.extract.hash_set import HashSet64
from mamegpt.data.extract.resumable import ResumableWriter, resumable_writer
from mamegpt.data.extract.topic import Judgment, Topic
from mamegpt.data.provenance import Provenance, forget_provenance, refuse_other_note, write_provenance
from mamegpt.data.readers.read import describe, read_file
from mamegpt.data.readers.records import Batch
from mamegpt.data.schema import GUESS, Schema
from mamegpt.data.sources import SourceFile, find_files
from mamegpt.data.writers import write_documents
from mamegpt.errors import ConfigError, DataError, OutputError, first_line
from mamegpt.system.files import destination
from mamegpt.system.outputs import check_outputs
from mamegpt.text.articles import format_article
from mamegpt.text.folding import FoldedText
from mamegpt.text.normalize import normalize

__all__ = ["ExtractReport", "Hit", "extract", "preview_hits"]

PROGRESS_EVERY_DOCUMENTS = 1000
STEP_EVERY_S = 1.0
"""Seconds of work that a kill may cost; to note a step waits for the disk, which of many small files took longest."""


@dataclass(slots=True)
class ExtractReport:
    """What `extract` did: documents read, kept and dropped (by reason), and the size of what it wrote.

    ``hits`` are those in the documents as read that were kept, and ``documents`` how many of these have some, both by
    pattern. ``n_holes`` counts the sentences of all documents read in which an unknown template of a dump stood.
    ``resumed`` is how many files an earlier, interrupted run had done.
    """

    out: Path
    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: {"empty": 0, "no keyword": 0, "duplicate": 0})
    hits: dict[str, int] = field(default_factory=dict)
    documents: dict[str, int] = field(default_factory=dict)
    n_characters: int = 0
    n_bytes: int = 0
    n_holes: int = 0
    resumed: int = 0
    elapsed_s: float = 0.0

    def drop(self, reason: str, count: int = 1) -> None:
        """Add to the documents left out."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count


@dataclass(frozen=True)
class Hit:
    """A hit in a document by its id, and what stands around it in its line, as `Topic.contexts` marks it."""

    id: str
    title: str
    context: str


@checked
def extract(
    data: str | Path,
    topic: str | Topic,
    out: str | Path,
    *,
    split: str = "train",
    schema: Schema = GUESS,
    overwrite: bool = False,
    on_event: Callable[[Event], None] = lambda _: None,
) -> ExtractReport:
    """Write the documents of ``data`` that are of a topic to ``out``.

    ``data`` and ``split`` are as in `find_files`, but without weights. Titles and texts are brought to NFC
    (`normalize`); texts lose the line feeds at both ends. A topic that is a string is one keyword; it is looked for in
    title and text without regard to width and case (`fold`), so ﾌｧﾐｺﾝ finds ファミコン. Each document that is left out
    has one reason, counted in the report: those of `Topic.judge`, or ``duplicate`` (the same text was written already,
    but for width, case and white space; told by 64 bits of a hash, `HashSet64`'s 12 to 24 bytes of memory a document).

    The name of ``out`` says the format: ``.jsonl`` and ``.parquet`` hold ``id``, ``title`` and ``text``; all others are
    text in `format_article`'s format.

    ``out`` appears whole or not at all. With ``overwrite`` a file that is there is replaced when the new one is
    complete: a run that fails or is interrupted leaves the old one. After a file of ``data``, if a second has passed
    since the last time, what was done is noted in a hidden folder beside ``out``, and the same call goes on there. How
    ``out`` came about is noted in a file beside it (`data.provenance`). ``on_event`` is called with `Reading`,
    then with `Counted` every 1,000 documents or more, and at the end.

    Raises `ConfigError` for an empty keyword, `OutputError` if ``out`` is there already, cannot be written or is read,
    and `DataError` if the corpus cannot be read or nothing in it matches.
    """
    import stringzilla  # whose hash is in the keys that an interrupted run has written

    out, start_s = Path(out), time.perf_counter()
    topic = Topic((topic,)) if isinstance(topic, str) else topic
    files = find_files(data, split, schema)
    check_outputs([out], (file.path for file in files), overwrite=overwrite)
    refuse_other_note(out)
    if any(file.weight != 1 for file in files):
        raise ConfigError(f"{data}: a weight (@) has no use here, since no document is written twice; leave it out")
    on_event(_reading(files, schema))
    try:
        settings = [__version__, stringzilla.__version__, repr(topic), repr(schema), out.suffix]
        with destination(out) as place, resumable_writer(place, settings) as work:
            report = _run(files, topic, schema, out, work, on_event)
            if not report.kept:
                work.forget()
                if not report.read:
                    raise DataError(f"{data} ({split}) holds no document at all; give one that does")
                reasons = ", ".join(f"{reason} {count:,}" for reason, count in report.dropped.items() if count)
                raise DataError(
                    f"none of the {report.read:,} documents of {data} ({split}) is kept for "
                    f"{', '.join(map(repr, topic.patterns))} ({reasons}); "
                    f"try a shorter one, or ask for less ({out} was not touched)"
                )
            forget_provenance(out)
            if out.suffix.lower() == ".parquet":
                with (work.folder / "text").open(encoding="utf-8") as lines, write_documents(place) as write:
                    for line in lines:
                        write(json.loads(line))
            else:
                work.take("text", place)
            report.n_bytes = place.stat().st_size
        source = f"{data} ({split})"
        step = Provenance("extract", source, topic.settings(), report.read, report.kept, report.dropped)
        write_provenance(out, step, (file.path for file in files))
    except OSError as error:
        if isinstance(error, OutputError | BrokenPipeError):
            raise
        raise OutputError(f"{out} cannot be written ({first_line(error)}); choose another place") from error
    report.elapsed_s = time.perf_counter() - start_s
    return report


def preview_hits(
    data: str | Path,
    topic: Topic,
    n: int,
    *,
    split: str = "train",
    schema: Schema = GUESS,
    on_event: Callable[[Event], None] = lambda _: None,
) -> Iterator[Hit]:
    """Yield the first ``n`` hits of a topic; before them ``on_event`` is called with `Reading`."""
    files = find_files(data, split, schema)
    on_event(_reading(files, schema))
    hits = (
        Hit(f"{file.name}#{number}", title, context)
        for file in files
        for _, judged in _judged(file, topic, schema)
        for number, title, verdict in judged
        if not verdict.reason
        for context in topic.contexts(title, verdict.text)
    )
    yield from itertools.islice(hits, n)


def _run(
    files: list[SourceFile],
    topic: Topic,
    schema: Schema,
    out: Path,
    work: ResumableWriter,
    on_event: Callable[[Event], None],
) -> ExtractReport:
    """Write what is kept of all files that an earlier run has not done."""
    patterns = topic.patterns
    nothing = dict.fromkeys(patterns, 0)
    report = ExtractReport(out, hits=dict(nothing), documents=dict(nothing))
    inputs = hashlib.sha256()  # of all that the output depends on up to now
    if work.state is not None:
        for file in files[: work.state["report"]["resumed"]]:
            inputs.update(_identity(file))
        if inputs.hexdigest() == work.state["inputs"]:
            report = ExtractReport(**work.state["report"] | {"out": out})
        else:
            inputs = hashlib.sha256()
            work.forget()
    text, keys, noted_s = work.open("text"), work.open("keys"), time.perf_counter()
    seen = HashSet64(_numbers(work.folder / "keys"))
    as_json = out.suffix.lower() in (".jsonl", ".parquet")
    for done, file in enumerate(files[report.resumed :], report.resumed + 1):
        inputs.update(_identity(file))
        for batch, judged in _judged(file, topic, schema):
            written = list[str]()
            before, report.read = report.read, report.read + batch.n_read
            report.n_holes += batch.n_holes
            report.drop("no keyword", batch.n_read - len(judged) - sum(batch.dropped.values()))
            for reason, count in batch.dropped.items():
                report.drop(reason, count)
            for number, title, verdict in judged:
                if verdict.reason:
                    report.drop(verdict.reason)
                    continue
                if not seen.add(verdict.key):
                    report.drop("duplicate")
                    continue
                keys.write(verdict.key.to_bytes(8, "little"))
                article = format_article(title, verdict.text)
                record = {"id": f"{file.name}#{number}", "title": title, "text": verdict.text}
                written.append(json.dumps(record, ensure_ascii=False) + "\n" if as_json else article)
                _count(report, patterns, verdict, len(article))
            text.write("".join(written).encode())
            if report.read // PROGRESS_EVERY_DOCUMENTS > before // PROGRESS_EVERY_DOCUMENTS:
                on_event(Counted(report.read, report.kept))
        if done < len(files) and time.perf_counter() - noted_s >= STEP_EVERY_S:
            work.step({"inputs": inputs.hexdigest(), "report": asdict(report) | {"out": "", "resumed": done}})
            noted_s = time.perf_counter()
    text.flush()  # it is read again if it becomes parquet
    on_event(Counted(report.read, report.kept))
    return report


def _judged(file: SourceFile, topic: Topic, schema: Schema) -> Iterator[tuple[Batch, list[tuple[int, str, Judgment]]]]:
    """Yield each batch of a file, with the verdict on each of its documents."""
    for batch in read_file(file.path, schema, topic.needles()):
        judged = []
        for number, title, text in batch.records:
            title = normalize(title)
            judged.append((number, title, topic.judge(title, FoldedText(text))))
        yield batch, judged


def _count(report: ExtractReport, patterns: Sequence[str], verdict: Judgment, n_characters: int) -> None:
    """Add a kept document."""
    report.kept += 1
    report.n_characters += n_characters
    for pattern, hits in zip(patterns, verdict.hits, strict=True):
        report.hits[pattern] += hits
        report.documents[pattern] += hits > 0


def _identity(file: SourceFile) -> bytes:
    """Return what changes if a file is another one."""
    stat = file.path.stat()
    return repr((file.name, str(file.path), stat.st_size, stat.st_mtime_ns)).encode("utf-8", "surrogateescape")


def _reading(files: list[SourceFile], schema: Schema) -> Reading:
    return Reading(files[0].name, len(files), describe(files[0].path, schema))


def _numbers(path: Path) -> array[int]:
    """Return the 64-bit numbers in a file."""
    numbers = array("Q", path.read_bytes())
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
