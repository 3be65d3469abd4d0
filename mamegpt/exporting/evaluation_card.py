"""What an evaluation of a run says in the card of its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mamegpt.run.run import Run

__all__ = ["card_rows"]


def card_rows(run: Run, checkpoint: Path) -> list[tuple[str, str, str]]:
    """Return (name in Japanese, in English, value) of each figure, if the newest evaluation is of that checkpoint.

    Raises `CheckpointError` if the run's file is damaged.
    """

    def read(found: dict[str, Any]) -> list[tuple[str, str, str]]:
        (model,) = found["models"]
        return _rows(model, found) if Path(model["origin"]).name == checkpoint.name else []

    return run.read_evaluation(read, [])


def _rows(model: dict[str, Any], found: dict[str, Any]) -> list[tuple[str, str, str]]:
    base, other = found["baseline"], f"{found['baseline']['name']} は"
    right, base_right = model["pairs"]["total"], base["pairs"]["total"]
    rows = [
        ("最小対", "minimal pairs",
         f"{right['share']:.1%}({right['n']} 組、偶然なら 50%、{other} {base_right['share']:.1%})")
    ]  # fmt: skip
    if gaps := model["cloze"]:
        value = f"{gaps['share']:.1%}({gaps['n']} 問の四択、{other} {base['cloze']['share']:.1%})"
        rows.append(("穴埋め", "cloze", value))
    for text, quality in base["text"].items():
        bits, base_bits = (f"{of['bits_per_character']:.3f}" for of in (model["text"][text], quality))
        rows.append(("n-gram との比較", "beside an n-gram model", f"{bits} ビット/文字、{other} {base_bits}"))
    if None not in (model["recited"], found["heldout_recited"]):
        here, there = f"{model['recited']:.2%}", f"{found['heldout_recited']:.2%}"
        value = f"書いた 20 文字の並びの {here} が学習した文章にある(学習していない文章では {there})"
        rows.append(("丸写し", "recited", value))
    return rows
