"""A run's folder: what is one, what is in it, and one line for what is missing or damaged."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from little import Little

from mamegpt.config import TrainConfig
from mamegpt.data.shards import open_shards
from mamegpt.errors import CheckpointError, MamegptError, ModelError
from mamegpt.pretrained import load
from mamegpt.run.metrics import read_metrics
from mamegpt.run.run import Checkpoint, Extension, Run, checkpoints
from mamegpt.training.budget import extend


@pytest.fixture
def copy(little: Little, tmp_path: Path) -> Path:
    return Path(shutil.copytree(little.run, tmp_path / "run"))


def test_a_run_tells_what_is_in_its_folder(little: Little) -> None:
    run = Run(str(little.run))
    assert (repr(run), run.folder) == (f"Run({str(little.run)!r})", little.run)
    assert run.config == TrainConfig.load(little.run / "config.json") and run.is_begun
    assert run.tokenizer.fingerprint == little.tokenizer.fingerprint
    assert run.metrics == read_metrics(little.run)
    assert [step["step"] for step in run.steps] == list(range(1, 13))
    assert run.quality == run.validations[-1] and run.quality is not None and run.quality.step == 12
    newest = Checkpoint(12, little.run / "checkpoints" / "step-00000012")
    assert (run.checkpoints(), run.latest()) == ([newest], newest)
    tokens = run.tokens()
    assert tokens is not None and tokens[0] == open_shards(little.run / "tokens")[0]
    assert set(tokens[1]) == {"train", "val"}
    assert run.machine["threads"] >= 1
    assert (run.evaluation, run.extensions) == ({}, [])


READS = {
    "config",
    "tokenizer",
    "metrics",
    "steps",
    "validations",
    "quality",
    "machine",
    "extensions",
    "evaluation",
}


@pytest.mark.parametrize("name", sorted(READS))
def test_what_is_no_run_has_nothing_to_read(little: Little, tmp_path: Path, name: str) -> None:
    file = tmp_path / "a-file.txt"
    file.write_text("豆", encoding="utf-8")
    for folder in (tmp_path / "missing", file, little.exported):
        run = Run(folder)
        for read in (lambda run=run: getattr(run, name), run.checkpoints, run.latest, run.tokens):
            with pytest.raises(CheckpointError, match=re.escape(str(folder))):
                read()


def test_runs_are_equal_if_their_folder_is(little: Little, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent)
    same = {Run(copy), Run(str(copy)), Run("run"), Run(copy.parent / "other" / ".." / "run")}
    assert same == {Run(copy)} and Run(copy) != Run(little.run) and Run(copy) != copy


def test_a_young_run_has_no_checkpoint_yet(copy: Path) -> None:
    for path in copy.iterdir():
        if path.name != "config.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError, match=rf"{re.escape(str(copy))} has no checkpoint yet; resume with: "):
        load(copy)


def test_a_folder_that_is_neither_run_nor_model_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"sizes": 1}', encoding="utf-8")
    with pytest.raises(ModelError, match="is neither a run nor a model folder: it has no model_type in its"):
        load(tmp_path)


def test_a_run_has_settings_and_what_training_made(little: Little, copy: Path, tmp_path: Path) -> None:
    found = Run.find(little.run)
    assert found is not None and found.folder == little.run
    for name in ("checkpoints", "metrics.jsonl", "tokens"):
        folder = tmp_path / name
        folder.mkdir()
        shutil.move(copy / name, folder / name)
        assert Run.find(folder) is None
        shutil.copy(copy / "config.json", folder)
        assert Run.find(folder) is not None
    young = Run(copy)  # before its text is tokenized
    assert (Run.find(copy), young.is_begun, young.steps, young.quality, young.latest()) == (None, True, [], None, None)
    assert not Run(tmp_path).is_begun
    for no_run in (
        little.exported,
        little.run / "checkpoints",
        tmp_path / "nothing",
        "a" * 5000,
        "a\0b",
        "me/model",
    ):
        assert Run.find(no_run) is None


def test_a_checkpoint_belongs_to_a_run(little: Little, copy: Path, tmp_path: Path) -> None:
    path = copy / "checkpoints" / "step-00000012"
    shutil.copytree(path, path.with_name("best"))
    for inside in (path, str(path), path.with_name("best")):
        run = Run.of_checkpoint(inside)
        assert run is not None and run.folder == copy
    export = Path(shutil.copytree(little.exported, tmp_path / "checkpoints" / "model"))  # a folder of that name
    too_long, no_name = "checkpoints/" + "a" * 5000, "checkpoints/a\0b"
    for outside in (export, copy, path.with_name("none"), path / "state.json", too_long, no_name):
        assert Run.of_checkpoint(outside) is None


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for name in ("step-00000009", "step-100000000", "step-99999999", "damaged-step-00000010", "step-best", ".step-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000011").write_text("a file")
    assert [step for step, _ in checkpoints(tmp_path)] == [9, 99_999_999, 100_000_000]
    assert [Checkpoint.at(tmp_path, step) for step, _ in checkpoints(tmp_path)] == checkpoints(tmp_path)
    assert checkpoints(tmp_path / "nothing") == []


def test_tokens_are_the_runs_own_or_those_of_its_settings(copy: Path, tmp_path: Path) -> None:
    expected = Run(copy).tokens()
    shutil.move(copy / "tokens", tmp_path / "shards")
    assert Run(copy).tokens() is None
    settings = replace(Run(copy).config, data=str(tmp_path / "shards"))
    (copy / "config.json").write_text(json.dumps(settings.to_dict()), encoding="utf-8")
    found = Run(copy).tokens(verify=False)
    assert found is not None and expected is not None and found[0] == expected[0]


def test_what_a_later_version_writes_an_older_run_lacks(copy: Path) -> None:
    for name in ("machine.json", "metrics.jsonl"):
        (copy / name).unlink()
    run = Run(copy)
    assert (run.machine, run.evaluation, run.extensions, run.metrics, run.validations) == ({}, {}, [], [], [])
    quality = {"loss": 1, "bits_per_byte": 2, "bits_per_character": 3, "n_tokens": 4, "n_characters": 5, "n_bytes": 6}
    (copy / "metrics.jsonl").write_text(json.dumps({"step": 7, "quality": quality}) + "\n", encoding="utf-8")
    found = Run(copy).quality
    assert found is not None and (found.step, found.dtype, found.bits_per_byte) == (7, "", 2)


def test_an_extension_comes_back_as_it_was_written(copy: Path) -> None:
    added = [Extension(12, 1.5, steps=3), Extension(15, 2.5, minutes=0.5, job="a")]
    for one in added:
        extend(copy, one)
    assert Run(copy).extensions == added


@pytest.mark.parametrize(
    ("name", "content", "read", "message"),
    [
        ("config.json", None, "config", "it has no config.json"),
        ("config.json", "{", "config", "config.json does not hold the settings of a run: "),
        ("tokenizer.model", None, "tokenizer", "tokenizer.model"),
        ("metrics.jsonl", '{"step": "1"}\n', "steps", "metrics.jsonl, line 1 is not a metrics record (step must be a"),
        ("machine.json", "[]", "machine", "machine.json is damaged (it must be a JSON object (got [])); remove it"),
        ("machine.json", '{"threads": 0}', "machine", "machine.json is damaged (threads must be at least 1 (got 0)); "),
        ("extensions.json", '[{"a": 1}]', "extensions", "extensions.json is damaged ([0].from_step is missing; [0]."),
        ("extensions.json", '[{"from_step": 1, "from_s": 2}]', "extensions", "has neither steps nor minutes"),
        ("extensions.json", "7", "extensions", "extensions.json is damaged ("),
        ("evaluation.json", "[1]", "evaluation", "evaluation.json is damaged (it must be a JSON object (got [1])); "),
        ("evaluation.json", "\udcff", "evaluation", "evaluation.json is damaged ("),
    ],
)
def test_what_is_missing_or_damaged_is_named_in_one_line(
    copy: Path, name: str, content: str | None, read: str, message: str
) -> None:
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(MamegptError) as caught:
        getattr(Run(copy), read)
    said = str(caught.value)
    assert str(copy) in said and message in said and "\n" not in said


def test_what_a_reader_of_an_evaluation_does_not_find_is_damage(copy: Path) -> None:
    path = copy / "evaluation.json"
    assert Run(copy).read_evaluation(dict[str, list[int]]) is None
    path.write_text('{"models": [], "text": 1}', encoding="utf-8")
    assert Run(copy).read_evaluation(dict[str, Any]) == Run(copy).evaluation == {"models": [], "text": 1}
    with pytest.raises(
        CheckpointError, match=r"evaluation\.json is damaged \(text must be a list .*; delete it, or run: "
    ):
        Run(copy).read_evaluation(dict[str, list[int]])
