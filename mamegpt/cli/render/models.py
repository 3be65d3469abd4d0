"""Output of the commands for trained models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from mamegpt.cli.console import busy, columns, say, table
from mamegpt.cli.language import label, translated
from mamegpt.messages import msg

if TYPE_CHECKING:
    from mamegpt.evaluation.classification import Confusion
    from mamegpt.evaluation.evaluate import Evaluation, Measuring, Result
    from mamegpt.exporting.checks import Check
    from mamegpt.exporting.export import Exporting, ExportReport
    from mamegpt.exporting.upload import Upload
    from mamegpt.models.classifier import Classification
    from mamegpt.playground.server import Serving
    from mamegpt.report.write import WritingSamples

__all__ = [
    "check_table",
    "confusion_table",
    "evaluation_table",
    "export_line",
    "label_table",
    "measuring_line",
    "samples_line",
    "serving_line",
    "show_export",
    "upload_table",
]

MAX_TRAINED_ON = 0.05
"""Share of held-out documents in the training text above which the table warns: short ones recur by chance."""


def measuring_line(event: Measuring) -> str:
    """Return the line that says what is measured next."""
    if event.what == "likelihoods":
        return msg("{model}: bits per character, minimal pairs, cloze ...", model=event.model)
    if event.what in ("continuations", "answers"):
        return msg("{model}: generating ...", model=event.model)
    return msg("training data and its n-gram model ...")


def evaluation_table(found: Evaluation) -> str:
    """Return one table, a column per model, with a legend."""
    from mamegpt.report.verdict import verdict

    results = [*found.models, *([found.baseline] if found.baseline else [])]
    rows: list[tuple[str, list[str]]] = []
    for text in results[0].text:
        of = f", {text}" if len(results[0].text) > 1 else ""
        rows.append((msg("bits per character{of}", of=of), [f"{r.text[text].bits_per_character:.4f}" for r in results]))
        rows.append((msg("bits per byte{of}", of=of), [f"{r.text[text].bits_per_byte:.4f}" for r in results]))
    rows.append((msg("minimal pairs"), [str(r.pairs.total) for r in results]))
    for name in results[0].pairs.by_phenomenon:
        rows.append((f"  {label(name)}", [str(r.pairs.by_phenomenon[name]) for r in results]))
    rows.append((msg("minimal pairs, per character"), [str(r.pairs.per_character) for r in results]))
    if results[0].cloze:
        rows.append((msg("cloze"), [str(r.cloze) for r in results]))
    rows += _answer_rows(results)
    if found.baseline:
        rows.append((msg("memorization"), [_percent(r.recited) for r in results]))
        itself = translated(msg("for comparison: validation data itself"))
        rows.append((f"  {itself}", [_percent(found.heldout_recited)] * len(results)))
    notes = [translated(msg("±: one standard error; by chance, 50% of minimal pairs are right and 25% of cloze"))]
    if found.baseline:
        notes.append(
            translated(msg("memorization: share of generated 20-character strings that occur in the training data"))
        )
    for text in list(results[0].text)[:1]:
        baseline = found.baseline.text[text].bits_per_character if found.baseline else None
        for r in found.models:
            line = translated(verdict(r.text[text].bits_per_character, baseline).line)
            notes.append(f"{r.name}: {line}" if len(found.models) > 1 else line)
    if found.heldout_trained_on > MAX_TRAINED_ON:
        notes.append(
            translated(
                msg(
                    "warning: {share:.0%} of the held-out documents are in the training text, "
                    "so these figures are not of held-out text; give other text to --data",
                    share=found.heldout_trained_on,
                )
            )
        )
    lines = [(translated(name), *cells) for name, cells in rows]
    return "\n".join([columns(("", *(r.name for r in results)), lines), *notes])


def _answer_rows(results: Sequence[Result]) -> list[tuple[str, list[str]]]:
    """Return the rows on questions of 豆対話, if a model answered some."""
    from mamegpt.evaluation.tasks import ALL

    rows: list[tuple[str, list[str]]] = []
    names = {"test": msg("right answers"), "new": msg("right answers, new words")}
    for split, title in names.items():
        kinds = dict.fromkeys(kind for result in results for kind in result.answers.get(split, {}))
        for kind in kinds:
            shares = [result.answers.get(split, {}).get(kind) for result in results]
            rows.append((title if kind == ALL else f"  {kind}", ["-" if it is None else str(it) for it in shares]))
    return rows


def label_table(found: Classification) -> str:
    """Return the labels of a text with their probabilities, the most probable first."""
    rows = [(name, f"{share:.1%}") for name, share in found.probabilities.items()]
    return columns((translated(msg("label")), translated(msg("probability"))), rows)


def confusion_table(found: Confusion) -> str:
    """Return accuracy, baseline, and the table: a row for each label, a column for each label that was given."""
    label, baseline = found.baseline
    rows = [(name, *(f"{n:,}" for n in row)) for name, row in zip(found.labels, found.counts, strict=True)]
    lines = (
        msg("accuracy: {accuracy} of {n:,} texts", accuracy=found.accuracy, n=found.n),
        msg("for comparison: {baseline} if all were given the label {label}", baseline=baseline, label=label),
    )
    return "\n".join([*map(translated, lines), columns((translated(msg("label / given")), *found.labels), rows)])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def samples_line(event: WritingSamples) -> str:
    """Return the line that says which checkpoint generates samples."""
    return msg("{checkpoint}: generating samples ...", checkpoint=event.checkpoint)


def serving_line(event: Serving) -> str:
    """Return the line with the address of the playground, and its first model."""
    return msg("http://{host}:{port}/  ({model}; Ctrl-C ends it)", host=event.host, port=event.port, model=event.model)


@contextmanager
def show_export() -> Iterator[Callable[[Exporting], None]]:
    """Yield a function that shows the progress of an export: the current step in a terminal, check results
    everywhere.
    """
    with ExitStack() as shown:

        def on_event(event: Exporting) -> None:
            shown.close()
            if event.what == "asking":
                shown.enter_context(busy(msg("computing the model's own output")))
            elif event.what == "comparing":
                shown.enter_context(busy(msg("verifying {target}", target=event.target)))
            elif event.what == "checked":
                say(f"{event.target}", check_table(event.checks))

        yield on_event


def export_line(report: ExportReport) -> str:
    """Return the line that says what was written and verified."""
    return msg("{out}: verified in a separate process in {elapsed_s:.0f} s", out=report.out, elapsed_s=report.elapsed_s)


def check_table(checks: Sequence[Check]) -> str:
    """Return the checks with their outcomes and findings as a table."""
    rows = []
    for check in checks:
        outcome = translated(msg("ok") if check.passed else msg("FAILED"))
        rows.append((check.name, f"{outcome}  {translated(check.found)}"))
    return table(rows)


def upload_table(found: Upload) -> str:
    """Return the files of an upload with size and hash, their destination, and the model card."""
    from mamegpt.exporting.upload import COMMIT_MESSAGE

    listed = table([(file.name, f"{file.n_bytes:>12,} bytes  {file.sha256}") for file in found.files])
    name, visibility = found.repository, msg("private") if found.private else msg("public")
    if found.url:
        state = translated(
            msg("created the repository {name}, {visibility}", name=name, visibility=visibility)
            if found.is_new
            else msg("{name} exists and stays {visibility}", name=name, visibility=visibility)
        )
        return "\n".join([listed, state, translated(msg("uploaded to {url}", url=found.url))])
    place = f"{name}@{found.revision}" if found.revision else name
    how = msg("pull request") if found.create_pr else msg("commit")
    return "\n".join(
        [
            translated(
                msg(
                    "would go to {place}, as one {how} {commit_message!r}:",
                    place=place,
                    how=how,
                    commit_message=COMMIT_MESSAGE,
                )
            ),
            listed,
            translated(msg("if {name} does not exist, it is created, {visibility}", name=name, visibility=visibility)),
            "",
            "README.md:",
            "",
            found.card,
        ]
    )
