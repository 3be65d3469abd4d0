"""The evaluation of a run, for the card of its model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mamegpt.evaluation.classification import kept_confusion
from mamegpt.evaluation.evaluate import KeptEvaluation
from mamegpt.run.metrics import Quality
from mamegpt.run.run import Run

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

__all__ = ["card_results", "card_rows", "confusion_rows", "quality_results"]


def card_rows(run: Run, checkpoint: Path) -> list[tuple[str, str, str]]:
    """Return (name in Japanese, in English, value) of each score, if the newest evaluation is of that checkpoint.

    Raises `CheckpointError` if the run's file is damaged.
    """
    found = _read(run, checkpoint)
    return _rows(found) if found else []


def confusion_rows(run: Run, origin: Path) -> list[tuple[str, str, str]]:
    """Return the rows of a classifier's card: its accuracy on held-out texts, and that of one label for all."""
    found = kept_confusion(run, origin)
    if found is None:
        return []
    label, baseline = found.baseline
    of = f"{found.n:,} テキスト。すべて「{label}」とすると {baseline.share:.1%}"
    rows = [("正解率", "accuracy", f"{found.accuracy}({of})")]
    for i, (name, counts) in enumerate(zip(found.labels, found.counts, strict=True)):
        if n := sum(counts):
            rows.append((f"「{name}」の正解率", f"recall of {name}", f"{counts[i] / n:.1%}({n:,} テキスト)"))
    return rows


def card_results(run: Run, checkpoint: Path, text: Mapping[str, Any]) -> list[EvalResult]:
    """Return the same scores, without memorization, in the form that the Hub indexes.

    ``text`` names the held-out text, with the arguments of `EvalResult`. Raises `CheckpointError` if the run's file is
    damaged.
    """
    found = _read(run, checkpoint)
    return _results(found, text) if found else []


def quality_results(found: Quality, text: Mapping[str, Any]) -> list[EvalResult]:
    """Return the scores of a validation, in the form that the Hub indexes."""
    of = {"n_characters": found.n_characters}
    return [
        _result(metric.replace(" ", "_"), metric, getattr(found, metric.replace(" ", "_")), of, text)
        for metric in ("bits per character", "bits per byte")
    ]


def _read(run: Run, checkpoint: Path) -> KeptEvaluation | None:
    """Return the newest evaluation of a run, if it is of that checkpoint."""
    found = run.read_evaluation(KeptEvaluation)
    return found if found and Path(found.models[0].origin).name == checkpoint.name else None


def _results(kept: KeptEvaluation, text: Mapping[str, Any]) -> list[EvalResult]:
    (model,) = kept.models
    found = [one for quality in model.text.values() for one in quality_results(quality, text)]
    right, gaps = model.pairs.total, model.cloze
    pairs = {"dataset_type": "mamegpt-minimal-pairs", "dataset_name": "mamegpt minimal pairs (Japanese)"}
    found.append(_result("accuracy", "minimal pairs", right.share, {"n_pairs": right.n}, pairs))
    if gaps:
        found.append(_result("accuracy", "cloze, one of four", gaps.share, {"n_gaps": gaps.n}, text))
    return found


def _result(metric: str, name: str, value: float, of: Mapping[str, int], text: Mapping[str, Any]) -> EvalResult:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="text-generation",
        metric_type=metric,
        metric_name=name,
        metric_value=round(value, 4),
        metric_args=dict(of),
        **text,
    )


def _rows(found: KeptEvaluation) -> list[tuple[str, str, str]]:
    (model,), base, other = found.models, found.baseline, f"{found.baseline.name} は"
    right, base_right = model.pairs.total, base.pairs.total
    value = f"{right.share:.1%}({right.n} 組、偶然なら 50%、{other} {base_right.share:.1%})"
    rows = [("最小対", "minimal pairs", value)]
    if model.cloze and base.cloze:
        value = f"{model.cloze.share:.1%}({model.cloze.n} 問の四択、{other} {base.cloze.share:.1%})"
        rows.append(("穴埋め問題", "cloze", value))
    for text, quality in base.text.items():
        bits, base_bits = (f"{of.bits_per_character:.3f}" for of in (model.text[text], quality))
        rows.append(("n-gram との比較", "n-gram baseline", f"{bits} ビット/文字、{other} {base_bits}"))
    if model.recited is not None and found.heldout_recited is not None:
        here, there = f"{model.recited:.2%}", f"{found.heldout_recited:.2%}"
        value = f"生成した 20 文字の並びの {here} が学習データにある(検証データでは {there})"
        rows.append(("暗記率", "memorization", value))
    return rows
