"""What commands of a trained model print."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from mamegpt.cli.console import busy, columns, say, table
from mamegpt.cli.messages import translated

if TYPE_CHECKING:
    from mamegpt.evaluation.evaluate import Evaluation, Measuring
    from mamegpt.exporting.checks import Check
    from mamegpt.exporting.export import Exporting, ExportReport
    from mamegpt.exporting.upload import Upload
    from mamegpt.playground.server import Serving
    from mamegpt.report.write import WritingSamples
    from mamegpt.training.validation import Verdict

__all__ = [
    "check_table",
    "evaluation_table",
    "export_line",
    "measuring_line",
    "samples_line",
    "serving_line",
    "show_export",
    "upload_table",
    "verdict_line",
]

MAX_TRAINED_ON = 0.05
"""Share of held-out documents that may be in the training text unmarked: short ones are there twice by chance."""


def measuring_line(event: Measuring) -> str:
    """Return the line that says what is measured next."""
    if event.what == "likelihoods":
        return f"{event.model}: texts, minimal pairs, cloze ..."
    if event.what == "continuations":
        return f"{event.model} writes ..."
    return "training text, and an n-gram model of it ..."


def evaluation_table(found: Evaluation) -> str:
    """Return one table, a column a model, and how to read it."""
    from mamegpt.training.validation import verdict

    results = [*found.models, *([found.baseline] if found.baseline else [])]
    rows: list[tuple[str, list[str]]] = []
    for text in results[0].text:
        of = f", {text}" if len(results[0].text) > 1 else ""
        rows.append((f"bits per character{of}", [f"{r.text[text].bits_per_character:.4f}" for r in results]))
        rows.append((f"bits per byte{of}", [f"{r.text[text].bits_per_byte:.4f}" for r in results]))
    rows.append(("minimal pairs", [str(r.pairs.total) for r in results]))
    for name in results[0].pairs.by_phenomenon:
        rows.append((f"  {translated(name, part=True)}", [str(r.pairs.by_phenomenon[name]) for r in results]))
    rows.append(("minimal pairs, per character", [str(r.pairs.per_character) for r in results]))
    if results[0].cloze:
        rows.append(("cloze", [str(r.cloze) for r in results]))
    if found.baseline:
        rows.append(("recited", [_percent(r.recited) for r in results]))
        itself = translated("held-out text itself", part=True)
        rows.append((f"  {itself}", [_percent(found.heldout_recited)] * len(results)))
    notes = [translated("±: one standard error; by chance, 50% of minimal pairs are right and 25% of cloze")]
    if found.baseline:
        notes.append(translated("recited: strings of 20 characters it writes that occur in the training text"))
    for text in list(results[0].text)[:1]:
        baseline = found.baseline.text[text].bits_per_character if found.baseline else None
        for r in found.models:
            line = translated(verdict_line(verdict(r.text[text].bits_per_character, baseline)))
            notes.append(f"{r.name}: {line}" if len(found.models) > 1 else line)
    if found.heldout_trained_on > MAX_TRAINED_ON:
        notes.append(
            translated(
                f"warning: {found.heldout_trained_on:.0%} of the held-out documents are in the training text, so "
                "these figures are not of held-out text; give other text to --data"
            )
        )
    lines = [(translated(name, part=True), *cells) for name, cells in rows]
    return "\n".join([columns(("", *(r.name for r in results)), lines), *notes])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def verdict_line(judged: Verdict) -> str:
    """Return what bits per character mean, and whether they are better than an n-gram model's."""
    found = [f"{judged.bits:.3f} bits per character: as uncertain as a choice among {judged.choices:.1f} characters"]
    if judged.kind == "better":
        found.append(f"better than the n-gram model's {judged.baseline:.3f} bits")
    if judged.kind == "worse":
        found.append(f"no better than the n-gram model's {judged.baseline:.3f} bits: more training would help")
    return "; ".join(found)


def samples_line(event: WritingSamples) -> str:
    """Return the line that says which checkpoint writes."""
    return f"{event.checkpoint} writes samples ..."


def serving_line(event: Serving) -> str:
    """Return the line that says where the playground is, and with which model it opens."""
    return f"http://{event.host}:{event.port}/  ({event.model}; Ctrl-C ends it)"


@contextmanager
def show_export() -> Iterator[Callable[[Exporting], None]]:
    """Yield a function that shows an export while it goes on: in a terminal what it does, anywhere what it finds."""
    with ExitStack() as shown:

        def on_event(event: Exporting) -> None:
            shown.close()
            if event.what == "asking":
                shown.enter_context(busy("asking the model itself"))
            elif event.what == "comparing":
                shown.enter_context(busy(f"loading {event.target} again and comparing"))
            elif event.what == "checked":
                say(f"{event.target}", check_table(event.checks))

        yield on_event


def export_line(report: ExportReport) -> str:
    """Return the line that says what was written and compared."""
    return f"{report.out}: loaded again in a clean process and compared, in {report.elapsed_s:.0f} s"


def check_table(checks: Sequence[Check]) -> str:
    """Return each check with its outcome and what it found."""
    rows = []
    for check in checks:
        outcome = translated("ok" if check.passed else "FAILED", part=True)
        rows.append((check.name, f"{outcome}  {translated(check.found, part=True)}"))
    return table(rows)


def upload_table(found: Upload) -> str:
    """Return every file with its size and hash, and where they went, or would go, then with the model card."""
    from mamegpt.exporting.upload import COMMIT_MESSAGE

    listed = table([(file.name, f"{file.n_bytes:>12,} bytes  {file.sha256}") for file in found.files])
    name, visibility = found.repository, "private" if found.private else "public"
    if found.url:
        state = translated(
            f"created the repository {name}, {visibility}" if found.is_new else f"{name} exists and stays {visibility}"
        )
        return "\n".join([listed, state, translated(f"uploaded to {found.url}")])
    place = f"{name}@{found.revision}" if found.revision else name
    how = "pull request" if found.create_pr else "commit"
    return "\n".join(
        [
            translated(f"would go to {place}, as one {how} {COMMIT_MESSAGE!r}:"),
            listed,
            translated(f"if {name} does not exist, it is created, {visibility}"),
            "",
            "README.md:",
            "",
            found.card,
        ]
    )
