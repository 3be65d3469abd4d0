"""The book's GPT in llama.cpp's form, as ``gpt2``."""

from __future__ import annotations

from typing import Any

import numpy as np

from mamegpt.config import ModelConfig
from mamegpt.models.custom_gpt.hf import LAYER_NORM_EPS, gpt2_name
from mamegpt.models.gguf_format import GGUFFormat, Tensors

__all__ = ["GGUF"]


def _write_settings(file: Any, sizes: ModelConfig) -> None:
    file.add_head_count_kv(sizes.n_heads)
    file.add_feed_forward_length(4 * sizes.emb_dim)
    file.add_layer_norm_eps(LAYER_NORM_EPS)


def _to_file(tensors: Tensors, sizes: ModelConfig) -> Tensors:
    """Return our tensors under GPT-2's names, with the biases of query, key and value that llama.cpp requires."""
    names = (f"trf_blocks.{layer}.att.qkv.bias" for layer in range(sizes.n_layers))
    absent = {name: np.zeros(3 * sizes.emb_dim, np.float32) for name in names if name not in tensors}
    return {gpt2_name(name): tensor for name, tensor in (tensors | absent).items()}


GGUF = GGUFFormat("gpt2", _write_settings, _to_file)
