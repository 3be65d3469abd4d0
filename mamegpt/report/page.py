"""The report as one HTML file: no script, nothing from outside; what can be switched, its style sheet switches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from markupsafe import Markup

from mamegpt.config import flag
from mamegpt.messages import Message, msg
from mamegpt.pages.chart import Curve, Points, clock, line_chart, short, thin
from mamegpt.pages.render import render
from mamegpt.report.run import AXES, CheckpointSample, ReportRun

__all__ = ["page"]

COLORS = ("c0", "c1", "c2", "c3", "c4", "c5")
"""Classes of the style sheet; further runs begin again with the first."""
NONE = "–"


def page(runs: Sequence[ReportRun], samples: Sequence[CheckpointSample], now: datetime, refresh_s: int = 0) -> str:
    """Return the whole file.

    ``samples`` are of any of the runs; with ``refresh_s`` a browser loads it again so often.
    """
    colors = [COLORS[i % len(COLORS)] for i in range(len(runs))]
    color_of = dict(zip((run.name for run in runs), colors, strict=True))
    charts = (
        _chart(
            runs,
            colors,
            msg("Loss (nats per token, label or pair)"),
            lambda run, axis: [] if run.config.task == "grpo" else run.curve(axis, "loss"),
            "loss",
            msg("Thin lines: training loss; dots: validation loss. Lower is better."),
        ),
        _chart(
            runs,
            colors,
            msg("Bits per character"),
            lambda run, axis: run.bits(axis),
            "bits_per_character",
            msg(
                "Dots: validation data; thin lines: training loss, converted by the mean length of a token. "
                "Lower is better; comparable across tokenizers."
            ),
        ),
        _chart(
            runs,
            colors,
            msg("Accuracy"),
            lambda _run, _axis: [],
            "accuracy",
            msg(
                "Share of validation texts with the right label, or with DPO of pairs whose better answer has the "
                "higher reward. Higher is better."
            ),
        ),
        _chart(
            runs,
            colors,
            msg("Reward margin"),
            lambda _run, _axis: [],
            "margin",
            msg("DPO: mean difference between the rewards of the better and the worse answer of a pair."),
        ),
        _chart(
            runs,
            colors,
            msg("Reward"),
            lambda run, axis: run.curve(axis, "reward"),
            "reward",
            msg("GRPO: mean reward of sampled answers. Thin lines: training questions; dots: validation questions."),
        ),
        _chart(
            runs,
            colors,
            msg("KL divergence from the start model"),
            lambda _run, _axis: [],
            "kl",
            msg("GRPO: nats per token of sampled answers. The higher, the farther the model is from where it began."),
        ),
        _chart(
            runs,
            colors,
            msg("Tokens of an answer"),
            lambda run, axis: run.curve(axis, "answer_tokens"),
            "answer_tokens",
            msg("GRPO: mean length of sampled answers. Answers that become ever shorter are a sign of collapse."),
        ),
        _chart(
            runs,
            colors,
            msg("Different answers"),
            lambda _run, _axis: [],
            "distinct",
            msg("GRPO: number of different answers to the validation questions, per question. It falls in a collapse."),
        ),
        _chart(runs, colors, msg("Learning rate"), lambda run, axis: run.curve(axis, "lr")),
        _chart(runs, colors, msg("Tokens per second"), lambda run, axis: run.speed(axis)),
        _chart(runs, colors, msg("Gradient norm"), lambda run, axis: run.curve(axis, "grad_norm")),
    )
    return render(
        "mamegpt.report",
        "page.html",
        made=f"{now:%Y-%m-%d %H:%M}",
        refresh_s=refresh_s,
        runs=[(color, run.name) for color, run in zip(colors, runs, strict=True)],
        axes=dict(zip(AXES, (msg("steps"), msg("tokens"), msg("time")), strict=True)),
        charts=[chart for chart in charts if all(chart.drawn.values())],
        results=[_results(run, samples) for run in runs],
        verdicts=[(color, found.line) for color, run in zip(colors, runs, strict=True) if (found := run.verdict)],
        samples_note=msg("Answers by each saved checkpoint to held-out questions (temperature 0.7, top-p 0.9, seed 0).")
        if runs[0].config.answers
        else msg(
            "Continuations by each saved checkpoint; the prompts are the beginnings of held-out documents (temperature "
            "0.7, top-p 0.9, seed 0)."
        ),
        samples=[
            (prompt, [(color_of[one.run], f"{one.step:,}", one.texts[n].strip()) for one in samples])
            for n, prompt in enumerate(runs[0].openings if samples else ())
        ],
        facts=_rows([_facts(run) for run in runs]),
        settings=_rows([{flag(name): value for name, value in run.config.to_dict().items()} for run in runs]),
        scores=_rows([run.scores for run in runs]),
        machine=_rows([{Message(name): value for name, value in run.machine.items()} for run in runs]),
    )


class Chart(NamedTuple):
    """A chart as ``drawn`` over each axis, and what is to be said of it."""

    name: str
    note: str
    drawn: dict[str, Markup]


def _chart(
    runs: Sequence[ReportRun],
    colors: Sequence[str],
    name: str,
    line: Callable[[ReportRun, str], Points],
    validated: str = "",
    note: str = "",
) -> Chart:
    """Return a line of each run over each axis; with ``validated``, a field of `Quality`, its dots in front."""
    drawn = {}
    for axis in AXES:
        curves = []
        for color, run in zip(colors, runs, strict=True):
            curves.append(Curve(run.name, color, thin(line(run, axis)), faint=bool(validated)))
            if validated:
                for of, points in run.validated(axis, validated):
                    curves.append(Curve(f"{run.name}, {of}", color, points, dots=True))
        drawn[axis] = line_chart(curves, clock if axis == "elapsed_s" else short)
    return Chart(name, note, drawn)


def _results(run: ReportRun, samples: Sequence[CheckpointSample]) -> dict[str, str]:
    """Return what came of a run."""
    last, quality = run.timed_steps[-1], run.quality
    bits = quality if quality and quality.has_bits else None
    n_parameters = next((f"{sample.n_parameters:,}" for sample in samples if sample.run == run.name), NONE)
    return {
        msg("parameters"): n_parameters,
        msg("steps"): f"{last['step']:,}",
        msg("training tokens"): f"{last['tokens']:,}",
        msg("time"): clock(last["elapsed_s"]),
        msg("tokens/s"): f"{run.tokens_per_s:,.0f}",
        msg("validation loss"): f"{quality.loss:.4f}" if quality and quality.reward is None else NONE,
        msg("bits/byte"): f"{bits.bits_per_byte:.4f}" if bits else NONE,
        msg("bits/character"): f"{bits.bits_per_character:.4f}" if bits else NONE,
        **({msg("accuracy"): f"{quality.accuracy:.1%}"} if quality and quality.accuracy is not None else {}),
        **({msg("reward"): f"{quality.reward:.3f}"} if quality and quality.reward is not None else {}),
    }


def _facts(run: ReportRun) -> dict[str, str]:
    """Return what a run's text and tokenizer are."""
    facts: dict[str, str] = {
        msg("data"): run.config.data,
        msg("documents (training / validation)"): NONE,
        msg("characters"): NONE,
        msg("tokens"): NONE,
        msg("epochs"): NONE,
        msg("characters/token"): NONE,
    }
    if run.meta is not None:
        train, val = run.meta.splits["train"], run.meta.splits.get("val")
        rows = 2 if run.config.task == "dpo" else 1  # of a pair
        facts |= {
            msg("data"): run.meta.source,
            msg("documents (training / validation)"): (
                f"{train.n_documents // rows:,} / {val.n_documents // rows if val else 0:,}"
            ),
            msg("characters"): f"{train.n_characters:,} / {val.n_characters if val else 0:,}",
            msg("tokens"): f"{train.n_tokens:,} / {val.n_tokens if val else 0:,}",
            msg("epochs"): f"{run.timed_steps[-1]['tokens'] / train.n_tokens:.2f}",
            **({} if run.config.answers else {msg("characters/token"): f"{train.n_characters / train.n_tokens:.3f}"}),
        }
    if run.extensions:
        added = (
            f"{one.from_step:,} + {one.steps:,}" if one.steps else f"{one.from_step:,} + {one.minutes:g} min"
            for one in run.extensions
        )
        facts[msg("extended (at step)")] = ", ".join(added)
    return facts | {
        msg("vocabulary size"): f"{run.tokenizer.vocab_size:,}",
        msg("tokenizer fingerprint"): run.tokenizer.fingerprint[:12],
    }


def _rows(found: Sequence[Mapping[str, object]]) -> dict[str, list[str]]:
    """Return the values that runs have, by their names, a column a run; nothing if no run has any."""
    names = dict.fromkeys(name for values in found for name in values)
    return {name: [str(values.get(name, NONE)) for values in found] for name in names}
