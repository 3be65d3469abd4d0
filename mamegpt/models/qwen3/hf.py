"""Qwen3 in the Hugging Face format of transformers, so folders need no code."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from mamegpt.config import ModelConfig
from mamegpt.models.hf_format import HFFormat, plain_rope, rotary_sizes
from mamegpt.models.qwen3.config import UNSUPPORTED_FIELDS
from mamegpt.models.qwen3.modeling_qwen3 import resolve_sizes

__all__ = ["QWEN3"]

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
    "use_sliding_window": lambda value: value is False,
    "layer_types": lambda value: isinstance(value, list) and all(kind == "full_attention" for kind in value),
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
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        **{theirs: getattr(chosen, ours) for theirs, ours in _INTEGERS.items()},
        "rms_norm_eps": sizes.norm_eps,
        # Twice: transformers 4 reads only the first, and would silently use 10000.
        "rope_theta": sizes.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": sizes.rope_theta},
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "max_window_layers": sizes.n_layers,  # no effect without a window, but some readers require it (mistral.rs)
        "tie_word_embeddings": sizes.tie_embeddings,
    }


def _sizes(config: dict[str, Any], _weights: dict[str, Tensor], file: Path) -> ModelConfig:
    return ModelConfig(**UNSUPPORTED_FIELDS, **rotary_sizes(config, _INTEGERS, _CHOICES, file, "qwen3"))


def _structure(sizes: ModelConfig) -> str:
    tied = "あり" if sizes.tie_embeddings else "なし"
    n_kv_heads, _, _ = resolve_sizes(sizes)  # type: ignore[arg-type]  # the sizes are frozen
    return f"Qwen3 型(RoPE、RMSNorm、QK-norm、SwiGLU、KV ヘッド数 {n_kv_heads}、出力層と埋め込み層の重み共有{tied})"


QWEN3 = HFFormat(
    model_type="qwen3",
    architecture="qwen3",
    config=_config,
    sizes=_sizes,
    structure=_structure,
    classifier="Qwen3ForSequenceClassification",
    license_note="アーキテクチャは Qwen3 Technical Report (Yang et al. 2025) によります。",
)
