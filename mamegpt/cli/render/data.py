"""What commands of text and tokenizers print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mamegpt.cli.console import columns, headings, n_cells, pad, table
from mamegpt.cli.messages import translated
from mamegpt.cli.render.next_step import next_step

if TYPE_CHECKING:  # each of them is there when there is one to show, and may be slow to import
    from mamegpt.data.clean.counts import CleanReport
    from mamegpt.data.events import Reading
    from mamegpt.data.extract.extract import ExtractReport, Hit
    from mamegpt.data.readers.read import Layout
    from mamegpt.data.sources import Downloaded
    from mamegpt.tokenizer.report import Comparison, TokenizerStats
    from mamegpt.tokenizer.tokenizer import TokenizerReport

__all__ = [
    "clean_table",
    "comparison_table",
    "download_table",
    "extract_table",
    "hit_line",
    "reading_line",
    "tokenizer_table",
    "vocabulary_table",
]

N_ODD = 8
"""Odd pieces shown of each kind."""


def reading_line(event: Reading) -> str:
    """Return the line that says what is read, and how."""
    more = f" and {event.n_files - 1:,} more" if event.n_files > 1 else ""
    return f"reading {event.file}{more}: {_layout(event.layout)}"


def _layout(layout: Layout) -> str:
    """Return where a file has its text and titles, in a few words."""
    match layout.kind:
        case "column":
            if layout.title:
                return f"text in column {layout.text!r}, title in {layout.title!r}"
            return f"text in column {layout.text!r}, no title column"
        case "key":
            if layout.title:
                return f"text under {layout.text!r}, title under {layout.title!r}"
            return f"text under {layout.text!r}, no title"
        case "article":
            return "articles headed 【title】"
        case "plain":
            return "plain text, cut at line ends"
        case "page":
            return "pages of a dump"
        case "none":
            return "no records"
    return f"one document a {layout.kind}"


def hit_line(found: Hit) -> str:
    """Return a hit as one line."""
    return f"{found.id} 【{found.title}】 {found.context}"


def extract_table(report: ExtractReport) -> str:
    """Return the counts as aligned lines, and what was written."""
    counts = {"read": report.read, "kept": report.kept}
    counts |= {f"dropped, {reason}": count for reason, count in report.dropped.items()}
    counts |= {f"hits, {pattern}": count for pattern, count in report.hits.items()}
    if report.n_holes:
        counts["sentences with a hole"] = report.n_holes
    counts |= {"characters": report.n_characters, "bytes": report.n_bytes}
    names = {name: translated(name) for name in counts}
    label, number = max(map(n_cells, names.values())), max(len(f"{count:,}") for count in counts.values())
    in_documents = {
        f"hits, {pattern}": " " + translated(f"in {count:,} documents", part=True)
        for pattern, count in report.documents.items()
    }
    lines = [
        f"{pad(names[name], label)}  {count:>{number},}{in_documents.get(name, '')}" for name, count in counts.items()
    ]
    return "\n".join([*lines, f"wrote {report.out} in {report.elapsed_s:.1f} s"])


def download_table(got: Downloaded) -> str:
    """Return where a data set lies, the rows, files and size of each split, and the next command."""
    rows = []
    for name, split in got.splits.items():
        count = "rows unknown" if split.rows is None else f"{split.rows:,} rows"
        rows.append((name, f"{count}, {len(split.files)} file(s), {split.bytes / 1e6:,.1f} MB"))
    place = translated(f"{got.name} lies in {got.folder}")
    extract = next_step("extract", "--dataset", got.name, "--keyword", "ファミコン", "--out", "topic.txt")
    return f"{place}\n{table(rows)}\n{translated(extract)}"


def clean_table(done: CleanReport) -> str:
    """Return the counts, and what was written."""
    from mamegpt.data.clean.page import count_rows

    wrote = translated(f"wrote {done.out} in {done.elapsed_s:.1f} s")
    return f"{_count_table(count_rows(done))}\n{wrote}"


def tokenizer_table(report: TokenizerReport) -> str:
    """Return what was trained on what, and how it cuts that text."""
    made = translated(
        f"{report.path}: {report.vocab_size:,} {report.model_type} pieces from {report.n_characters:,} characters "
        f"in {report.elapsed_s:.1f} s"
    )
    rows = [
        ("characters per token", f"{report.characters_per_token:.3f}"),
        ("byte-fallback tokens", f"{report.byte_fallback_rate:.3%}"),
        ("long lines split", f"{report.n_lines_split:,}"),
    ]
    return f"{made}\n{table(rows)}"


def _count_table(rows: Sequence[tuple[str, str]]) -> str:
    """Return rows whose values begin with numbers as a table: these to the right, what follows translated."""
    width = max(len(value.split()[0]) for _, value in rows)
    return table([
        (name, " " * (width - len(value.split()[0])) + translated(value, part=True)) for name, value in rows
    ])  # fmt: skip


def comparison_table(found: Comparison) -> str:
    """Return what tokenizers did to a text as a table, pieces of the first, and how each of them cuts words."""
    names = found.tokenizers
    labels = headings(*(name for name, _ in _stats_rows(found.fits[names[0]])))
    values = ([value for _, value in _stats_rows(found.fits[name])] for name in names)
    lines = [
        translated(f"{found.n_documents:,} documents, {found.n_characters:,} characters", part=True),
        columns(("", *names), list(zip(labels, *values, strict=True))),
    ]
    lines += ["", translated(f"longest pieces of {names[0]}", part=True)]
    lines.append("  " + " ".join(map(_with_spaces, found.longest)))
    for what, pieces in found.odd.items():
        lines.append(translated(f"{what}: {len(pieces):,} pieces", part=True))
        lines += ["  " + " ".join(map(_with_spaces, pieces[:N_ODD]))] if pieces else []
    lines += ["", translated("how words are cut", part=True)]
    cuts = [names, *found.splits]
    widths = [max(map(n_cells, column)) for column in zip(*cuts, strict=True)]
    lines += ["  " + "    ".join(map(pad, cut, widths)).rstrip() for cut in cuts]
    return "\n".join(lines)


def _stats_rows(stats: TokenizerStats) -> list[tuple[str, str]]:
    return [
        ("vocabulary", f"{stats.vocab_size:,}"),
        ("tokens", f"{stats.n_tokens:,}"),
        ("characters per token", f"{stats.characters_per_token:.3f}"),
        ("bytes per token", f"{stats.bytes_per_token:.3f}"),
        ("tokens of part of a character", f"{stats.byte_rate:.2%}"),
        ("unknown tokens", f"{stats.unknown_rate:.2%}"),
        ("vocabulary never used", f"{stats.unused_rate:.1%}"),
        ("documents that come back", f"{stats.round_trips:.2%}"),
    ]


def _with_spaces(piece: str) -> str:
    """Return a piece with its spaces and line feeds shown."""
    return piece.replace(" ", "␣").replace("\u3000", "□").replace("\n", "⏎").replace("\t", "⇥")


def vocabulary_table() -> str:
    """Return what each vocabulary was worth to each size of model, and which was best."""
    from mamegpt.tokenizer.vocab_size import best_vocab_sizes, vocabulary_runs

    runs = vocabulary_runs()
    bits = {(run.size, run.vocab_size): run.bits_per_character for run in runs}
    sizes, vocab_sizes = dict.fromkeys(run.size for run in runs), sorted({run.vocab_size for run in runs})
    best = best_vocab_sizes()
    rows = [[size, *(f"{bits[size, n]:.3f}" for n in vocab_sizes), f"{best[size]:,}"] for size in sizes]
    seconds = runs[0].processor_s
    return "\n".join([
        translated(
            f"bits per character by size of vocabulary, after {seconds} s of processor time each (Japanese Wikipedia)",
            part=True,
        ),
        columns([*headings("size"), *(f"{n:,}" for n in vocab_sizes), *headings("best")], rows),
    ])  # fmt: skip
