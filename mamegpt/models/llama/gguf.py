"""Llama in llama.cpp's form."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mamegpt.config import ModelConfig
from mamegpt.models.gguf_format import GGUFFormat, Tensors
from mamegpt.models.llama.modeling_llama import resolve_sizes

__all__ = ["GGUF"]


def _write_settings(file: Any, sizes: ModelConfig) -> None:
    n_kv_heads, head_dim, ffn_dim = resolve_sizes(sizes)  # type: ignore[arg-type]  # the sizes are frozen
    file.add_vocab_size(sizes.vocab_size)
    file.add_head_count_kv(n_kv_heads)
    file.add_feed_forward_length(ffn_dim)
    file.add_layer_norm_rms_eps(sizes.norm_eps)
    file.add_rope_freq_base(sizes.rope_theta)
    file.add_rope_dimension_count(head_dim)
    file.add_key_length(head_dim)
    file.add_value_length(head_dim)


def _to_file(tensors: Tensors, sizes: ModelConfig) -> Tensors:
    """Reorder queries and keys: RoPE in llama.cpp's ``llama`` rotates adjacent dimensions, not ones half a head
    apart.
    """
    _, head_dim, _ = resolve_sizes(sizes)  # type: ignore[arg-type]  # the sizes are frozen
    turned = ("self_attn.q_proj.weight", "self_attn.k_proj.weight")
    return {name: _paired(it, head_dim) if name.endswith(turned) else it for name, it in tensors.items()}


def _paired(matrix: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """Interleave rows i and i + D/2 of each head: (H D, C) -> (H D, C)."""
    halves = matrix.reshape(-1, 2, head_dim // 2, matrix.shape[1])  # (H, 2, D/2, C)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(matrix.shape))


GGUF = GGUFFormat("llama", _write_settings, _to_file)
