"""GPT-2 folders of transformers: loaded as the book's model, or refused with what they ask for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from little import Little, random_model, sizes_for
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from mamegpt.errors import ModelError
from mamegpt.models.base import cpu_state_dict
from mamegpt.models.custom_gpt.hf import GPT2
from mamegpt.models.registry import architecture
from mamegpt.pretrained import load

IDS = torch.tensor([[5, 800, 31, 7, 4, 9, 11, 999, 2, 44]])


def foreign_folder(little: Little, folder: Path, **changes: Any) -> Path:
    """A small GPT-2 as transformers itself makes and saves it, with a SentencePiece model beside."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 1000, "n_positions": 24, "n_embd": 32, "n_layer": 2, "n_head": 4}
    model = GPT2LMHeadModel(GPT2Config(**sizes | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    shutil.copy(little.spm, folder / "jp.model")
    return folder


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False, "resid_pdrop": 0.0}])
def test_a_foreign_folder_is_our_model(little: Little, tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = foreign_folder(little, tmp_path / "foreign", **changes)
    loaded = load(folder)
    assert loaded.architecture == "custom-gpt" and loaded.sizes is not None and loaded.sizes.qkv_bias
    assert loaded.sizes.drop_rate == changes.get("resid_pdrop", 0.1)
    with torch.inference_mode():
        theirs = GPT2LMHeadModel.from_pretrained(folder).eval()(IDS).logits
        torch.testing.assert_close(loaded.model(IDS), theirs, atol=2e-5, rtol=1e-5)  # gelu_new is written otherwise


def test_names_without_a_prefix_and_masks_of_old_files(little: Little, tmp_path: Path) -> None:
    folder = foreign_folder(little, tmp_path / "foreign")
    before = load(folder, device="cpu").model.state_dict()
    weights = {name.removeprefix("transformer."): t for name, t in load_file(folder / "model.safetensors").items()}
    weights |= {"h.0.attn.bias": torch.ones(1, 1, 24, 24), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    save_file(weights, folder / "model.safetensors")
    after = load(folder, device="cpu").model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    save_file(weights | {"h.0.attn.extra": torch.ones(3)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"does not fit the model: .*h.0.attn.extra"):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "gelu"}, "activation_function 'gelu' is not implemented"),
        ({"layer_norm_epsilon": 1e-6, "n_inner": 100}, "layer_norm_epsilon 1e-06 is not .*; n_inner 100 is not"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True is not implemented"),
        (
            {"n_layer": "2", "resid_pdrop": None},
            "n_layer is '2', not a whole number; resid_pdrop is None, not a number",
        ),
        ({"n_layer": 3}, "does not fit the model"),
        ({"vocab_size": 900}, "1000 pieces, but .* 900"),
    ],
    ids=str,
)
def test_what_is_not_implemented_is_refused(
    little: Little, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    folder = foreign_folder(little, tmp_path / "foreign")
    edit(folder, **changes)
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_head_of_its_own_in_a_folder_that_says_it_is_tied(little: Little, tmp_path: Path) -> None:
    folder = foreign_folder(little, tmp_path / "foreign", tie_word_embeddings=False)
    edit(folder, tie_word_embeddings=True)
    with pytest.raises(ModelError, match="tie_word_embeddings is not false, but the head is not the embedding"):
        load(folder)


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_tensors_go_there_and_back(little: Little, qkv_bias: bool) -> None:
    assert architecture("custom-gpt").native_format is GPT2
    sizes = sizes_for(little.tokenizer, qkv_bias=qkv_bias)
    own = cpu_state_dict(random_model(sizes))
    stored = GPT2.to_file(own)
    assert stored["transformer.h.1.mlp.c_fc.weight"].shape == (32, 128)  # GPT-2 multiplies from the other side
    assert stored["transformer.h.1.attn.c_attn.bias"].any() == qkv_bias
    back = GPT2.from_file(stored, sizes)
    assert back.keys() == own.keys() and all(torch.equal(back[name], own[name]) for name in own)
    config = json.loads(json.dumps(GPT2.config(sizes)))
    assert GPT2.sizes(config, stored, Path("model.safetensors")) == sizes
