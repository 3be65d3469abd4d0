"""Results and events of the library as lines and tables for a person, in the user's language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mamegpt.system.console import n_cells, pad, table
from mamegpt.system.messages import translated

if TYPE_CHECKING:  # each of them is there when there is one to show, and may be slow to import
    from mamegpt.data.events import Reading
    from mamegpt.data.extract.extract import ExtractReport, Hit
    from mamegpt.data.readers.read import Layout

__all__ = ["count_table", "extract_report", "hit", "reading"]


def reading(event: Reading) -> str:
    """Return the line that says what is read, and how."""
    more = f" and {event.n_files - 1:,} more" if event.n_files > 1 else ""
    return f"reading {event.file}{more}: {_layout(event.layout)}"


def _layout(layout: Layout) -> str:
    """Where a file has its text and titles, in a few words."""
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


def hit(found: Hit) -> str:
    """Return a hit as one line."""
    return f"{found.id} 【{found.title}】 {found.context}"


def extract_report(report: ExtractReport) -> str:
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
    resumed = f", going on after {report.resumed:,} files of an earlier run" if report.resumed else ""
    return "\n".join([*lines, f"wrote {report.out} in {report.elapsed_s:.1f} s{resumed}"])


def count_table(rows: Sequence[tuple[str, str]]) -> str:
    """Return rows whose values begin with numbers as a table: these to the right, what follows translated."""
    width = max(len(value.split()[0]) for _, value in rows)
    return table([
        (name, " " * (width - len(value.split()[0])) + translated(value, part=True)) for name, value in rows
    ])  # fmt: skip
