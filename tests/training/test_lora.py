"""LoRA: equal to PEFT, frozen weights stay, exact resume, merged wherever a run is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from little import LABELLED, ROOT, Little
from safetensors.torch import load_file

from mamegpt.config import TuneConfig
from mamegpt.data.dialogues import write_dialogues
from mamegpt.errors import ConfigError
from mamegpt.models.lora import add_adapters, merged
from mamegpt.pretrained import load, load_classifier
from mamegpt.run.run import Run
from mamegpt.training.init_from import tuned_config
from mamegpt.training.trainer import train
from mamegpt.training.tune import tune

GOLDEN = ROOT / "tests" / "golden"
IDS = torch.tensor([[2, 300, 310, 320, 330, 340], [3, 100, 2, 350, 360, 479]])
# fmt: off
TINY: dict[str, Any] = {
    "batch_size": 8, "max_steps": 4, "eval_every_steps": 2, "save_every_steps": 2, "val_fraction": 0.2,
    "precision": "fp32", "engine": "torch", "device": "cpu", "lora": 4,
}
# fmt: on


def settings(model: Path, data: Path, out: Path, **changed: Any) -> TuneConfig:
    given = {**TINY, **changed}
    return tuned_config(TuneConfig(init_from=str(model), data=str(data), out=str(out), **given), given.keys())


def test_adapters_compute_what_peft_computes() -> None:
    golden = load_file(GOLDEN / "tuning.safetensors")
    adapters = {name.partition("|")[0]: value for name, value in golden.items() if name.endswith("|value")}
    model = load(GOLDEN / "mame", device="cpu").model
    add_adapters(model, 3)
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert learned.keys() == adapters.keys()
    model.load_state_dict(adapters, strict=False)
    logits = model(IDS)
    torch.testing.assert_close(logits, golden["logits"])
    logits.square().sum().backward()
    for name, p in learned.items():
        torch.testing.assert_close(p.grad, golden[f"{name}|gradient"], rtol=1e-4, atol=1e-2)
    plain = load(GOLDEN / "mame", device="cpu").model
    plain.load_state_dict(merged(model.state_dict()))
    torch.testing.assert_close(plain(IDS), golden["merged"])


def test_a_run_learns_adapters_alone_resumes_bitwise_and_is_merged_when_loaded(little: Little, tmp_path: Path) -> None:
    write_dialogues(tmp_path / "pairs.jsonl", 60, seed=1)
    config = settings(little.run, tmp_path / "pairs.jsonl", tmp_path / "a", keep_checkpoints=9)
    straight = train(config)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "step-00000004")
    resumed = train(settings(little.run, tmp_path / "pairs.jsonl", tmp_path / "b", keep_checkpoints=9), resume=True)
    assert resumed.losses == straight.losses
    first, last = (tmp_path / "a" / "checkpoints" / f"step-{step:08d}" for step in (0, 4))
    assert (last / "model.safetensors").read_bytes() == (
        tmp_path / "b" / "checkpoints" / last.name / "model.safetensors"
    ).read_bytes()

    before, after = (load_file(path / "model.safetensors") for path in (first, last))
    turns = Run(tmp_path / "a").tokenizer.turns
    assert turns
    for name, tensor in before.items():
        changed = {int(i) for i in (tensor != after[name]).reshape(len(tensor), -1).any(-1).nonzero()}
        if "lora" in name:
            assert changed
        else:  # of all other weights, the rows of the tokens of turns
            assert changed <= ({*turns.begin.values(), turns.end} if tensor.ndim == 2 else set())
    states = {name.partition("|")[0] for name in load_file(last / "optimizer.safetensors")}
    assert states == {name for name in before if "lora" in name} | {"tok_emb.weight", "out_head.weight"}

    loaded = load(tmp_path / "a", device="cpu")
    assert loaded.model.state_dict().keys() == load(little.run, device="cpu").model.state_dict().keys()
    name = "trf_blocks.0.att.qkv"
    product = after[f"{name}.lora_B"] @ after[f"{name}.lora_A"]
    torch.testing.assert_close(loaded.model.state_dict()[f"{name}.weight"], before[f"{name}.weight"] + product)


def test_weight_decay_leaves_frozen_rows_alone(little: Little, tmp_path: Path) -> None:
    write_dialogues(tmp_path / "pairs.jsonl", 60, seed=1)
    train(settings(little.run, tmp_path / "pairs.jsonl", tmp_path / "a", optimizer="adamw", weight_decay=0.5))
    run = Run(tmp_path / "a")
    before, after = (load_file(one.path / "model.safetensors") for one in (run.checkpoints()[i] for i in (0, -1)))
    assert run.tokenizer.turns
    learned = {*run.tokenizer.turns.begin.values(), run.tokenizer.turns.end}
    for name in ("tok_emb.weight", "out_head.weight"):
        changed = {int(i) for i in (before[name] != after[name]).any(-1).nonzero()}
        assert changed and changed <= learned


def test_a_classifier_learns_its_head_beside_adapters(little: Little, tmp_path: Path) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in LABELLED))
    out = tune(little.run, data, tmp_path / "run", **TINY, task="classify", keep_checkpoints=9).out
    before, after = (load_file(one.path / "model.safetensors") for one in (Run(out).checkpoints()[i] for i in (0, -1)))
    assert {name for name, tensor in before.items() if not torch.equal(tensor, after[name])} == {
        name for name in before if "lora" in name or name == "out_head.weight"
    }
    assert load_classifier(out).labels == ("春", "秋")


def test_a_rank_below_0_is_refused() -> None:
    with pytest.raises(ConfigError, match="lora must be at least 0"):
        TuneConfig(data="a", tokenizer="b", out="c", lora=-1, text_share=0).validate()
