"""Arguments that no call of the public names can mean: one error of ours, before anything is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from little import Little

import mamegpt
from mamegpt.config import ModelConfig

CALLS: dict[str, tuple[Callable[..., Any], str]] = {
    "size": (lambda _: mamegpt.preset("2m"), "size is '2m', none of 1m, 5m"),
    "recipe": (lambda _: mamegpt.preset("1m", "nope"), "recipe is 'nope', none of mame, seed, original"),
    "layout": (lambda _: mamegpt.Schema(txt_layout="nope"), "txt_layout is 'nope', none of auto, file"),
    "match": (lambda _: mamegpt.Topic(("豆",), match="none"), "match is 'none', none of any, all"),
    "a string as keywords": (lambda _: mamegpt.Topic("京都"), r"keywords must be a tuple of strings"),
    "form": (lambda little: mamegpt.export(little.run, "new", to="onnx"), "to is 'onnx', none of hf, hf-native, gguf"),
    "gguf": (lambda little: mamegpt.export(little.run, "new", to="gguf", gguf_type="q4"), "gguf_type is 'q4', none of"),
    "a string as prompts": (lambda little: mamegpt.load(little.run).generate_many("豆"), "prompts must be a list"),
    "no run": (lambda _: mamegpt.write_report([], "new.html"), "name at least one run"),
}  # fmt: skip


@pytest.mark.parametrize("what", CALLS)
def test_a_value_that_cannot_be_meant(
    little: Little, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call, message = CALLS[what]
    with pytest.raises(mamegpt.ConfigError, match=message):
        call(little)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resume": True, "more_steps": -3}, "more_steps must be at least 1, not -3"),
        ({"resume": True, "more_steps": 1.5}, "more_steps must be at least 1, not 1.5"),
        ({"resume": True, "more_minutes": -1.0}, "more_minutes must be above 0, not -1"),
        ({"resume": True, "more_minutes": float("nan")}, "more_minutes must be above 0, not nan"),
        ({"resume": True, "more_steps": 2, "more_minutes": 1}, "both say how long"),
        ({"more_steps": 3}, "extend a finished run"),
        ({"skip_damaged": True}, "says how to go on with a run"),
        ({"watchers": print}, "watchers must be a list of functions"),
        ({"watchers": [None]}, "watchers must be a list of functions"),
    ],
)
def test_training_asked_for_the_impossible_leaves_the_run_as_it_is(
    little: Little, arguments: dict[str, Any], message: str
) -> None:
    before = {path: path.read_bytes() for path in little.run.rglob("*") if path.is_file()}
    with pytest.raises(mamegpt.ConfigError, match=message):
        mamegpt.train(mamegpt.Run(little.run).config, **arguments)
    assert {path: path.read_bytes() for path in little.run.rglob("*") if path.is_file()} == before


def test_a_run_can_be_given_where_a_path_can(little: Little, tmp_path: Path) -> None:
    run = mamegpt.Run(little.run)
    assert os.fspath(run) == str(little.run)
    assert mamegpt.load(run).origin == mamegpt.load(little.run).origin
    mamegpt.write_report(run, tmp_path / "one.html")
    mamegpt.write_report([str(little.run)], str(tmp_path / "same.html"))
    assert (tmp_path / "one.html").is_file() and (tmp_path / "same.html").is_file()


def test_an_unknown_architecture_is_not_asked_for_even_heads() -> None:
    sizes = mamegpt.TrainConfig(emb_dim=36, n_heads=4).model(vocab_size=100)
    assert isinstance(sizes, ModelConfig) and sizes.problems("unknown", None) == []
    assert "into even widths" in sizes.problems("qwen3", {})[0]
