"""Qwen3 in llama.cpp's form."""

from __future__ import annotations

from typing import Any

from mamegpt.config import ModelConfig
from mamegpt.models.gguf_format import GGUFFormat
from mamegpt.models.qwen3.modeling_qwen3 import resolve_sizes

__all__ = ["GGUF"]


def _write_settings(file: Any, sizes: ModelConfig) -> None:
    n_kv_heads, head_dim, ffn_dim = resolve_sizes(sizes)  # type: ignore[arg-type]  # the sizes are frozen
    file.add_head_count_kv(n_kv_heads)
    file.add_feed_forward_length(ffn_dim)
    file.add_layer_norm_rms_eps(sizes.norm_eps)
    file.add_rope_freq_base(sizes.rope_theta)
    file.add_rope_dimension_count(head_dim)
    file.add_key_length(head_dim)
    file.add_value_length(head_dim)


GGUF = GGUFFormat("qwen3", _write_settings)
