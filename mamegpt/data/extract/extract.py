"""Extract a topic from a corpus: the documents that mention a keyword, cleaned and without duplicates, in one file."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mamegpt.arguments import checked
from mamegpt.data.events import Counted, Event, Reading
from mamegpt.data.extract.topic import Judgment, Topic
from mamegpt.data.provenance import Provenance, forget_provenance, refuse_other_note, write_provenance
from mamegpt.data.readers.read import describe, read_file
from mamegpt.data.readers.records import Batch
from mamegpt.data.schema import GUESS, Schema
from mamegpt.data.sources import SourceFile, find_files, noted_source
from mamegpt.data.writers import OUTPUT_FORMATS, refuse_failed_write, write_documents
from mamegpt.errors import ConfigError, DataError
from mamegpt.messages import tally
from mamegpt.system.files import destination, remove_leftovers
from mamegpt.system.outputs import check_outputs
from mamegpt.text.articles import format_article
from mamegpt.text.normalize import normalize

__all__ = ["ExtractReport", "Hit", "extract", "preview_hits"]

PROGRESS_EVERY_DOCUMENTS = 1000


@dataclass(slots=True)
class ExtractReport:
    """Result of `extract`: documents read, kept and dropped (by reason), and the size of the output.

    ``hits`` counts the hits in the kept documents, as they were read, and ``documents`` the kept documents with a hit,
    both by pattern. ``n_holes`` counts the sentences, in all documents read, that contained an unknown template of a
    dump.
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
    elapsed_s: float = 0.0

    def drop(self, reason: str, count: int = 1) -> None:
        """Add to the counts of dropped documents."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count


@dataclass(frozen=True)
class Hit:
    """A hit: the id of its document, and the text around it in its line, as `Topic.contexts` marks it."""

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
    """Write the documents of ``data`` that match a topic to ``out``.

    ``data`` and ``split`` are as in `find_files`, but without weights. Titles and texts are normalized to NFC
    (`normalize`), and line feeds at both ends of a text are removed. A topic that is a string is one keyword, searched
    in title and text regardless of width and case (`spellings`): ﾌｧﾐｺﾝ finds ファミコン. Each dropped document has one
    reason, counted in the report: one of `Topic.judge`, or ``duplicate`` if the same text, white space aside, was
    already written (detected by a 64-bit hash, which takes some 80 bytes of memory per document). `clean` also finds
    duplicates that differ in width and case.

    The suffix of ``out`` determines the format: ``.jsonl`` and ``.parquet`` have ``id``, ``title`` and ``text``; all
    others are text in the format of `format_article`.

    ``out`` is written atomically. With ``overwrite``, an existing file is replaced when the new one is complete, and
    stays if the extraction fails or is interrupted. A note next to ``out`` records how it was made (`data.provenance`).
    ``on_event`` is called with `Reading`, then with `Counted` every 1,000 documents or more, and at the end.

    Raises `ConfigError` for an empty keyword, `OutputError` if ``out`` exists, cannot be written or is read, and
    `DataError` if the corpus cannot be read or nothing in it matches.
    """
    out, start_s = Path(out), time.perf_counter()
    topic = Topic((topic,)) if isinstance(topic, str) else topic
    files = find_files(data, split, schema)
    check_outputs([out], (file.path for file in files), overwrite=overwrite)
    refuse_other_note(out)
    if any(file.weight != 1 for file in files):
        raise ConfigError(
            "{data}: a weight (@) has no use here, since no document is written twice; leave it out", data=data
        )
    on_event(_reading(files, schema))
    suffix = out.suffix.lower() if out.suffix.lower() in OUTPUT_FORMATS else ".txt"
    with refuse_failed_write(out):
        with destination(out) as place:
            remove_leftovers(place.parent)
            with write_documents(place, suffix) as write:
                report = _run(files, topic, schema, out, write, on_event)
                if not report.read:
                    raise DataError(
                        "{data} ({split}) holds no document at all; give one that does", data=data, split=split
                    )
                if not report.kept:
                    raise DataError(
                        "none of the {read:,} documents of {data} ({split}) matches {names} ({reasons}); try a "
                        "shorter keyword or weaker conditions ({out} was not changed)",
                        read=report.read,
                        data=data,
                        split=split,
                        names=", ".join(map(repr, topic.patterns)),
                        reasons=tally(report.dropped),
                        out=out,
                    )
                check_outputs([out], overwrite=overwrite)  # another process may have written it
                forget_provenance(out)
            report.n_bytes = place.stat().st_size
        source = f"{noted_source(files)} ({split})"
        step = Provenance("extract", source, topic.settings(), report.read, report.kept, report.dropped)
        write_provenance(out, step, (file.path for file in files))
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
    """Yield the first ``n`` hits of a topic, after a call of ``on_event`` with `Reading`."""
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
    write: Callable[[dict[str, str]], object],
    on_event: Callable[[Event], None],
) -> ExtractReport:
    """Write the kept documents of all files."""
    patterns = topic.patterns
    report = ExtractReport(out, hits=dict.fromkeys(patterns, 0), documents=dict.fromkeys(patterns, 0))
    seen = set[int]()
    for file in files:
        for batch, judged in _judged(file, topic, schema):
            before, report.read = report.read, report.read + batch.n_read
            report.n_holes += batch.n_holes
            report.drop("no keyword", batch.n_read - len(judged) - sum(batch.dropped.values()))
            for reason, count in batch.dropped.items():
                report.drop(reason, count)
            for number, title, verdict in judged:
                if verdict.reason:
                    report.drop(verdict.reason)
                    continue
                key = hash("".join(verdict.text.split()))
                if key in seen:
                    report.drop("duplicate")
                    continue
                seen.add(key)
                write({"id": f"{file.name}#{number}", "title": title, "text": verdict.text})
                _count(report, patterns, verdict, len(format_article(title, verdict.text)))
            if report.read // PROGRESS_EVERY_DOCUMENTS > before // PROGRESS_EVERY_DOCUMENTS:
                on_event(Counted(report.read, report.kept))
    on_event(Counted(report.read, report.kept))
    return report


def _judged(file: SourceFile, topic: Topic, schema: Schema) -> Iterator[tuple[Batch, list[tuple[int, str, Judgment]]]]:
    """Yield each batch of a file, with the verdict on each of its documents."""
    for batch in read_file(file.path, schema, topic.row_expressions()):
        judged = []
        for number, title, text in batch.records:
            title = normalize(title)
            judged.append((number, title, topic.judge(title, normalize(text))))
        yield batch, judged


def _count(report: ExtractReport, patterns: Sequence[str], verdict: Judgment, n_characters: int) -> None:
    """Count a kept document."""
    report.kept += 1
    report.n_characters += n_characters
    for pattern, hits in zip(patterns, verdict.hits, strict=True):
        report.hits[pattern] += hits
        report.documents[pattern] += hits > 0


def _reading(files: list[SourceFile], schema: Schema) -> Reading:
    return Reading(files[0].name, len(files), describe(files[0].path, schema))
