"""Qwen3 as llama.cpp has it."""

from __future__ import annotations

from typing import Any

from mamegpt.config import ModelConfig
from mamegpt.models.gguf_format import GGUFFormat, Tensors, renamed
from mamegpt.models.qwen3.modeling_qwen3 import resolve_sizes

__all__ = ["GGUF"]

_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def _write_settings(file: Any, sizes: ModelConfig) -> None:
    n_kv_heads, head_dim, ffn_dim = resolve_sizes(sizes)  # type: ignore[arg-type]  # the sizes are frozen
    file.add_head_count_kv(n_kv_heads)
    file.add_feed_forward_length(ffn_dim)
    file.add_layer_norm_rms_eps(sizes.norm_eps)
    file.add_rope_freq_base(sizes.rope_theta)
    file.add_rope_dimension_count(head_dim)
    file.add_key_length(head_dim)
    file.add_value_length(head_dim)


def _to_file(tensors: Tensors, _sizes: ModelConfig) -> Tensors:
    return renamed(tensors, "model.layers", _NAMES)


GGUF = GGUFFormat("qwen3", _write_settings, _to_file)
