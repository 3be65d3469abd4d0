"""Output of the commands for text and tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mamegpt.cli.console import columns, headings, n_cells, pad, table
from mamegpt.cli.language import translated
from mamegpt.cli.render.next_step import next_step
from mamegpt.messages import Message, msg

if TYPE_CHECKING:  # these are imported anyway when there is one to show, and may be slow
    from mamegpt.data.clean.counts import CleanReport
    from mamegpt.data.events import Reading
    from mamegpt.data.extract.extract import ExtractReport, Hit
    from mamegpt.data.readers.read import Layout
    from mamegpt.data.sources import Downloaded, SplitInfo
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
"""Unusual tokens shown of each kind."""


def reading_line(event: Reading) -> str:
    """Return the line that names the files to read, and how they are read."""
    more = msg(" and {n:,} more", n=event.n_files - 1) if event.n_files > 1 else ""
    return msg("reading {file}{more}: {layout}", file=event.file, more=more, layout=_layout(event.layout))


def _layout(layout: Layout) -> str:
    """Describe where a file has its text and titles."""
    match layout.kind:
        case "column":
            if layout.title:
                return msg("text in column {text!r}, title in {title!r}", text=layout.text, title=layout.title)
            return msg("text in column {text!r}, no title column", text=layout.text)
        case "key":
            if layout.title:
                return msg("text under {text!r}, title under {title!r}", text=layout.text, title=layout.title)
            return msg("text under {text!r}, no title", text=layout.text)
        case "article":
            return msg("articles headed 【title】")
        case "plain":
            return msg("plain text, split at line ends")
        case "page":
            return msg("pages of a dump")
        case "none":
            return msg("no records")
    return msg("one document per {kind}", kind=Message(layout.kind))


def hit_line(found: Hit) -> str:
    """Return a hit as one line."""
    return f"{found.id} 【{found.title}】 {found.context}"


def extract_table(report: ExtractReport) -> str:
    """Return the counts as aligned lines, and the output file."""
    rows = [(msg("read"), report.read, ""), (msg("kept"), report.kept, "")]
    rows += [(msg("dropped, {reason}", reason=Message(reason)), n, "") for reason, n in report.dropped.items()]
    for pattern, n in report.hits.items():
        documents = msg("in {n:,} documents", n=report.documents[pattern])
        rows.append((msg("hits, {pattern}", pattern=pattern), n, f" {translated(documents)}"))
    if report.n_holes:
        rows.append((msg("sentences with a hole"), report.n_holes, ""))
    rows += [(msg("characters"), report.n_characters, ""), (msg("bytes"), report.n_bytes, "")]
    names = headings(*(name for name, _, _ in rows))
    width, digits = max(map(n_cells, names)), max(len(f"{n:,}") for _, n, _ in rows)
    lines = [
        f"{pad(name, width)}  {n:>{digits},}{documents}" for name, (_, n, documents) in zip(names, rows, strict=True)
    ]
    wrote = msg("wrote {out} in {elapsed_s:.1f} s", out=report.out, elapsed_s=report.elapsed_s)
    return "\n".join([*lines, translated(wrote)])


def download_table(got: Downloaded) -> str:
    """Return the location of a dataset, the rows, files and size of each split, and the next command."""
    rows = []
    for name, split in got.splits.items():
        rows.append((name, translated(_split_size(split))))
    place = translated(msg("{name} is in {folder}", name=got.name, folder=got.folder))
    extract = next_step("extract", "--dataset", got.name, "--keyword", "ファミコン", "--out", "topic.txt")
    return f"{place}\n{table(rows)}\n{translated(extract)}"


def _split_size(split: SplitInfo) -> Message:
    """Return the rows (if they are known), files and size of a split."""
    n_files, megabytes = len(split.files), split.bytes / 1e6
    if split.rows is None:
        return msg("{n_files} file(s), {megabytes:,.1f} MB", n_files=n_files, megabytes=megabytes)
    return msg(
        "{n_rows:,} rows, {n_files} file(s), {megabytes:,.1f} MB",
        n_rows=split.rows,
        n_files=n_files,
        megabytes=megabytes,
    )


def clean_table(done: CleanReport) -> str:
    """Return the counts, and the output files."""
    from mamegpt.data.clean.page import count_rows

    wrote = translated(msg("wrote {out} in {elapsed_s:.1f} s", out=done.out, elapsed_s=done.elapsed_s))
    return f"{_count_table(count_rows(done))}\n{wrote}"


def chosen_vocabulary(report: TokenizerReport) -> str:
    """Return why a tokenizer has its vocabulary size, which was chosen."""
    assert report.for_minutes is not None
    return msg(
        "vocabulary size {vocab_size:,}, chosen for {minutes:.3g} minutes of training on {n_characters:,} characters",
        vocab_size=report.vocab_size,
        minutes=report.for_minutes,
        n_characters=report.n_characters,
    )


def tokenizer_table(report: TokenizerReport) -> str:
    """Return the result of training a tokenizer, with its statistics on the training text."""
    made = translated(
        msg(
            "{path}: {model_type}, vocabulary size {vocab_size:,}, trained on {n_characters:,} "
            "characters in {elapsed_s:.1f} s",
            path=report.path,
            vocab_size=report.vocab_size,
            model_type=report.model_type,
            n_characters=report.n_characters,
            elapsed_s=report.elapsed_s,
        )
    )
    if report.for_minutes is not None:
        made = f"{translated(chosen_vocabulary(report))}\n{made}"
    rows = [
        (msg("character coverage (the rest: bytes)"), f"{report.character_coverage:.2%}"),
        (msg("characters per token"), f"{report.characters_per_token:.3f}"),
        (msg("byte-fallback tokens"), f"{report.byte_fallback_rate:.3%}"),
        (msg("long lines split"), f"{report.n_lines_split:,}"),
    ]
    return f"{made}\n{table(rows)}"


def _count_table(rows: Sequence[tuple[str, str]]) -> str:
    """Return rows as a table: numbers right-aligned, the rest of the values translated."""
    width = max(len(value.split()[0]) for _, value in rows)
    return table([(name, " " * (width - len(value.split()[0])) + translated(value)) for name, value in rows])


def comparison_table(found: Comparison) -> str:
    """Return the comparison of tokenizers as a table, unusual tokens of the first, and how each splits words."""
    names = found.tokenizers
    labels = headings(*(name for name, _ in _stats_rows(found.fits[names[0]])))
    values = ([value for _, value in _stats_rows(found.fits[name])] for name in names)
    lines = [
        translated(
            msg(
                "{n_documents:,} documents, {n_characters:,} characters",
                n_documents=found.n_documents,
                n_characters=found.n_characters,
            )
        ),
        columns(("", *names), list(zip(labels, *values, strict=True))),
    ]
    lines += ["", translated(msg("longest tokens of {name}", name=names[0]))]
    lines.append("  " + " ".join(map(_with_spaces, found.longest)))
    for what, pieces in found.odd.items():
        lines.append(translated(msg("{what}: {n:,} tokens", what=what, n=len(pieces))))
        lines += ["  " + " ".join(map(_with_spaces, pieces[:N_ODD]))] if pieces else []
    lines += ["", translated(msg("how words are split"))]
    cuts = [names, *found.splits]
    widths = [max(map(n_cells, column)) for column in zip(*cuts, strict=True)]
    lines += ["  " + "    ".join(map(pad, cut, widths)).rstrip() for cut in cuts]
    return "\n".join(lines)


def _stats_rows(stats: TokenizerStats) -> list[tuple[str, str]]:
    return [
        (msg("vocabulary"), f"{stats.vocab_size:,}"),
        (msg("tokens"), f"{stats.n_tokens:,}"),
        (msg("characters per token"), f"{stats.characters_per_token:.3f}"),
        (msg("bytes per token"), f"{stats.bytes_per_token:.3f}"),
        (msg("tokens of less than a character"), f"{stats.byte_rate:.2%}"),
        (msg("unknown tokens"), f"{stats.unknown_rate:.2%}"),
        (msg("vocabulary never used"), f"{stats.unused_rate:.1%}"),
        (msg("documents restored exactly"), f"{stats.round_trips:.2%}"),
    ]


def _with_spaces(piece: str) -> str:
    """Return a token with its spaces and line feeds visible."""
    return piece.replace(" ", "␣").replace("\u3000", "□").replace("\n", "⏎").replace("\t", "⇥")


def vocabulary_table() -> str:
    """Return the measured quality of each vocabulary size for each model size, with the best."""
    from mamegpt.tokenizer.vocab_size import best_vocab_sizes, vocabulary_runs

    runs = vocabulary_runs()
    bits = {(run.size, run.vocab_size): run.bits_per_character for run in runs}
    sizes, vocab_sizes = dict.fromkeys(run.size for run in runs), sorted({run.vocab_size for run in runs})
    best = best_vocab_sizes()
    rows = [[size, *(f"{bits[size, n]:.3f}" for n in vocab_sizes), f"{best[size]:,}"] for size in sizes]
    seconds = runs[0].processor_s
    return "\n".join(
        [
            translated(
                msg(
                    "bits per character by vocabulary size, after {seconds} s of processor time each (Japanese "
                    "Wikipedia)",
                    seconds=seconds,
                )
            ),
            columns([*headings(msg("size")), *(f"{n:,}" for n in vocab_sizes), *headings(msg("best"))], rows),
        ]
    )
