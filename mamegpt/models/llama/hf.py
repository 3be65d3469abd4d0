"""Llama in the Hugging Face format of transformers, so folders need no code."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from mamegpt.config import ModelConfig
from mamegpt.models.hf_format import HFFormat, plain_rope, rotary_sizes
from mamegpt.models.llama.config import UNSUPPORTED_FIELDS
from mamegpt.models.llama.modeling_llama import resolve_sizes

__all__ = ["LLAMA"]

_INTEGERS = {
    "vocab_size": "vocab_size",
    "max_position_embeddings": "context_length",
    "hidden_size": "emb_dim",
    "intermediate_size": "ffn_dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "head_dim": "head_dim",
}
"""Whole numbers in ``config.json``, and the fields of `ModelConfig` that they set."""

_CHOICES: dict[str, Callable[[Any], bool]] = {
    "hidden_act": lambda value: value == "silu",
    "attention_bias": lambda value: value is False,
    "mlp_bias": lambda value: value is False,
    "rope_parameters": plain_rope,
    "rope_scaling": plain_rope,
    "partial_rotary_factor": lambda value: value == 1,
    "quantization_config": lambda _: False,
}
"""Settings of ``config.json`` with several values, and which values are implemented here; null or no key is."""


def _config(sizes: ModelConfig) -> dict[str, Any]:
    n_kv_heads, head_dim, ffn_dim = resolve_sizes(sizes)  # type: ignore[arg-type]  # the sizes are frozen
    chosen = dataclasses.replace(sizes, n_kv_heads=n_kv_heads, head_dim=head_dim, ffn_dim=ffn_dim)
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        **{theirs: getattr(chosen, ours) for theirs, ours in _INTEGERS.items()},
        "rms_norm_eps": sizes.norm_eps,
        # Twice: transformers 4 reads only the first, and would silently use 10000.
        "rope_theta": sizes.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": sizes.rope_theta},
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": sizes.tie_embeddings,
    }


def _sizes(config: dict[str, Any], _weights: dict[str, Tensor], file: Path) -> ModelConfig:
    """Read the sizes. Older folders omit the KV heads and the width of a head, which follow from the others."""
    width, n_heads = config.get("hidden_size"), config.get("num_attention_heads")
    implied = {"num_key_value_heads": n_heads}
    if type(width) is int and type(n_heads) is int and n_heads > 0:
        implied["head_dim"] = width // n_heads
    config = config | {name: value for name, value in implied.items() if config.get(name) is None}
    return ModelConfig(**UNSUPPORTED_FIELDS, **rotary_sizes(config, _INTEGERS, _CHOICES, file, "llama"))


def _structure(sizes: ModelConfig) -> str:
    tied = "あり" if sizes.tie_embeddings else "なし"
    n_kv_heads, _, _ = resolve_sizes(sizes)  # type: ignore[arg-type]  # the sizes are frozen
    return f"Llama 型(RoPE、RMSNorm、SwiGLU、KV ヘッド数 {n_kv_heads}、出力層と埋め込み層の重み共有{tied})"


LLAMA = HFFormat(
    model_type="llama",
    architecture="llama",
    config=_config,
    sizes=_sizes,
    structure=_structure,
    classifier="LlamaForSequenceClassification",
    license_note="アーキテクチャは LLaMA (Touvron et al. 2023) によります。",
)
