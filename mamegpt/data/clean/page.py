"""Render a data report for people: one HTML file in Japanese and English, light and dark; or Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from markupsafe import Markup

from mamegpt.data.clean.counts import CleanReport, CorpusCounts, DataReport
from mamegpt.messages import Message, msg
from mamegpt.pages.chart import Bars, bar_chart
from mamegpt.pages.render import render
from mamegpt.text.characters import CLASSES

__all__ = ["count_rows", "html_page", "markdown_page"]

N_TOP = 12


def count_rows(cleaned: CleanReport, arrow: str = "->") -> list[tuple[str, str]]:
    """Return the counts as a table of two columns, with an arrow between what was and what is."""
    report, before, after = cleaned.data, cleaned.data.before, cleaned.data.after
    rows: list[tuple[str, str]] = [(msg("read"), f"{before.n_documents:,}"), (msg("kept"), f"{after.n_documents:,}")]
    rows += [(msg("dropped, {reason}", reason=Message(reason)), f"{n:,}") for reason, n in report.dropped.items()]
    rows += [
        (
            msg("edited, {name}", name=Message(name)),
            msg("{n:,} documents, {n_places:,} places", n=n, n_places=report.edited_places[name]),
        )
        for name, n in report.edited_documents.items()
    ]
    rows.append((msg("characters"), f"{before.n_characters:,} {arrow} {after.n_characters:,}"))
    rows.append((msg("bytes"), f"{before.n_bytes:,} {arrow} {after.n_bytes:,}"))
    if cleaned.n_items or cleaned.n_items_too_short:
        rows.append(
            (
                msg("test items"),
                msg("{n:,} looked for, {n_short:,} too short", n=cleaned.n_items, n_short=cleaned.n_items_too_short),
            )
        )
    return rows


def html_page(cleaned: CleanReport) -> str:
    """Return the whole page; all text of documents is escaped."""
    report = cleaned.data
    lengths = [(name, a, b, _commas(a, b)) for name, a, b in _length_rows(report)]
    classes = [(Message(name), a, b, f"{a:.2%} → {b:.2%}") for name, a, b in _class_rows(report)]
    return render(
        "mamegpt.data.clean",
        "page.html",
        settings=cleaned.settings,
        counts=count_rows(cleaned, "→"),
        dropped=[(Message(reason), n, report.samples[reason]) for reason, n in report.dropped.items() if n],
        repeated=report.repeated.most_common(N_TOP),
        kept=report.samples[""],
        lengths=_bars(lengths),
        classes=_bars(classes),
        commas=_commas,
    )


def markdown_page(cleaned: CleanReport) -> str:
    """Return the same as Markdown, in English; texts of documents are quoted."""
    report, settings = cleaned.data, cleaned.settings
    parts = ["# Data report", *(f"{name}: {value}  " for name, value in settings.items()), "", "## Counts", ""]
    parts += _markdown_table(("what", "count"), count_rows(cleaned))
    parts += ["", "## Length of documents (characters)", ""]
    parts += _markdown_table(
        ("characters", "before", "after"), [(name, f"{a:,.0f}", f"{b:,.0f}") for name, a, b in _length_rows(report)]
    )
    parts += ["", "## Classes of characters", ""]
    parts += _markdown_table(
        ("class", "before", "after"), [(name, f"{a:.2%}", f"{b:.2%}") for name, a, b in _class_rows(report)]
    )
    if report.repeated:
        parts += ["", "## Most frequent duplicates (copies removed)", ""]
        top = report.repeated.most_common(N_TOP)
        parts += _markdown_table(("copies", "text"), [(f"{n:,}", _one_line(text)) for text, n in top])
    samples = {"kept": report.samples[""]}
    samples |= {f"dropped, {reason}": report.samples[reason] for reason, n in report.dropped.items() if n}
    for name, shown in samples.items():
        parts += ["", f"## Samples: {name}", ""]
        for sample in shown:
            why = f" ({_one_line(sample.detail)})" if sample.detail else ""
            parts += [f"> **{_one_line(sample.title)}**{why} {_one_line(sample.text)}", ""]
    return "\n".join([*parts, ""])


def _length_rows(report: DataReport) -> list[tuple[str, float, float]]:
    """Return (range of lengths, documents before, documents after), from the shortest to the longest that occur."""
    before, after = report.before.lengths, report.after.lengths
    powers = range(min(before, default=0), max([*before, *after], default=0) + 1)
    return [(f"{2**k if k else 0:,}-{2 ** (k + 1) - 1:,}", before[k], after[k]) for k in powers]


def _class_rows(report: DataReport) -> list[tuple[str, float, float]]:
    """Return (class of characters, share of characters before, share after)."""

    def share(corpus: CorpusCounts, name: str) -> float:
        return corpus.classes[name] / max(1, corpus.n_characters)

    return [(name, share(report.before, name), share(report.after, name)) for name in CLASSES]


def _bars(rows: Sequence[tuple[str, float, float, str]]) -> Markup:
    """Draw two bars a row, before and after; rows are (name, before, after, both as text)."""
    return bar_chart([Bars(name, [(a, "plain"), (b, "c0")], text) for name, a, b, text in rows])


def _commas(*numbers: float) -> str:
    """Return numbers for people, with arrows between them."""
    return " → ".join(f"{n:,.0f}" for n in numbers)


def _markdown_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [names, ["---"] * len(names), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _one_line(text: str) -> str:
    """Return a text as one line in which Markdown sees no HTML."""
    return escape(" ".join(text.split()), quote=False)
