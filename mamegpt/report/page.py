"""The report as one HTML file: no script, nothing from outside; what can be switched, its style sheet switches."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib import resources
from string import Template
from typing import Any

from mamegpt.config import flag
from mamegpt.pages.chart import Curve, Points, clock, line_chart, short, thin
from mamegpt.report.run import AXES, CheckpointSample, ReportRun

__all__ = ["page"]

N_COLOURS = 6  # in the style sheet; further runs begin anew
NONE = "–"

Words = dict[str, dict[str, str]]


def page(runs: Sequence[ReportRun], samples: Sequence[CheckpointSample], now: datetime, refresh_s: int = 0) -> str:
    """Return the whole file.

    ``samples`` are of any of the runs; with ``refresh_s`` a browser loads it anew so often.
    """
    write = _Writer(json.loads(_static("words.json")))
    parts = [
        write.charts(runs),
        write.results(runs, samples),
        write.samples(runs, samples) if samples else "",
        write.values(runs, "data", [_facts(run) for run in runs], write.word),
        write.settings(runs),
        write.values(runs, "evaluation", [run.scores for run in runs], write.word, "evaluation-help"),
        write.values(runs, "machine", [run.machine for run in runs], _text),
    ]
    return Template(_static("page.html")).substitute(
        title=_text("豆GPT: " + ", ".join(run.name for run in runs)),
        style=_static("style.css"),
        refresh=f'<meta http-equiv="refresh" content="{refresh_s}">' if refresh_s else "",
        heading=write.word("report"),
        made=write.word("made", f"{now:%Y-%m-%d %H:%M}"),
        legend="".join(f"<li>{_swatch(i)}{_text(run.name)}</li>" for i, run in enumerate(runs)),
        over=write.word("over"),
        axes="".join(
            f'<label><input type="radio" name="axis" id="by-{axis}"{" checked" if axis == AXES[0] else ""}>'
            f"{write.word(axis)}</label>"
            for axis in AXES
        ),
        body="\n".join(parts),
    )


class _Writer:
    """The parts of the page, in all languages of the catalogue at once."""

    def __init__(self, words: Words) -> None:
        self.words = words

    def word(self, name: str, *values: str) -> str:
        return "".join(
            f'<span lang="{language}">{_text(words[name].format(*values))}</span>'
            for language, words in self.words.items()
        )

    def section(self, name: str, body: str, note: str = "") -> str:
        note = f'<p class="faint">{self.word(note)}</p>' if note else ""
        return f"<section><h2>{self.word(name)}</h2>{note}{body}</section>"

    def charts(self, runs: Sequence[ReportRun]) -> str:
        figures = (
            self._chart(runs, "loss", lambda run, axis: run.curve(axis, "loss"), "loss"),
            self._chart(runs, "bits", lambda run, axis: run.bits(axis), "bits_per_character"),
            self._chart(runs, "lr", lambda run, axis: run.curve(axis, "lr")),
            self._chart(runs, "speed", lambda run, axis: run.speed(axis)),
            self._chart(runs, "grad-norm", lambda run, axis: run.curve(axis, "grad_norm")),
        )
        return f'<div class="charts">{"".join(figures)}</div>'

    def _chart(
        self, runs: Sequence[ReportRun], name: str, line: Callable[[ReportRun, str], Points], validated: str = ""
    ) -> str:
        """Return a line of each run over each axis; with ``validated``, a field of `Quality`, its dots in front."""
        drawn = []
        for axis in AXES:
            curves = []
            for i, run in enumerate(runs):
                curves.append(Curve(run.name, i % N_COLOURS, thin(line(run, axis)), faint=bool(validated)))
                if validated:
                    for of, points in run.validated(axis, validated):
                        curves.append(Curve(f"{run.name}, {of}", i % N_COLOURS, points, dots=True))
            svg = line_chart(curves, clock if axis == "elapsed_s" else short)
            drawn.append(f'<div class="by-{axis}">{svg}</div>' if svg else "")
        if not all(drawn):
            return ""
        note = f"<p>{self.word(f'{name}-help')}</p>" if validated else ""
        return f"<figure><figcaption><h3>{self.word(name)}</h3>{note}</figcaption>{''.join(drawn)}</figure>"

    def results(self, runs: Sequence[ReportRun], samples: Sequence[CheckpointSample]) -> str:
        sizes = {sample.run: f"{sample.n_parameters:,}" for sample in samples}
        columns = (
            "n-parameters",
            "steps",
            "n-tokens",
            "seconds",
            "tokens-per-s",
            "validation-loss",
            "bits-per-byte",
            "bits-per-character",
        )
        rows = []
        for i, run in enumerate(runs):
            last = run.timed_steps[-1]
            quality = [getattr(run.quality, name, None) for name in ("loss", "bits_per_byte", "bits_per_character")]
            values = [
                sizes.get(run.name, NONE),
                f"{last['step']:,}",
                f"{last['tokens']:,}",
                clock(last["elapsed_s"]),
                f"{run.tokens_per_s:,.0f}",
                *(NONE if value is None else f"{value:.4f}" for value in quality),
            ]
            rows.append((f"<i>{_swatch(i)}{_text(run.name)}</i>", values))
        table = _table([self.word(name) for name in ("run", *columns)], rows, "numbers")
        notes = "".join(
            f"<p>{_swatch(i)}{self.word(f'verdict-{found.kind}', *(f'{value:.3f}' for value in found[1:]))}</p>"
            for i, run in enumerate(runs)
            if (found := run.verdict)
        )
        return self.section("results", table + notes)

    def samples(self, runs: Sequence[ReportRun], samples: Sequence[CheckpointSample]) -> str:
        colours = {run.name: i for i, run in enumerate(runs)}
        boxes = []
        for n, prompt in enumerate(runs[0].openings):
            texts = "".join(
                f"<dt>{_swatch(colours[sample.run])}{sample.step:,}</dt>"
                f'<dd class="written">{_text(sample.texts[n].strip())}</dd>'
                for sample in samples
            )
            boxes.append(f'<div class="sample"><h3 class="written">{_text(prompt)}</h3><dl>{texts}</dl></div>')
        return self.section("samples", "".join(boxes), "samples-help")

    def values(
        self,
        runs: Sequence[ReportRun],
        name: str,
        found: Sequence[Mapping[str, object]],
        named: Callable[[str], str],
        note: str = "",
    ) -> str:
        """Return a section of values, ``named`` by their keys, a column a run; nothing if no run has any."""
        keys = dict.fromkeys(key for values in found for key in values)
        rows = [(named(key), [_text(str(values.get(key, NONE))) for values in found]) for key in keys]
        return self.section(name, _table(_heads(runs), rows), note) if rows else ""

    def settings(self, runs: Sequence[ReportRun]) -> str:
        found = [run.config.to_dict() for run in runs]
        rows = []
        for name in found[0]:
            values = [_text(str(settings[name])) for settings in found]
            differs = ' class="differs"' if len(set(values)) > 1 else ""
            rows.append((_text(flag(name)), values, differs))
        body = _table(_heads(runs), rows)
        note = f'<p class="faint">{self.word("settings-help")}</p>' if len(runs) > 1 else ""
        return f"<details><summary><h2>{self.word('settings')}</h2></summary>{note}{body}</details>"


def _facts(run: ReportRun) -> dict[str, str]:
    """Names of the catalogue, and what the run's text and tokenizer are by them."""
    facts = {
        "source": run.config.data,
        "documents": NONE,
        "characters": NONE,
        "token-count": NONE,
        "epochs": NONE,
        "characters-per-token": NONE,
    }
    if run.meta is not None:
        train, val = run.meta.splits["train"], run.meta.splits.get("val")
        facts |= {
            "source": run.meta.source,
            "documents": f"{train.n_documents:,} / {val.n_documents if val else 0:,}",
            "characters": f"{train.n_characters:,} / {val.n_characters if val else 0:,}",
            "token-count": f"{train.n_tokens:,} / {val.n_tokens if val else 0:,}",
            "epochs": f"{run.timed_steps[-1]['tokens'] / train.n_tokens:.2f}",
            "characters-per-token": f"{train.n_characters / train.n_tokens:.3f}",
        }
    if run.extensions:
        added = (
            f"{one.from_step:,} + {one.steps:,}" if one.steps else f"{one.from_step:,} + {one.minutes:g} min"
            for one in run.extensions
        )
        facts["extended"] = ", ".join(added)
    return facts | {"pieces": f"{run.tokenizer.vocab_size:,}", "fingerprint": run.tokenizer.fingerprint[:12]}


def _heads(runs: Sequence[ReportRun]) -> list[str]:
    """Return the runs as columns of a table."""
    return ["", *(f"<i>{_swatch(i)}{_text(run.name)}</i>" for i, run in enumerate(runs))]


def _table(heads: Sequence[str], rows: Sequence[tuple[Any, ...]], kind: str = "") -> str:
    """Rows of (head, cells) or (head, cells, attributes); all are HTML already."""
    head = f"<thead><tr>{''.join(f'<th>{one}</th>' for one in heads)}</tr></thead>" if heads else ""
    body = "".join(
        f"<tr{''.join(more)}><th>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, cells, *more in rows
    )
    return f'<div class="table"><table class="{kind}">{head}<tbody>{body}</tbody></table></div>'


def _swatch(i: int) -> str:
    return f'<span class="swatch c{i % N_COLOURS}"></span>'


def _text(text: str) -> str:
    return html.escape(text)


def _static(name: str) -> str:
    return resources.files("mamegpt.report").joinpath("static", name).read_text(encoding="utf-8")
