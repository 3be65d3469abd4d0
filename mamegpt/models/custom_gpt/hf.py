"""The book's GPT in Hugging Face's formats: custom-gpt with its own code in the folder, and gpt2 of transformers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mamegpt.config import ModelConfig, flag
from mamegpt.errors import ModelError
from mamegpt.messages import msg
from mamegpt.models.custom_gpt.config import UNSUPPORTED_FIELDS
from mamegpt.models.hf_format import HFFormat, not_implemented, refuse
from mamegpt.system.validation import FromJSON, Number, problems

__all__ = ["CUSTOM_GPT", "GPT2", "LAYER_NORM_EPS", "gpt2_name", "sizes_of"]

DEFAULT_N_HEADS, DEFAULT_DROP_RATE = 4, 0.1
"""Values of the original scripts, used if nothing else specifies them; the weights do not show them."""

LAYER_NORM_EPS = 1e-5
"""Epsilon of the LayerNorms in the book's GPT, the default of ``torch.nn.LayerNorm``."""


def sizes_of(weights: dict[str, Tensor], origin: str, **given: Any) -> ModelConfig:
    """Return the sizes that a `GPTModel` state dict implies, combined with those that the caller gives (None: not
    given).

    Raises `ModelError` that names both values if a given size contradicts the weights, or if keys are missing.
    """
    try:
        vocab_size, emb_dim = weights["tok_emb.weight"].shape
        context_length, _ = weights["pos_emb.weight"].shape
    except (KeyError, ValueError):
        raise ModelError(
            "{origin} holds no GPT of the book's layout: tok_emb.weight or pos_emb.weight is missing", origin=origin
        ) from None
    implied: dict[str, Any] = {
        "vocab_size": vocab_size,
        "context_length": context_length,
        "emb_dim": emb_dim,
        "n_layers": len({name.split(".")[1] for name in weights if name.startswith("trf_blocks.")}),
        "qkv_bias": "trf_blocks.0.att.qkv.bias" in weights,
    }
    for name, value in implied.items():
        if given.get(name) is not None and given[name] != value:
            raise ModelError(
                "{option} {value} contradicts {origin}, which has {name} {value_2}; leave it out",
                option=flag(name),
                value=given[name],
                origin=origin,
                name=name,
                value_2=value,
            )
    sizes = {name: value for name, value in given.items() if value is not None} | implied
    return ModelConfig(**UNSUPPORTED_FIELDS, **({"n_heads": DEFAULT_N_HEADS, "drop_rate": DEFAULT_DROP_RATE} | sizes))


# ---------------------------------------------------------------- custom-gpt: with its code in the folder

# A path, not a module: importing it would import transformers, which takes two seconds.
_CODE = Path(__file__).with_name("modeling_custom_gpt.py")

_CUSTOM_GPT_SIZES = ("vocab_size", "context_length", "emb_dim", "n_layers", "n_heads", "drop_rate", "qkv_bias")


@dataclass(frozen=True)
class _CustomGPT(FromJSON, extra="ignore"):
    """The sizes in ``config.json``; a missing or null size is taken from the weights."""

    vocab_size: int | None = None
    context_length: int | None = None
    emb_dim: int | None = None
    n_layers: int | None = None
    n_heads: int = 1
    drop_rate: Number = 0.0
    qkv_bias: bool | None = None


def _custom_gpt_config(sizes: ModelConfig) -> dict[str, Any]:
    return {
        "model_type": "custom-gpt",
        "architectures": ["CustomGPTForCausalLM"],
        "auto_map": {
            "AutoConfig": f"{_CODE.stem}.CustomGPTConfig",
            "AutoModelForCausalLM": f"{_CODE.stem}.CustomGPTForCausalLM",
        },
        **{name: getattr(sizes, name) for name in _CUSTOM_GPT_SIZES},
        "fast": True,  # part of the original format, which had two backbones
        "tie_word_embeddings": False,
    }


def _custom_gpt_sizes(config: dict[str, Any], weights: dict[str, Tensor], file: Path) -> ModelConfig:
    refuse(problems(_CustomGPT, config), file, "custom-gpt")
    return sizes_of(weights, str(file), **{name: config.get(name) for name in _CUSTOM_GPT_SIZES})


def _custom_gpt_structure(_sizes: ModelConfig) -> str:
    return "GPT-2 型(学習された位置埋め込み、pre-LayerNorm、GELU、出力層と埋め込み層の重み共有なし)"


def _under_backbone(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"backbone.{name}": tensor for name, tensor in tensors.items()}


_BOOK = (
    'アーキテクチャと重みの名前は Sebastian Raschka 著 "Build a Large Language Model (From Scratch)" と '
    "[LLMs-from-scratch](https://github.com/rasbt/LLMs-from-scratch) によります。"
)

_CUSTOM_GPT_LICENSE = f"`{_CODE.name}` は Apache License 2.0 です。{_BOOK}"


CUSTOM_GPT = HFFormat(
    model_type="custom-gpt",
    architecture="custom-gpt",
    config=_custom_gpt_config,
    sizes=_custom_gpt_sizes,
    structure=_custom_gpt_structure,
    license_note=_CUSTOM_GPT_LICENSE,
    to_file=_under_backbone,  # readers of weights remove prefixes
    weight_files=("model.safetensors", "pytorch_model.bin"),
    remote_code=_CODE,
)


# ---------------------------------------------------------------- gpt2: the same model under transformers' names

_GPT2_SIZES = {
    "vocab_size": "vocab_size",
    "n_positions": "context_length",
    "n_embd": "emb_dim",
    "n_layer": "n_layers",
    "n_head": "n_heads",
}
"""Whole numbers in ``config.json``, and the fields of `ModelConfig` that they set."""

_GPT2_CHOICES: dict[str, Callable[[Any], bool]] = {
    "activation_function": lambda value: value in ("gelu_new", "gelu_pytorch_tanh"),  # two names of one formula
    "layer_norm_epsilon": lambda value: value == LAYER_NORM_EPS,
    "scale_attn_weights": lambda value: value is True,
    "scale_attn_by_inverse_layer_idx": lambda value: value is False,
    "add_cross_attention": lambda value: value is False,
    "quantization_config": lambda _: False,
}
"""Settings of ``config.json`` with several values, and which values are implemented here; null or no key is."""

_GPT2_NAMES = {
    "tok_emb": "transformer.wte",
    "pos_emb": "transformer.wpe",
    "final_norm": "transformer.ln_f",
    "out_head": "lm_head",
    "norm1": "ln_1",
    "norm2": "ln_2",
    "att.qkv": "attn.c_attn",
    "att.proj": "attn.c_proj",
    "ff.layers.0": "mlp.c_fc",
    "ff.layers.2": "mlp.c_proj",
}
"""Our names of modules, and GPT-2's; for layer 2 they begin with ``trf_blocks.2.`` and ``transformer.h.2.``."""

_GPT2_OWN_NAMES = {theirs: ours for ours, theirs in _GPT2_NAMES.items()}


def _gpt2_config(sizes: ModelConfig) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        **{theirs: getattr(sizes, ours) for theirs, ours in _GPT2_SIZES.items()},
        "n_ctx": sizes.context_length,  # converters expect the old name
        "n_inner": 4 * sizes.emb_dim,
        "activation_function": "gelu_pytorch_tanh",
        "layer_norm_epsilon": LAYER_NORM_EPS,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), sizes.drop_rate),  # transformers has 0.1
        "tie_word_embeddings": False,
        "qkv_bias": sizes.qkv_bias,  # for our own reader: transformers always has a bias, zero if we have none
    }


def _gpt2_sizes(config: dict[str, Any], weights: dict[str, Tensor], file: Path) -> ModelConfig:
    """Return the sizes of a GPT-2. Raises `ModelError` with everything missing, of a wrong type, or not implemented."""
    whole = {name: config.get(name) for name in _GPT2_SIZES}
    found = problems(dict[str, int], whole) + not_implemented(config, _GPT2_CHOICES)
    width = config.get("n_embd")
    if (inner := config.get("n_inner")) is not None and not (type(width) is int and inner == 4 * width):
        found.append(msg("n_inner {inner} is not implemented", inner=inner))
    drop_rate = config.get("resid_pdrop", 0.1)
    found += problems(dict[str, Number], {"resid_pdrop": drop_rate})
    pair = [weights[name] for name in ("lm_head.weight", "transformer.wte.weight") if name in weights]
    if config.get("tie_word_embeddings") is not False and len(pair) == 2 and not torch.equal(*pair):
        found.append(msg("tie_word_embeddings is not false, but the head is not the embedding"))
    refuse(found, file, "gpt2")
    biases = [tensor for name, tensor in weights.items() if name.endswith("attn.c_attn.bias")]
    qkv_bias = config.get("qkv_bias") is not False or any(bias.any() for bias in biases)
    sizes: dict[str, Any] = {_GPT2_SIZES[name]: value for name, value in whole.items()}
    return ModelConfig(**UNSUPPORTED_FIELDS, **sizes, qkv_bias=qkv_bias, drop_rate=float(drop_rate))


def gpt2_name(name: str) -> str:
    """Return GPT-2's name of a tensor: ``trf_blocks.2.norm1.weight`` becomes ``transformer.h.2.ln_1.weight``."""
    layer, module, kind = re.fullmatch(r"(trf_blocks\.\d+\.|)(.+)\.(\w+)", name).groups()  # type: ignore[union-attr]
    return f"{layer.replace('trf_blocks', 'transformer.h')}{_GPT2_NAMES[module]}.{kind}"


def _gpt2_to_file(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return GPT-2's tensors: its matrices are transposed ("Conv1D"), and queries, keys and values have a bias."""
    stored = {}
    for name, tensor in tensors.items():
        is_matrix = name.startswith("trf_blocks.") and tensor.ndim == 2
        stored[gpt2_name(name)] = tensor.T.contiguous() if is_matrix else tensor
        if name.endswith("att.qkv.weight"):
            stored.setdefault(gpt2_name(f"{name.removesuffix('weight')}bias"), torch.zeros(len(tensor)))
    return stored


def _gpt2_from_file(tensors: dict[str, Tensor], sizes: ModelConfig) -> dict[str, Tensor]:
    """Return the book's tensors from GPT-2's.

    A head that is tied to the embedding is stored once; the masks in old files are not weights.
    """
    own = {}
    for name, tensor in tensors.items():
        full = name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"
        match = re.fullmatch(r"(?:transformer\.h\.(\d+)\.|)(.+)\.(\w+)", full)
        if match is not None and match[2] in _GPT2_OWN_NAMES:
            layer = f"trf_blocks.{match[1]}." if match[1] else ""
            is_matrix = bool(layer) and tensor.ndim == 2
            own[f"{layer}{_GPT2_OWN_NAMES[match[2]]}.{match[3]}"] = tensor.T.contiguous() if is_matrix else tensor
        elif not full.endswith((".attn.bias", ".attn.masked_bias")):
            own[name] = tensor  # an unexpected tensor: the loader reports it
    if not sizes.qkv_bias:
        own = {name: tensor for name, tensor in own.items() if not name.endswith("att.qkv.bias")}
    if "tok_emb.weight" in own:
        own.setdefault("out_head.weight", own["tok_emb.weight"])
    return own


def _gpt2_structure(_sizes: ModelConfig) -> str:
    return "GPT-2(学習された位置埋め込み、pre-LayerNorm、GELU、出力層と埋め込み層の重み共有なし)"


GPT2 = HFFormat(
    model_type="gpt2",
    architecture="custom-gpt",
    config=_gpt2_config,
    sizes=_gpt2_sizes,
    structure=_gpt2_structure,
    classifier="GPT2ForSequenceClassification",
    license_note=_BOOK,
    to_file=_gpt2_to_file,
    from_file=_gpt2_from_file,
)
