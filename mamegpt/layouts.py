"""What a folder in Hugging Face's layout looks like, by architecture: all in which exports and imports differ.

A `Layout` writes the ``config.json`` of a model's sizes and reads it back. Sizes that the words of a ``config.json``
ask for and that are not implemented here are refused, for a model that ignores one of them computes nonsense in
silence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mamegpt.config import ModelConfig, flag
from mamegpt.errors import ModelError
from mamegpt.models.qwen3 import own_sizes

__all__ = ["LAYOUTS", "Layout", "sizes_of"]

DEFAULT_N_HEADS = 4
"""Heads leave no trace in the weights; where nothing else says how many, it is the original scripts' number."""


@dataclass(frozen=True)
class Layout:
    """The folder of one architecture.

    ``config(sizes, fast)`` is what ``config.json`` says of the model; ``sizes(config, weights, file)`` reads it,
    together with the weights that lie in ``file``. ``structure(sizes)`` and ``licence`` are for the model card.
    """

    config: Callable[[ModelConfig, bool], dict[str, Any]]
    sizes: Callable[[dict[str, Any], dict[str, Tensor], Path], ModelConfig]
    structure: Callable[[ModelConfig], str]
    licence: str
    key_prefix: str = ""
    weight_files: tuple[str, ...] = ("model.safetensors",)
    remote_code: bool = False


# ---------------------------------------------------------------- custom-gpt: the book's, with its code in the folder


def sizes_of(weights: dict[str, Tensor], origin: str, **given: Any) -> ModelConfig:
    """The sizes that a `GPTModel` state dict implies, joined with those given by the caller (None: not given).

    Raises `ModelError` naming both where a given size contradicts the weights, or if keys are missing.
    """
    try:
        vocab_size, emb_dim = weights["tok_emb.weight"].shape
        context_length = weights["pos_emb.weight"].shape[0]
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
    return sizes_of(weights, str(file), **{name: config.get(name) for name in _CUSTOM_GPT_SIZES})


def _custom_gpt_structure(_sizes: ModelConfig) -> str:
    return "GPT-2 型(学習された位置埋め込み、pre-LayerNorm、GELU、出力層は埋め込みと共有しない)"


_CUSTOM_GPT_LICENCE = """\
`modeling_custom_gpt.py` は Apache License 2.0 です。構造と重みの名前は Sebastian Raschka 著
"Build a Large Language Model (From Scratch)" と [LLMs-from-scratch](https://github.com/rasbt/LLMs-from-scratch) に
よります。"""


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
        "tie_word_embeddings": sizes.tie_embeddings,
    }


def _qwen3_sizes(config: dict[str, Any], _weights: dict[str, Tensor], file: Path) -> ModelConfig:
    """Raises `ModelError` with all that is missing, of a wrong type, or not implemented."""
    whole = {name: config.get(name) for name in _QWEN3_SIZES}
    found = [f"{name} is {value!r}, not a whole number" for name, value in whole.items() if type(value) is not int]
    for name, is_implemented in _QWEN3_CHOICES.items():
        if (value := config.get(name)) is not None and not is_implemented(value):
            found.append(f"{name} {value!r} is not implemented")
    ropes = [config, config.get("rope_parameters"), config.get("rope_scaling")]
    thetas = [rope["rope_theta"] for rope in ropes if isinstance(rope, dict) and "rope_theta" in rope] or [10000.0]
    eps, tied = config.get("rms_norm_eps", 1e-6), config.get("tie_word_embeddings", False)
    if any(theta != thetas[0] for theta in thetas):
        found.append(f"rope_theta is {' and '.join(map(str, thetas))}, where one reader takes this, another that")
    numbers = {"rope_theta": thetas[0], "rms_norm_eps": eps}
    found += [f"{name} is {v!r}, not a number" for name, v in numbers.items() if type(v) not in (int, float)]
    if type(tied) is not bool:
        found.append(f"tie_word_embeddings is {tied!r}, neither true nor false")
    if found:
        raise ModelError(f"{file.with_name('config.json')} holds no qwen3 model known here: {'; '.join(found)}")
    sizes: dict[str, Any] = {_QWEN3_SIZES[name]: value for name, value in whole.items()}
    return ModelConfig(**sizes, rope_theta=float(thetas[0]), norm_eps=float(eps), tie_embeddings=tied, drop_rate=0.0)


def _qwen3_structure(sizes: ModelConfig) -> str:
    tied = "共有する" if sizes.tie_embeddings else "共有しない"
    n_kv_heads, _, _ = own_sizes(sizes)  # type: ignore[arg-type]  # the sizes are frozen
    return f"Qwen3 型(RoPE、RMSNorm、QK-norm、SwiGLU、キーと値は {n_kv_heads} ヘッド、出力層は埋め込みと{tied})"


LAYOUTS = {
    "custom-gpt": Layout(
        config=_custom_gpt_config,
        sizes=_custom_gpt_sizes,
        structure=_custom_gpt_structure,
        licence=_CUSTOM_GPT_LICENCE,
        key_prefix="backbone.",
        weight_files=("model.safetensors", "pytorch_model.bin"),
        remote_code=True,
    ),
    "qwen3": Layout(
        config=_qwen3_config,
        sizes=_qwen3_sizes,
        structure=_qwen3_structure,
        licence="構造は Qwen3 Technical Report (Yang et al. 2025) によります。",
    ),
}
"""By architecture, which is also the ``model_type`` in ``config.json``."""
