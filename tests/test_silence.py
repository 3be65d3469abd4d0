"""The library prints nothing: what it has to say is returned, reported to ``on_event`` or raised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from little import Little

import mamegpt
from mamegpt.tokenizer.report import compare_tokenizers

FUNCTIONS: dict[str, Callable[[Little, Path], Any]] = {
    "extract": lambda little, folder: mamegpt.extract(little.text, "豆", folder / "topic.txt"),
    "clean": lambda little, folder: mamegpt.clean(little.text, folder / "clean.jsonl", report=folder / "page.html"),
    "train_tokenizer": lambda _, folder: mamegpt.train_tokenizer(["豆の木。"] * 9, folder / "beans", vocab_size=276),
    "tokenizer report": lambda little, _: compare_tokenizers([str(little.spm)], ["豆の木"]),
    "load and generate": lambda little, _: mamegpt.load(little.run).generate("豆", max_new_tokens=4),
    "evaluate": lambda little, _: mamegpt.evaluate(little.run, max_characters=500),
    "plan": lambda little, _: mamegpt.plan(5, data=little.text, tokenizer=little.spm, device="cpu", seconds=0.0),
    "write_report": lambda little, folder: mamegpt.write_report([little.run], folder / "report.html"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_is_printed(
    name: str, little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAMEGPT_LANG", "ja")
    capfd.readouterr()  # what the fixtures may have printed
    FUNCTIONS[name](little, tmp_path)
    assert capfd.readouterr() == ("", "")


def test_nothing_is_printed_while_a_tokenizer_and_a_model_are_trained_and_exported(little: Little) -> None:
    assert little.printed == ""
