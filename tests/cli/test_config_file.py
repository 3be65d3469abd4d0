"""``mamegpt train --config FILE``: a file's settings hold where no option is typed, and before any preset."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import Mame, chosen
from little import Little
from training_helpers import final_weights

from mamegpt.config import TrainConfig, read_settings
from mamegpt.presets import ORIGINAL, peak_lr, preset


def toml(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_trained_again_from_its_own_settings_into_another_folder(
    little: Little, tmp_path: Path, mame: Mame
) -> None:
    before = content(little.run)
    file = little.run / "config.json"
    assert mame("train", "--config", file)[2] == "error: --out is needed\n"
    assert mame("train", "--config", file, "--out", tmp_path / "again")[0] == 0
    old, new = TrainConfig.load(file), TrainConfig.load(tmp_path / "again" / "config.json")
    assert new.fingerprint() == old.fingerprint() and new.out == str(tmp_path / "again")
    step = old.max_steps
    assert final_weights(tmp_path / "again", step) == final_weights(little.run, step)
    assert content(little.run) == before
    code, _, err = mame("train", "--config", file, "--out", little.run)
    assert code == 2 and "already exists" in err and content(little.run) == before


def test_options_override_a_file_and_a_file_overrides_presets(tmp_path: Path) -> None:
    file = toml(tmp_path, 'data = "a.txt"\nemb_dim = 256\nminutes = 5\nlog_every_steps = 7\nout = "runs/豆"\n')
    found = chosen("--config", file, "--size", "15m")
    assert (found.data, found.emb_dim, found.n_layers, found.minutes, found.out) == ("a.txt", 256, 8, 5.0, "runs/豆")
    assert found.lr == peak_lr(256, "muon") and type(found.minutes) is float
    assert chosen("--config", file, "--emb-dim", 512).lr == peak_lr(512, "muon")
    assert chosen("--config", file, "--optimizer", "adamw").lr == peak_lr(256, "adamw")
    assert chosen("--config", file, "--max-steps", 50).minutes == 0.0
    file = toml(tmp_path, "lr = 1\nmax_steps = 50")
    assert chosen("--config", file, "--emb-dim", 512).lr == 1.0
    assert chosen("--config", file, "--minutes", 2).max_steps == TrainConfig.max_steps
    assert chosen("--config", file, "--recipe", "original").architecture == "custom-gpt"


def test_what_was_typed_is_what_is_trained(little: Little, tmp_path: Path, mame: Mame) -> None:
    out = tmp_path / "run"
    code, _, err = mame(
        "train", "--config", little.run / "config.json", "--out", out, "--max-steps", "1", "--n-layers", "1"
    )
    assert code == 0, err
    old, new = (TrainConfig.load(run / "config.json").to_dict() for run in (little.run, out))
    changed = {name for name, value in new.items() if value != old[name]}
    assert changed == {"out", "max_steps", "n_layers"} and new["max_steps"] == new["n_layers"] == 1


def test_settings_of_an_older_version_are_read_as_resuming_does(tmp_path: Path) -> None:
    old = TrainConfig(data="a", tokenizer="b", out="c", lr=0.5).to_dict()
    for name in ("encoding", "sharding", "init_from", "head_dim", "on_bad_loss"):
        old.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(old), encoding="utf-8-sig")
    assert read_settings(tmp_path / "config.json") == old
    (tmp_path / "metrics.jsonl").touch()  # so it is a run's, whose folder is taken
    found = read_settings(tmp_path / "config.json")
    assert found == {name: value for name, value in old.items() if name != "out"}
    assert preset(**found) == TrainConfig(data="a", tokenizer="b", lr=0.5)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("none.toml", None, "none.toml cannot be read (No such file or directory); give a run's config.json or a"),
        ("a.toml", "bach_size = 3", "a.toml does not hold settings: bach_size is unknown"),
        ("a.toml", "[model]\nemb_dim = 64", "a.toml does not hold settings: model is unknown"),
        ("a.toml", "emb_dim = '64'", "a.toml does not hold settings: emb_dim must be a whole number (got '64')"),
        ("a.toml", "seed = 2026-01-01", "a.toml does not hold settings: seed must be a whole number (got datetime"),
        ("a.toml", "lr = nan", "a.toml does not hold settings: lr must be a finite number (got nan)"),
        ("a.toml", "emb_dim = 0", "--data is needed; --tokenizer is needed; --emb-dim must be at least 1 (got 0)"),
        ("a.toml", "lr =", "a.toml is not TOML (line 1, character 5: a value must be a string in quotes, a number"),
        ("a.toml", "lr = " + "[" * 9999, "a.toml is not TOML ("),
        (
            "a.yaml",
            "lr: 1",
            "a.yaml is not JSON (line 1, character 1: a value is missing); give a run's config.json or",
        ),
        ("a.json", "[]", "a.json does not hold settings: it must be a JSON object (got [])"),
        ("a.json", "lr = 1", "a.json is not JSON ("),
        ("a.json", '{"model_type": "qwen3"}', "a.json does not hold settings: it is of an exported model"),
        ("a.json", b"\xff\xfe\x00", "a.json is not JSON (not UTF-8 text at byte 0); give"),
    ],
)
def test_a_file_that_holds_no_settings_is_named_in_one_line(
    name: str, text: Any, complaint: str, tmp_path: Path, mame: Mame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    code, out, err = mame("train", "--config", name, "--out", "run")
    assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith(f"error: {complaint}")
    assert not Path("run").exists()


def test_a_setting_that_cannot_be_is_named_with_the_file_it_is_from(
    little: Little, tmp_path: Path, mame: Mame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    toml(tmp_path, "n_layers = 0\nlr = -1.0\nbatch_size = 0\nseed = 3")
    words = ["train", "--config", "settings.toml", "--data", little.text, "--tokenizer", little.spm, "--out", "run"]
    assert mame(*words)[2].endswith("; set in settings.toml: batch_size, lr, n_layers\n")
    assert mame(*words, "--lr", 0, "--n-layers", 1)[2].endswith("; set in settings.toml: batch_size\n")
    assert "settings.toml" not in mame(*words, "--lr", 0, "--n-layers", 1, "--batch-size", 0)[2]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--size 15m", "leave out --size, which would do nothing with the settings in "),
        ("--recipe original", "leave out --recipe, which would do nothing with the settings in "),
        ("--resume run", "--resume takes every setting but --on-bad-loss from the run; leave the others out"),
        ("--config", "--config needs a value"),
        ("--optimizer adamw --muon-lr 0.02", "leave out --muon-lr, which would do nothing with --optimizer adamw"),
    ],
)
def test_options_that_do_nothing_beside_a_file_are_refused(
    words: str, complaint: str, little: Little, tmp_path: Path, mame: Mame
) -> None:
    given = ["--config", little.run / "config.json", "--out", tmp_path / "run"]
    code, _, err = mame("train", *given, *words.split())
    assert code == 2 and complaint in err, err
    assert not (tmp_path / "run").exists()


def test_the_original_recipe_has_two_names(little: Little, tmp_path: Path, mame: Mame) -> None:
    assert preset(recipe="original") == preset(recipe="seed") == ORIGINAL
    for name in ("original", "seed"):
        code, _, err = mame("train", "--recipe", name, "--size", "1m")
        assert code == 2 and err.startswith(f"error: --recipe {name} has one size, its own; leave out --size 1m")
        words = ["--data", little.text, "--tokenizer", little.spm, "--out", tmp_path / name, "--device", "cpu"]
        words += ["--context-length", "16", "--max-steps", "1", "--batch-size", "8", "--precision", "fp32"]
        words += ["--engine", "torch"]
        assert mame("train", "--recipe", name, *words)[0] == 0
    runs = [TrainConfig.load(tmp_path / name / "config.json") for name in ("original", "seed")]
    assert runs[0].fingerprint() == runs[1].fingerprint() and runs[0].architecture == "custom-gpt"
