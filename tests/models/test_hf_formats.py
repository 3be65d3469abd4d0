"""Formats that transformers reads without our code: equal logits, equal names, and folders that either side writes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import (
    NATIVE,
    NATIVE_VARIANTS,
    edit,
    foreign_folder,
    model_of,
    random_ids,
    reference,
    settings_of,
    sizes,
    supported,
)
from little import N_SENTENCES, Little
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from mamegpt.errors import MamegptError
from mamegpt.exporting.publish import export
from mamegpt.models.base import cpu_state_dict
from mamegpt.models.registry import ARCHITECTURES, architecture, build_model, hf_formats
from mamegpt.pretrained import load

OTHER_PYTHON = "MAMEGPT_TRANSFORMERS4_PYTHON"
FIRST = [architecture(name).hf_formats[0] for name in ARCHITECTURES]
OWN = [found.model_type for found in FIRST if not found.remote_code]
"""Formats of architectures that transformers has."""


# ---------------------------------------------------------------- the model


@NATIVE_VARIANTS
def test_logits_are_those_of_transformers(model_type: str, changes: dict[str, Any]) -> None:
    hf_format = hf_formats()[model_type]
    model, theirs = model_of(hf_format.architecture, **changes), reference(hf_format, sizes(**changes))
    theirs.load_state_dict(hf_format.to_file(model.state_dict()))
    for length in (1, 7, 24):
        ids = random_ids(length=length)
        with torch.inference_mode():
            logits = model(ids)
            assert logits.std() > 0.5
            torch.testing.assert_close(logits, theirs(ids, use_cache=False).logits, atol=2e-5, rtol=1e-5)


@NATIVE_VARIANTS
def test_keys_shapes_and_parameters_are_those_of_transformers(model_type: str, changes: dict[str, Any]) -> None:
    hf_format = hf_formats()[model_type]
    model, theirs = build_model(hf_format.architecture, sizes(**changes)), reference(hf_format, sizes(**changes))
    states = hf_format.to_file(model.state_dict()), theirs.state_dict()
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    assert shapes[0] == shapes[1]
    if states[0].keys() == model.state_dict().keys():
        assert [name for name, _ in model.named_parameters()] == [name for name, _ in theirs.named_parameters()]


@NATIVE_VARIANTS
def test_every_size_matters(model_type: str, changes: dict[str, Any]) -> None:
    """So that the comparison above could fail: other positions or another epsilon give other logits."""
    name = hf_formats()[model_type].architecture
    ids, state = random_ids(), model_of(name, **changes).state_dict()
    results = []
    for more in ({}, {"rope_theta": 7.0}, {"norm_eps": 0.5}):
        if supported(name, more) == more:
            model = build_model(name, sizes(**(changes | more))).eval()
            model.load_state_dict(state)
            results.append(model(ids))
    for other in results[1:]:
        assert (other - results[0]).abs().max() > 1e-2


@NATIVE_VARIANTS
def test_sizes_and_tensors_come_back_from_the_folder_that_they_make(model_type: str, changes: dict[str, Any]) -> None:
    hf_format = hf_formats()[model_type]
    own, config = cpu_state_dict(model_of(hf_format.architecture, **changes)), hf_format.config(sizes(**changes))
    stored = hf_format.to_file(own)
    whole = hf_format.sizes(json.loads(json.dumps(config)), stored, Path("model.safetensors"))
    asked = vars(sizes(**changes))
    assert {name for name, value in vars(whole).items() if value != asked[name]} <= {
        "n_kv_heads",
        "head_dim",
        "ffn_dim",
    }
    assert hf_format.config(whole) == config  # a 0 makes what it stands for
    assert hf_format.sizes(hf_format.config(whole), stored, Path("model.safetensors")) == whole
    back = hf_format.from_file(stored, whole)
    assert back.keys() == own.keys() and all(torch.equal(back[name], own[name]) for name in own)


# ---------------------------------------------------------------- folders that transformers wrote


@pytest.fixture
def foreign(little: Little, tmp_path: Path, model_type: str) -> Path:
    return foreign_folder(little, tmp_path / "foreign", model_type)


def same_logits(folder: Path, theirs: Any) -> None:
    with torch.inference_mode():
        ours = load(folder, device="cpu").model(random_ids())
        torch.testing.assert_close(ours, theirs(random_ids()).logits, atol=2e-5, rtol=1e-5)


@NATIVE
@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": True}, {"head_dim": 10, "norm_eps": 0.01}], ids=str)
@pytest.mark.parametrize("words", ["of transformers 5", "of transformers 4"])
def test_a_folder_of_transformers_loads_by_our_own_class(
    little: Little, tmp_path: Path, model_type: str, changes: dict[str, Any], words: str
) -> None:
    folder = foreign_folder(little, tmp_path / "foreign", model_type, **changes)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    if words == "of transformers 4":
        edit(folder, dtype="-", torch_dtype="float32")
        if "rope_parameters" in settings_of(folder):
            edit(folder, rope_parameters="-", rope_theta=77, rope_scaling=None)
    same_logits(folder, theirs)
    found = load(folder, device="cpu")
    assert found.architecture == hf_formats()[model_type].architecture and found.use_cache


@NATIVE
def test_weights_in_bfloat16_become_float32(foreign: Path) -> None:
    before = {name: p.bfloat16().float() for name, p in load(foreign, device="cpu").model.named_parameters()}
    weights = {name: tensor.bfloat16() for name, tensor in load_file(foreign / "model.safetensors").items()}
    save_file(weights, foreign / "model.safetensors", metadata={"format": "pt"})
    edit(foreign, dtype="bfloat16")
    for name, parameter in load(foreign, device="cpu").model.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, before[name])


def others(value: Any) -> Iterator[Any]:
    """Values that might stand in the place of one."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value * 2)
    elif isinstance(value, float):
        yield value * 2 + 0.1
    elif isinstance(value, str):
        yield from ("gelu", "relu")
    elif isinstance(value, dict):
        yield value | {"rope_type": "linear", "factor": 2.0}
        yield value | {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8,
        }
        yield from ({**value, name: one} for name, old in value.items() for one in others(old))
    elif isinstance(value, list):
        yield ["sliding_attention" for _ in value]


@NATIVE
def test_whatever_a_config_says_we_compute_what_transformers_does_or_refuse(foreign: Path, model_type: str) -> None:
    """Each setting of the folder left out, or another value in its place."""
    whole, state = settings_of(foreign), AutoModelForCausalLM.from_pretrained(foreign).state_dict()
    n_refused = n_equal = 0
    for name, value in whole.items():
        if name in ("architectures", "dtype", "model_type", "transformers_version", "vocab_size"):
            continue
        for other in ("-", *others(value)):
            edit(foreign, **whole | {name: other})
            try:
                load(foreign, device="cpu")
            except MamegptError as error:
                assert "\n" not in str(error)
                n_refused += 1
                continue
            theirs = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(foreign)).eval()
            theirs.load_state_dict(state)
            same_logits(foreign, theirs)
            n_equal += 1
    assert n_refused > 15 and n_equal > 10


# ---------------------------------------------------------------- folders that we write


@pytest.fixture(scope="module", params=OWN)
def native(
    little: Little, warm_exports: None, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """An untied model that transformers has, from a folder of its in bfloat16, exported by us."""
    model_type = request.param
    folder = foreign_folder(
        little, tmp_path_factory.mktemp(model_type) / "foreign", model_type, head_dim=10, norm_eps=0.01
    )
    weights = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    report = export(str(folder), folder.parent / "native", n_sentences=N_SENTENCES)
    assert report.files == sorted(path.name for path in report.out.iterdir())
    assert next(one.found for one in report.checks["hf"] if one.name == "logits").endswith("from model.safetensors")
    return report.out


def test_a_native_folder_holds_no_code_and_no_pickle(native: Path) -> None:
    assert sorted(path.name for path in native.iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "jp.model",
        "jp.vocab",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = settings_of(native)
    assert "auto_map" not in config
    added = {"dtype": "float32", "use_cache": True, "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 3}
    assert config.items() >= added.items()
    assert config["tie_word_embeddings"] is False and config["head_dim"] == 10
    card = (native / "README.md").read_text(encoding="utf-8")
    assert "trust_remote_code=True" not in card and "modeling_" not in card
    assert f"- {config['model_type']}\n" in card and "KV ヘッド数 2、出力層と埋め込み層の重み共有なし" in card


def test_a_native_folder_loads_in_both_directions(native: Path) -> None:
    theirs, info = AutoModelForCausalLM.from_pretrained(native, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    same_logits(native, theirs)


@pytest.mark.slow
def test_a_native_untied_folder_loads_in_transformers_4(native: Path, tmp_path: Path) -> None:
    python = os.environ.get(OTHER_PYTHON)
    if not python:
        pytest.skip(f"set {OTHER_PYTHON} to an interpreter with transformers 4.57 (and torch, safetensors, numpy)")
    script = """
import json, sys, torch, transformers
from transformers import AutoConfig, AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
print(json.dumps([transformers.__version__, model(torch.tensor(json.loads(sys.argv[2]))).logits.tolist()]))
"""
    done = subprocess.run(
        [python, "-c", script, str(native), json.dumps(random_ids().tolist())],
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    version, logits = json.loads(done.stdout.splitlines()[-1])
    assert version.startswith("4.")
    with torch.inference_mode():
        ours = load(native, device="cpu").model(random_ids())
    torch.testing.assert_close(torch.tensor(logits), ours, atol=2e-5, rtol=1e-5)
