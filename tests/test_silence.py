"""The library prints nothing: what it has to say is returned, reported to ``on_event`` or raised."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from little import ROOT, Little

import mamegpt
from mamegpt.data.dialogues import write_dialogues
from mamegpt.data.reviews import write_reviews
from mamegpt.tokenizer.report import compare_tokenizers

ONE_STEP: dict[str, Any] = {"max_steps": 1, "batch_size": 2, "device": "cpu", "precision": "fp32"}


def answered(little: Little, folder: Path) -> str:
    write_dialogues(folder / "pairs.jsonl", 20)
    model = mamegpt.load(mamegpt.tune(little.run, folder / "pairs.jsonl", folder / "tuned", **ONE_STEP).out)
    return model.answer("豆", max_new_tokens=2)


def classified(little: Little, folder: Path) -> object:
    write_reviews(folder / "reviews.jsonl", 20)
    tuned = mamegpt.tune(little.run, folder / "reviews.jsonl", folder / "tuned", task="classify", **ONE_STEP)
    return mamegpt.load_classifier(tuned.out).classify(["豆"])


FUNCTIONS: dict[str, Callable[[Little, Path], Any]] = {
    "extract": lambda little, folder: mamegpt.extract(little.text, "豆", folder / "topic.txt"),
    "clean": lambda little, folder: mamegpt.clean(little.text, folder / "clean.jsonl", report=folder / "page.html"),
    "train_tokenizer": lambda _, folder: mamegpt.train_tokenizer(["豆の木。"] * 9, folder / "beans", vocab_size=276),
    "tokenizer report": lambda little, _: compare_tokenizers([str(little.spm)], ["豆の木"]),
    "load and generate": lambda little, _: mamegpt.load(little.run).generate("豆", max_new_tokens=4),
    "tune and answer": answered,
    "tune and classify": classified,
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


def test_only_the_command_line_can_print() -> None:
    """No module but those of `cli` calls ``print``, takes a stream of ``sys``, or imports what draws in a terminal."""
    found = set()
    for path in (ROOT / "mamegpt").rglob("*.py"):
        own = path.relative_to(ROOT / "mamegpt").as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            taken = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            prints = called == "print" or taken in ("sys.stdout", "sys.stderr")
            if prints or {module.partition(".")[0] for module in modules} & {"rich", "cyclopts", "logging"}:
                found.add(own)
    assert {name for name in found if not name.startswith("cli/")} == set()
