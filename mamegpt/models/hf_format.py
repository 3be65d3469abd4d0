"""What a folder in Hugging Face's layout looks like, by ``model_type``: all in which exports and imports differ.

A `Layout` writes the ``config.json`` of a model's sizes and reads it back, and says under which names a file holds the
tensors. The book's GPT has two: with its own code, and as the GPT-2 that transformers knows. Sizes that the words of a
``config.json`` ask for and that are not implemented here are refused, for a model that ignores one of them computes
nonsense in silence.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mamegpt.config import ModelConfig, flag
from mamegpt.errors import ModelError
from mamegpt.models.qwen3.modeling_qwen3 import own_sizes

__all__ = ["LAYER_NORM_EPS", "LAYOUTS", "Layout", "native_layout", "sizes_of"]

DEFAULT_N_HEADS = 4
"""Heads leave no trace in the weights; where nothing else says how many, it is the original scripts' number."""

LAYER_NORM_EPS = 1e-5
"""Of the book's GPT, as of ``torch.nn.LayerNorm``."""


@dataclass(frozen=True)
class Layout:
    """The folder of one ``model_type``, which is a model of ours of one ``architecture``.

    ``config(sizes, fast)`` is what ``config.json`` says of the model; ``sizes(config, weights, file)`` reads it,
    together with the weights that lie in ``file``. ``to_file`` turns our state dict into the file's,
    ``from_file(tensors, sizes)`` back. ``structure(sizes)`` and ``licence`` are for the model card.
    """

    architecture: str
    config: Callable[[ModelConfig, bool], dict[str, Any]]
    sizes: Callable[[dict[str, Any], dict[str, Tensor], Path], ModelConfig]
    structure: Callable[[ModelConfig], str]
    licence: str
    to_file: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda tensors: tensors
    from_file: Callable[[dict[str, Tensor], ModelConfig], dict[str, Tensor]] = lambda tensors, _sizes: tensors
    weight_files: tuple[str, ...] = ("model.safetensors",)
    remote_code: bool = False


# ---------------------------------------------------------------- custom-gpt: the book's, with its code in the folder


def sizes_of(weights: dict[str, Tensor], origin: str, **given: Any) -> ModelConfig:
    """The sizes that a `GPTModel` state dict implies, joined with those given by the caller (None: not given).

    Raises `ModelError` naming both where a given size contradicts the weights, or if keys are missing.
    """
    try:
        vocab_size, emb_dim = weights["tok_emb.weight"].shape
        context_length, _ = weights["pos_emb.weight"].shape
    except (KeyError, ValueError):
        raise ModelError(
            f"{origin} holds no GPT of the book's layout: tok_emb.weight or pos_emb.weight is missing"
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
            raise ModelError(f"{flag(name)} {given[name]} contradicts {origin}, which has {name} {value}; leave it out")
    sizes = {name: value for name, value in given.items() if value is not None} | implied
    return ModelConfig(**({"n_heads": DEFAULT_N_HEADS} | sizes))


_CUSTOM_GPT_SIZES = ("vocab_size", "context_length", "emb_dim", "n_layers", "n_heads", "drop_rate", "qkv_bias")


def _custom_gpt_config(sizes: ModelConfig, fast: bool) -> dict[str, Any]:
    return {
        "model_type": "custom-gpt",
        "architectures": ["CustomGPTForCausalLM"],
        "auto_map": {
            "AutoConfig": "modeling_custom_gpt.CustomGPTConfig",
            "AutoModelForCausalLM": "modeling_custom_gpt.CustomGPTForCausalLM",
        },
        **{name: getattr(sizes, name) for name in _CUSTOM_GPT_SIZES},
        "fast": fast,
        "tie_word_embeddings": False,
    }


def _custom_gpt_sizes(config: dict[str, Any], weights: dict[str, Tensor], file: Path) -> ModelConfig:
    found = []
    if type(n_heads := config.get("n_heads", 1)) is not int:
        found.append(f"n_heads is {n_heads!r}, not a whole number")
    if not _is_number(drop_rate := config.get("drop_rate", 0.0)):
        found.append(f"drop_rate is {drop_rate!r}, not a number")
    if found:
        raise ModelError(f"{file.with_name('config.json')} holds no custom-gpt model known here: {'; '.join(found)}")
    return sizes_of(weights, str(file), **{name: config.get(name) for name in _CUSTOM_GPT_SIZES})


def _custom_gpt_structure(_sizes: ModelConfig) -> str:
    return "GPT-2 型(学習された位置埋め込み、pre-LayerNorm、GELU、出力層は埋め込みと共有しない)"


def _under_backbone(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"backbone.{name}": tensor for name, tensor in tensors.items()}


_BOOK = """\
構造と重みの名前は Sebastian Raschka 著 "Build a Large Language Model (From Scratch)" と
[LLMs-from-scratch](https://github.com/rasbt/LLMs-from-scratch) によります。"""

_CUSTOM_GPT_LICENCE = f"`modeling_custom_gpt.py` は Apache License 2.0 です。{_BOOK}"


# ---------------------------------------------------------------- gpt2: the same model under transformers' names

_GPT2_SIZES = {
    "vocab_size": "vocab_size",
    "n_positions": "context_length",
    "n_embd": "emb_dim",
    "n_layer": "n_layers",
    "n_head": "n_heads",
}
"""Whole numbers in ``config.json``, and what they are called here."""

_GPT2_CHOICES: dict[str, Callable[[Any], bool]] = {
    "activation_function": lambda value: value in ("gelu_new", "gelu_pytorch_tanh"),  # two names of one formula
    "layer_norm_epsilon": lambda value: value == LAYER_NORM_EPS,
    "scale_attn_weights": lambda value: value is True,
    "scale_attn_by_inverse_layer_idx": lambda value: value is False,
    "add_cross_attention": lambda value: value is False,
    "quantization_config": lambda _: False,
}
"""What ``config.json`` may ask for in several ways, and which of them are implemented here; null and no key are."""

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
"""Our names of modules, and GPT-2's; those of layer 2 begin with ``trf_blocks.2.`` and ``transformer.h.2.``."""

_GPT2_OWN_NAMES = {theirs: ours for ours, theirs in _GPT2_NAMES.items()}


def _gpt2_config(sizes: ModelConfig, _fast: bool) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        **{theirs: getattr(sizes, ours) for theirs, ours in _GPT2_SIZES.items()},
        "n_ctx": sizes.context_length,  # converters ask for the old name
        "n_inner": 4 * sizes.emb_dim,
        "activation_function": "gelu_pytorch_tanh",
        "layer_norm_epsilon": LAYER_NORM_EPS,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), sizes.drop_rate),  # transformers has 0.1
        "tie_word_embeddings": False,
        "qkv_bias": sizes.qkv_bias,  # for ourselves: transformers always has one, zero where we have none
    }


def _gpt2_sizes(config: dict[str, Any], weights: dict[str, Tensor], file: Path) -> ModelConfig:
    """Raises `ModelError` with all that is missing, of a wrong type, or not implemented."""
    whole = {name: config.get(name) for name in _GPT2_SIZES}
    found = [f"{name} is {value!r}, not a whole number" for name, value in whole.items() if type(value) is not int]
    found += _refused(config, _GPT2_CHOICES)
    width = config.get("n_embd")
    if (inner := config.get("n_inner")) is not None and not (type(width) is int and inner == 4 * width):
        found.append(f"n_inner {inner} is not implemented")
    if not _is_number(drop_rate := config.get("resid_pdrop", 0.1)):
        found.append(f"resid_pdrop is {drop_rate!r}, not a number")
    pair = [weights[name] for name in ("lm_head.weight", "transformer.wte.weight") if name in weights]
    if config.get("tie_word_embeddings") is not False and len(pair) == 2 and not torch.equal(*pair):
        found.append("tie_word_embeddings is not false, but the head is not the embedding")
    if found:
        raise ModelError(f"{file.with_name('config.json')} holds no gpt2 model known here: {'; '.join(found)}")
    biases = [tensor for name, tensor in weights.items() if name.endswith("attn.c_attn.bias")]
    qkv_bias = config.get("qkv_bias") is not False or any(bias.any() for bias in biases)
    sizes: dict[str, Any] = {_GPT2_SIZES[name]: value for name, value in whole.items()}
    return ModelConfig(**sizes, qkv_bias=qkv_bias, drop_rate=float(drop_rate))


def _gpt2_to_file(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """GPT-2 multiplies from the other side ("Conv1D"), and has a bias on queries, keys and values always."""
    stored = {}
    for name, tensor in tensors.items():
        layer, module, kind = re.fullmatch(r"(trf_blocks\.\d+\.|)(.+)\.(\w+)", name).groups()  # type: ignore[union-attr]
        theirs = f"{layer.replace('trf_blocks', 'transformer.h')}{_GPT2_NAMES[module]}.{kind}"
        is_matrix = bool(layer) and tensor.ndim == 2
        stored[theirs] = tensor.T.contiguous() if is_matrix else tensor
        if module == "att.qkv" and kind == "weight":
            stored.setdefault(f"{theirs.removesuffix('weight')}bias", torch.zeros(len(tensor)))
    return stored


def _gpt2_from_file(tensors: dict[str, Tensor], sizes: ModelConfig) -> dict[str, Tensor]:
    """The reverse. A head that is the embedding is stored once, and old files hold masks, which are no weights."""
    own = {}
    for name, tensor in tensors.items():
        full = name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"
        match = re.fullmatch(r"(?:transformer\.h\.(\d+)\.|)(.+)\.(\w+)", full)
        if match is not None and match[2] in _GPT2_OWN_NAMES:
            layer = f"trf_blocks.{match[1]}." if match[1] else ""
            is_matrix = bool(layer) and tensor.ndim == 2
            own[f"{layer}{_GPT2_OWN_NAMES[match[2]]}.{match[3]}"] = tensor.T.contiguous() if is_matrix else tensor
        elif not full.endswith((".attn.bias", ".attn.masked_bias")):
            own[name] = tensor  # one too many: who loads it says so
    if not sizes.qkv_bias:
        own = {name: tensor for name, tensor in own.items() if not name.endswith("att.qkv.bias")}
    if "tok_emb.weight" in own:
        own.setdefault("out_head.weight", own["tok_emb.weight"])
    return own


def _gpt2_structure(_sizes: ModelConfig) -> str:
    return "GPT-2(学習された位置埋め込み、pre-LayerNorm、GELU、出力層は埋め込みと共有しない)"


# ---------------------------------------------------------------- qwen3: transformers' own, nothing to bring along

_QWEN3_SIZES = {
    "vocab_size": "vocab_size",
    "max_position_embeddings": "context_length",
    "hidden_size": "emb_dim",
    "intermediate_size": "ffn_dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "head_dim": "head_dim",
}
"""Whole numbers in ``config.json``, and what they are called here."""


def _is_plain_rope(value: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() <= {"rope_type", "type", "rope_theta"}:
        return False
    return bool(value.get("rope_type", value.get("type", "default")) == "default")


_QWEN3_CHOICES: dict[str, Callable[[Any], bool]] = {
    "hidden_act": lambda value: value == "silu",
    "attention_bias": lambda value: value is False,
    "use_sliding_window": lambda value: value is False,
    "layer_types": lambda value: isinstance(value, list) and all(kind == "full_attention" for kind in value),
    "rope_parameters": _is_plain_rope,
    "rope_scaling": _is_plain_rope,
    "partial_rotary_factor": lambda value: value == 1,
    "quantization_config": lambda _: False,
}
"""What ``config.json`` may ask for in several ways, and which of them are implemented here; null and no key are."""


def _qwen3_config(sizes: ModelConfig, _fast: bool) -> dict[str, Any]:
    n_kv_heads, head_dim, ffn_dim = own_sizes(sizes)  # type: ignore[arg-type]  # the sizes are frozen
    chosen = dataclasses.replace(sizes, n_kv_heads=n_kv_heads, head_dim=head_dim, ffn_dim=ffn_dim)
    return {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        **{theirs: getattr(chosen, ours) for theirs, ours in _QWEN3_SIZES.items()},
        "rms_norm_eps": sizes.norm_eps,
        # Twice, for transformers 4 knows the first only, and would take 10000 in silence.
        "rope_theta": sizes.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": sizes.rope_theta},
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "max_window_layers": sizes.n_layers,  # without a window it means nothing, but readers want it (mistral.rs)
        "tie_word_embeddings": sizes.tie_embeddings,
    }


def _qwen3_sizes(config: dict[str, Any], _weights: dict[str, Tensor], file: Path) -> ModelConfig:
    """Raises `ModelError` with all that is missing, of a wrong type, or not implemented."""
    whole = {name: config.get(name) for name in _QWEN3_SIZES}
    found = [f"{name} is {value!r}, not a whole number" for name, value in whole.items() if type(value) is not int]
    found += _refused(config, _QWEN3_CHOICES)
    ropes = [config, config.get("rope_parameters"), config.get("rope_scaling")]
    thetas = [rope["rope_theta"] for rope in ropes if isinstance(rope, dict) and "rope_theta" in rope] or [10000.0]
    eps, tied = config.get("rms_norm_eps", 1e-6), config.get("tie_word_embeddings", False)
    if any(theta != thetas[0] for theta in thetas):
        found.append(f"rope_theta is {' and '.join(map(str, thetas))}, where one reader takes this, another that")
    numbers = {"rope_theta": thetas[0], "rms_norm_eps": eps}
    found += [f"{name} is {v!r}, not a number" for name, v in numbers.items() if not _is_number(v)]
    if type(tied) is not bool:
        found.append(f"tie_word_embeddings is {tied!r}, neither true nor false")
    if found:
        raise ModelError(f"{file.with_name('config.json')} holds no qwen3 model known here: {'; '.join(found)}")
    sizes: dict[str, Any] = {_QWEN3_SIZES[name]: value for name, value in whole.items()}
    return ModelConfig(**sizes, rope_theta=float(thetas[0]), norm_eps=float(eps), tie_embeddings=tied, drop_rate=0.0)


def _is_number(value: object) -> bool:
    """Whether a value of JSON is a number that a float can hold."""
    return type(value) in (int, float) and -1e300 < value < 1e300  # type: ignore[operator]


def _refused(config: dict[str, Any], choices: dict[str, Callable[[Any], bool]]) -> list[str]:
    """What ``config.json`` asks for and is not implemented, a line each."""
    asked = {name: value for name in choices if (value := config.get(name)) is not None}
    return [f"{name} {value!r} is not implemented" for name, value in asked.items() if not choices[name](value)]


def _qwen3_structure(sizes: ModelConfig) -> str:
    tied = "共有する" if sizes.tie_embeddings else "共有しない"
    n_kv_heads, _, _ = own_sizes(sizes)  # type: ignore[arg-type]  # the sizes are frozen
    return f"Qwen3 型(RoPE、RMSNorm、QK-norm、SwiGLU、キーと値は {n_kv_heads} ヘッド、出力層は埋め込みと{tied})"


LAYOUTS = {
    "custom-gpt": Layout(
        architecture="custom-gpt",
        config=_custom_gpt_config,
        sizes=_custom_gpt_sizes,
        structure=_custom_gpt_structure,
        licence=_CUSTOM_GPT_LICENCE,
        to_file=_under_backbone,  # who reads weights takes prefixes off
        weight_files=("model.safetensors", "pytorch_model.bin"),
        remote_code=True,
    ),
    "gpt2": Layout(
        architecture="custom-gpt",
        config=_gpt2_config,
        sizes=_gpt2_sizes,
        structure=_gpt2_structure,
        licence=_BOOK,
        to_file=_gpt2_to_file,
        from_file=_gpt2_from_file,
    ),
    "qwen3": Layout(
        architecture="qwen3",
        config=_qwen3_config,
        sizes=_qwen3_sizes,
        structure=_qwen3_structure,
        licence="構造は Qwen3 Technical Report (Yang et al. 2025) によります。",
    ),
}
"""By ``model_type`` in ``config.json``. The first of an architecture has its name."""


def native_layout(architecture: str) -> str:
    """The ``model_type`` of a folder that holds an architecture and needs no code of ours."""
    return next(name for name, it in LAYOUTS.items() if it.architecture == architecture and not it.remote_code)
