"""Training that goes on from a model: its numbers, shape and tokenizer, and clear words where settings clash."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from little import Little, folder_of
from safetensors.torch import load_file
from training_helpers import TINY, tiny

from mamegpt.cli.main import main
from mamegpt.config import TrainConfig
from mamegpt.errors import ConfigError, MamegptError
from mamegpt.models.registry import build_model, hf_formats
from mamegpt.presets import preset
from mamegpt.pretrained import load
from mamegpt.run.run import Run
from mamegpt.tokenizer.tokenizer import train_tokenizer
from mamegpt.training.init_from import config_from_pretrained
from mamegpt.training.trainer import train

FEW = {
    name: TINY[name]
    for name in ("batch_size", "log_every_steps", "val_fraction", "precision", "engine", "compile", "device")
}


def settings(little: Little, start: Path, out: Path, **changed: object) -> TrainConfig:
    given = {**FEW, "data": str(little.text), "out": str(out), "init_from": str(start), "max_steps": 2}
    return config_from_pretrained(TrainConfig(**given | changed), given | changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("model_type", sorted(hf_formats()))
def test_it_begins_with_the_weights_of_any_folder(little: Little, tmp_path: Path, model_type: str) -> None:
    start = folder_of(little, tmp_path / "start", model_type)
    config = settings(little, start, tmp_path / "run")
    assert (config.architecture, config.emb_dim, config.n_heads) == (hf_formats()[model_type].architecture, 32, 4)
    assert config.lr == pytest.approx(2 * TrainConfig.lr)  # a quarter as wide
    train(config)
    begun = load_file(tmp_path / "run" / "checkpoints" / "step-00000000" / "model.safetensors")
    given = load(start, device="cpu").model.state_dict()
    assert begun.keys() == given.keys() and all(torch.equal(begun[name], given[name]) for name in begun)
    ended = load(str(tmp_path / "run"), device="cpu").model.state_dict()
    assert not any(torch.equal(ended[name], given[name]) for name in given if name.endswith("norm.weight"))


def test_from_a_run_and_resumed_it_ends_as_if_never_stopped(little: Little, tmp_path: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(little.run, start)
    straight = train(settings(little, start, tmp_path / "a", max_steps=3, save_every_steps=3)).out
    stopped = settings(little, start, tmp_path / "b", max_steps=3, save_every_steps=3)
    train(stopped)
    shutil.rmtree(Run(tmp_path / "b").checkpoints()[-1].path)  # killed after its first steps
    shutil.rmtree(start)  # what it began with is in the run
    train(stopped, resume=True)
    a, b = (load(run, device="cpu").model.state_dict() for run in (straight, tmp_path / "b"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(
        torch.equal(a[name], tensor) for name, tensor in load(little.run, device="cpu").model.state_dict().items()
    )


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"emb_dim": 64, "n_layers": 3}, "emb_dim 64: it has 32; n_layers 3: it has 2"),
        ({"architecture": "custom-gpt"}, "architecture custom-gpt: it has qwen3"),
        ({"tokenizer": "other.model"}, "tokenizer other.model: it has another"),
    ],
)
def test_what_contradicts_the_model_is_named(
    little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, object], complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    train_tokenizer([little.text.read_text(encoding="utf-8")], Path("other"), vocab_size=900)
    start = folder_of(little, tmp_path / "start", "qwen3")
    with pytest.raises(ConfigError, match=complaint):
        settings(little, start, tmp_path / "run", **changed)
    same = {"emb_dim": 32, "tokenizer": str(little.spm), "lr": 0.5}
    config = settings(little, start, tmp_path / "run", **same)
    assert (config.emb_dim, config.tokenizer, config.lr) == (32, str(little.spm), 0.5)


def test_a_model_keeps_the_width_of_its_heads_and_its_epsilon(little: Little, tmp_path: Path) -> None:
    start = folder_of(little, tmp_path / "start", "qwen3", head_dim=10, norm_eps=1e-5)
    sizes = load(train(settings(little, start, tmp_path / "run")).out, device="cpu").sizes
    assert sizes is not None and (sizes.head_dim, sizes.norm_eps) == (10, 1e-5)
    start = folder_of(little, tmp_path / "plain", "qwen3", head_dim=8)  # 32 / 4, as folders say it
    assert settings(little, start, tmp_path / "run").head_dim == 0
    with pytest.raises(MamegptError, match="neither a folder nor a Hub name"):
        settings(little, tmp_path / "none", tmp_path / "run")


def test_a_run_without_it_has_the_fingerprint_it_always_had() -> None:
    assert (
        preset(ngrams=False).fingerprint() == "c5d17377"
    )  # as commit b215704 wrote it, before there were some of the settings
    assert preset(recipe="seed").fingerprint() == "306841a0"
    assert (
        tiny(Path("a"), Path("b"), Path("c")).fingerprint()
        != tiny(Path("a"), Path("b"), Path("c"), init_from="d").fingerprint()
    )


def test_the_command_line(little: Little, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = folder_of(little, tmp_path / "start", "gpt2")
    words = [
        "train",
        "--init-from",
        str(start),
        "--data",
        str(little.text),
        "--out",
        str(tmp_path / "run"),
        "--max-steps",
        "1",
        "--precision",
        "fp32",
        "--device",
        "cpu",
        "--compile",
        "false",
    ]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--size", "1m"])
    assert ended.value.code == 2
    assert "--init-from brings its own shape; leave out --size 1m" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    sizes = load(str(tmp_path / "run")).sizes
    assert sizes is not None and build_model("custom-gpt", sizes).context_length == 24
