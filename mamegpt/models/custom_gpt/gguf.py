"""The book's GPT as llama.cpp's ``gpt2``."""

from __future__ import annotations

from typing import Any

import numpy as np

from mamegpt.config import ModelConfig
from mamegpt.models.custom_gpt.hf import LAYER_NORM_EPS
from mamegpt.models.gguf_format import GGUFFormat, Tensors, renamed

__all__ = ["GGUF"]

_NAMES = {
    "tok_emb": "token_embd", "pos_emb": "position_embd", "final_norm": "output_norm", "out_head": "output",
    "norm1": "attn_norm", "norm2": "ffn_norm", "att.qkv": "attn_qkv", "att.proj": "attn_output",
    "ff.layers.0": "ffn_up", "ff.layers.2": "ffn_down",
}  # fmt: skip


def _write_settings(file: Any, sizes: ModelConfig) -> None:
    file.add_head_count_kv(sizes.n_heads)
    file.add_feed_forward_length(4 * sizes.emb_dim)
    file.add_layer_norm_eps(LAYER_NORM_EPS)


def _to_file(tensors: Tensors, sizes: ModelConfig) -> Tensors:
    """Our tensors under llama.cpp's names; it knows no GPT-2 without biases of query, key and value."""
    names = (f"trf_blocks.{layer}.att.qkv.bias" for layer in range(sizes.n_layers))
    absent = {name: np.zeros(3 * sizes.emb_dim, np.float32) for name in names if name not in tensors}
    return renamed(tensors | absent, "trf_blocks", _NAMES)


GGUF = GGUFFormat("gpt2", _write_settings, _to_file)
