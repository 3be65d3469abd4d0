"""Arguments that no call of the public names can mean: one error of ours names them, before anything is written."""

from __future__ import annotations

import inspect
import os
import re
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from little import Little
from public_names import public_functions

import mamegpt
from mamegpt.arguments import _is_of
from mamegpt.config import ModelConfig
from mamegpt.messages import translate

RESULTS = {
    "Checkpoint",
    "CleanReport",
    "Document",
    "Evaluation",
    "ExportReport",
    "ExtractReport",
    "Plan",
    "Quality",
    "Token",
}
"""What functions return; only this package makes them."""
# fmt: off
UNCHECKED = RESULTS | {
    "preset", "TrainConfig", "show", "show_progress", "show_export", "show_stream", "run_command_line",
    "train_original", "Topic.judge", "Topic.contexts", "Run.find", "Run.of_checkpoint", "Run.read_evaluation",
    "Run.read_confusion",
}
# fmt: on
"""Settings of a training, which are checked when it begins; what prints for the scripts in the root; what is called for
each document, or answers None for what is no run."""


class Odd:
    """What no public function takes."""

    def __repr__(self) -> str:
        return "Odd()"


# fmt: off
CALLS: dict[str, tuple[Callable[..., Any], str]] = {
    "size": (lambda _: mamegpt.preset("2m"), r"size must be one of 1m, 5m, .* \(got '2m'\)"),
    "recipe": (lambda _: mamegpt.preset("1m", "nope"), r"recipe must be one of mame, seed, original \(got 'nope'\)"),
    "layout": (lambda _: mamegpt.Schema(txt_layout="nope"), r"txt_layout must be one of auto, file, .* \(got 'nope'\)"),
    "match": (lambda _: mamegpt.Topic(("豆",), match="none"), r"match must be one of any, all \(got 'none'\)"),
    "a string as keywords": (lambda _: mamegpt.Topic("京都"), r"keywords must be a tuple of strings \(got '京都'\)"),
    "a list as topic": (lambda it: mamegpt.extract(it.text, ["町"], "new"), r"topic must be a string or mamegpt.Topic"),
    "form": (
        lambda it: mamegpt.export(it.run, "new", to="onxx"),
        r"to must be one of hf, hf-native, gguf, html, onnx, all \(got 'onxx'\)",
    ),
    "gguf": (
        lambda it: mamegpt.export(it.run, "new", to="gguf", gguf_type="q4"),
        r"gguf_type must be one of f32, .* \(got 'q4'\)",
    ),
    "sentences": (lambda it: mamegpt.export(it.run, "new", n_sentences=-1), r"n_sentences must be at least 1 \(got -1"),
    "normal form": (
        lambda it: mamegpt.clean(it.text, "new", normalisation="nfd"), r"normalisation must be one of .* \(got 'nfd'\)"
    ),
    "step": (
        lambda it: mamegpt.clean(it.text, "new", only=["spelling"]),
        r"only must be one of aozora, .* \(got 'spelling'\)",
    ),
    "a string as steps": (lambda it: mamegpt.clean(it.text, "new", only="markup"), "only must be a list of strings"),
    "a file's name as its text": (
        lambda it: mamegpt.train_tokenizer(str(it.text), "new"), "documents must be a list of strings"
    ),
    "a string as prompts": (lambda it: mamegpt.load(it.run).generate_many("豆"), r"prompts must be a list of strings"),
    "no prompt": (lambda it: mamegpt.load(it.run).generate(None), r"prompt must be a string \(got None\)"),
    "half a token": (
        lambda it: mamegpt.load(it.run).generate("豆", max_new_tokens=4.5), r"max_new_tokens must be a whole number"
    ),
    "no token": (lambda it: mamegpt.load(it.run).stream("豆", max_new_tokens=0), r"max_new_tokens must be at least 1"),
    "hot": (lambda _: mamegpt.Sampling(temperature="hot"), r"temperature must be a number \(got 'hot'\)"),
    "hot, in a call": (lambda it: mamegpt.load(it.run).generate("豆", temperature="hot"), "temperature must be a num"),
    "a string as stops": (lambda it: mamegpt.load(it.run).stream("豆", stop="。"), "stop must be a list of strings"),
    "alternatives": (
        lambda it: mamegpt.load(it.run).stream_tokens("豆", n_alternatives=-2), "n_alternatives must be at least 0"
    ),
    "a string as texts": (lambda it: mamegpt.load(it.run).tokenizer.encode_batch("abc"), "texts must be a list of str"),
    "texts as a text": (lambda it: mamegpt.load(it.run).tokenizer.encode(["abc"]), "text must be a string"),
    "a text as ids": (lambda it: mamegpt.load(it.run).tokenizer.decode("abc"), "ids must be a list of whole numbers"),
    "no run": (lambda _: mamegpt.write_report([], "new.html"), "name at least one run"),
    "an empty path": (lambda _: mamegpt.write_stories(""), "out is an empty path; give a name, or . for the"),
    "a rank": (lambda it: mamegpt.tune(it.run, it.text, "new", lora="8"), r"lora must be a whole number \(got '8'\)"),
    "an empty model": (lambda _: mamegpt.load(""), "model is an empty path"),
    "an empty run": (lambda _: mamegpt.Run(""), "folder is an empty path"),
    "an empty name among others": (lambda it: mamegpt.evaluate([it.run, ""]), "models is an empty path"),
    "several": (lambda _: mamegpt.plan("x", seconds="y"), r"minutes must be a number .*; seconds must be a number"),
}
# fmt: on


@pytest.mark.parametrize("what", CALLS)
def test_a_value_that_cannot_be_meant(
    little: Little, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call, message = CALLS[what]
    with pytest.raises(mamegpt.ConfigError, match=message):
        call(little)
    assert list(tmp_path.iterdir()) == []


CHECKED = {
    **{name: it for name, it in public_functions() if not {name, name.partition(".")[0]} & UNCHECKED},
    **{it.__name__: it for it in (mamegpt.Sampling, mamegpt.Schema, mamegpt.Topic, mamegpt.Run)},
}


@pytest.mark.parametrize("name", CHECKED)
def test_every_argument_of_a_public_function_is_checked(name: str) -> None:
    """Each is given an object that nothing takes, and the error names it."""
    parameters = inspect.signature(CHECKED[name]).parameters.values()
    needed = {it.name: None for it in parameters if it.default is it.empty and it.kind is not it.VAR_KEYWORD}
    for parameter in parameters:
        if parameter.annotation not in ("Any", parameter.empty):
            wrong = "temperature" if parameter.kind is parameter.VAR_KEYWORD else parameter.name
            with pytest.raises(mamegpt.ConfigError, match=rf"\b{wrong} must be .*Odd"):
                CHECKED[name](**needed | {wrong: Odd()})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resume": True, "more_steps": -3}, r"more_steps must be at least 1 \(got -3\)"),
        ({"resume": True, "more_steps": 1.5}, r"more_steps must be a whole number \(got 1.5\)"),
        ({"resume": True, "more_minutes": -1.0}, r"more_minutes must be above 0 \(got -1\)"),
        ({"resume": True, "more_minutes": float("nan")}, r"more_minutes must be above 0 \(got nan\)"),
        ({"resume": True, "more_steps": 2, "more_minutes": 1}, "both set the length"),
        ({"more_steps": 3}, "extend a finished run"),
        ({"skip_damaged": True}, "works only with resume RUN"),
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


def test_what_an_argument_must_be_is_said_in_japanese_too() -> None:
    with pytest.raises(mamegpt.ConfigError) as caught:
        mamegpt.extract("a.txt", ["町"], 3, schema=mamegpt.Topic(("豆",)))  # type: ignore[arg-type]
    assert translate(caught.value.message, "ja") == (
        "--topic は文字列かmamegpt.Topicで指定してください(指定値: ['町'])。"
        "--out はパスで指定してください(指定値: 3)。"
        f"--schema はmamegpt.Schemaで指定してください(指定値: {reprlib.repr(mamegpt.Topic(('豆',)))})"
    )


def test_numbers_of_numpy_and_tuples_are_taken(little: Little) -> None:
    import numpy as np

    model = mamegpt.load(little.run)
    several = {"max_new_tokens": np.int64(4), "temperature": 1, "seed": np.int32(3), "stop": ("。", "、")}
    expected = model.generate("豆", max_new_tokens=4, temperature=1.0, seed=3, stop=["。", "、"])
    assert model.generate("豆", **several) == expected  # type: ignore[arg-type]
    ids = model.tokenizer.encode("昔々")
    assert model.tokenizer.decode(np.array(ids)) == model.tokenizer.decode(tuple(ids)) == "昔々"  # type: ignore[arg-type]


def test_the_types_of_many_elements_are_looked_at_once_each(little: Little, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[object] = []

    def counted(value: object, hint: Any) -> bool:
        looked_at.append(value)
        return _is_of(value, hint)

    monkeypatch.setattr("mamegpt.arguments._is_of", counted)
    assert len(little.tokenizer.decode([100] * 1000)) >= 1000
    assert len(looked_at) < 10
    with pytest.raises(mamegpt.ConfigError, match="ids must be a list of whole numbers"):
        little.tokenizer.decode([*[100] * 1000, "豆", 100])  # type: ignore[list-item]


def test_a_run_can_be_given_where_a_path_can(little: Little, tmp_path: Path) -> None:
    run = mamegpt.Run(little.run)
    assert os.fspath(run) == str(little.run)
    assert mamegpt.load(run).origin == mamegpt.load(little.run).origin
    mamegpt.write_report(run, tmp_path / "one.html")
    mamegpt.write_report([str(little.run)], str(tmp_path / "same.html"))
    assert (tmp_path / "one.html").is_file() and (tmp_path / "same.html").is_file()


def test_a_run_has_the_tokenizer_that_it_was_trained_with_and_no_other(little: Little) -> None:
    run = mamegpt.Run(little.run)
    newest = run.latest()
    assert newest is not None
    for where in (run, newest.path):
        assert mamegpt.load(where, spm_file="tokenizer.model").tokenizer.fingerprint == little.tokenizer.fingerprint
        with pytest.raises(mamegpt.ModelError, match=re.escape(f"{run.folder} has no nope; choose with spm_file")):
            mamegpt.load(where, spm_file="nope")


def test_an_unknown_architecture_is_not_asked_for_even_heads() -> None:
    sizes = mamegpt.TrainConfig(emb_dim=36, n_heads=4).model(vocab_size=100)
    assert isinstance(sizes, ModelConfig) and sizes.problems("unknown", None) == []
    assert "into even widths" in sizes.problems("qwen3", {})[0]
