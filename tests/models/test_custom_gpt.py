"""The book's GPT is GPT-2 as transformers has it; GPT-2 folders are loaded as it, or refused with what they ask for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import SIZES, edit, model_of, random_ids, sizes
from little import Little, random_model, sizes_for
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from mamegpt.config import ModelConfig
from mamegpt.errors import ModelError
from mamegpt.models.base import LanguageModel, cpu_state_dict
from mamegpt.models.custom_gpt.hf import GPT2
from mamegpt.models.registry import architecture, build_model
from mamegpt.pretrained import load

IDS = torch.tensor([[5, 800, 31, 7, 4, 9, 11, 999, 2, 44]])


# ---------------------------------------------------------------- the model


def gpt2_with_weights_of(model: LanguageModel, config: ModelConfig) -> GPT2LMHeadModel:
    gpt2 = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.context_length,
            n_embd=config.emb_dim,
            n_layer=config.n_layers,
            n_head=config.n_heads,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            tie_word_embeddings=False,
        )
    ).eval()
    ours = model.state_dict()
    theirs = {
        "transformer.wte.weight": ours["tok_emb.weight"],
        "transformer.wpe.weight": ours["pos_emb.weight"],
        "transformer.ln_f.weight": ours["final_norm.weight"],
        "transformer.ln_f.bias": ours["final_norm.bias"],
        "lm_head.weight": ours["out_head.weight"],
    }
    layers = {
        "att.qkv": "attn.c_attn",
        "att.proj": "attn.c_proj",
        "ff.layers.0": "mlp.c_fc",
        "ff.layers.2": "mlp.c_proj",
        "norm1": "ln_1",
        "norm2": "ln_2",
    }
    for n in range(config.n_layers):
        for mine, its in layers.items():
            weight = ours[f"trf_blocks.{n}.{mine}.weight"]
            bias = ours.get(f"trf_blocks.{n}.{mine}.bias", torch.zeros(weight.shape[0]))
            theirs[f"transformer.h.{n}.{its}.weight"] = weight.T if weight.ndim == 2 else weight
            theirs[f"transformer.h.{n}.{its}.bias"] = bias
    missing, unexpected = gpt2.load_state_dict(theirs, strict=False)
    assert not unexpected and all(name.endswith(("attn.bias", "attn.masked_bias")) for name in missing)
    return gpt2


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_logits_are_those_of_gpt2_in_transformers(qkv_bias: bool) -> None:
    model = model_of("custom-gpt", qkv_bias=qkv_bias)
    gpt2 = gpt2_with_weights_of(model, sizes(qkv_bias=qkv_bias))
    for length in (1, 7, 24):
        ids = random_ids(length=length)
        with torch.inference_mode():
            torch.testing.assert_close(model(ids), gpt2(ids, use_cache=False).logits, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_the_state_dict_has_exactly_the_keys_and_shapes_of_the_book(qkv_bias: bool) -> None:
    c, v, t = SIZES.emb_dim, SIZES.vocab_size, SIZES.context_length
    expected = {"tok_emb.weight": (v, c), "pos_emb.weight": (t, c), "out_head.weight": (v, c)}
    for name in ("final_norm", *(f"trf_blocks.{n}.norm{i}" for n in range(SIZES.n_layers) for i in (1, 2))):
        expected |= {f"{name}.weight": (c,), f"{name}.bias": (c,)}
    for n in range(SIZES.n_layers):
        block = f"trf_blocks.{n}"
        expected[f"{block}.att.qkv.weight"] = (3 * c, c)
        if qkv_bias:
            expected[f"{block}.att.qkv.bias"] = (3 * c,)
        for name, (n_out, n_in) in {"att.proj": (c, c), "ff.layers.0": (4 * c, c), "ff.layers.2": (c, 4 * c)}.items():
            expected |= {f"{block}.{name}.weight": (n_out, n_in), f"{block}.{name}.bias": (n_out,)}
    state = build_model("custom-gpt", sizes(qkv_bias=qkv_bias)).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


# ---------------------------------------------------------------- folders


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
            r"n_layer must be a whole number \(got '2'\); resid_pdrop must be a number",
        ),
        ({"n_layer": 3}, "does not fit the model"),
        ({"vocab_size": 900}, "vocabulary size 1000, but .* 900"),
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
