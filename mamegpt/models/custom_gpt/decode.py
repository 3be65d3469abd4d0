"""The decoding step of the book's GPT."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mamegpt.models.decode import Rows, Step, layer_norm, linear

__all__ = ["decode_step"]


def decode_step(model: Any) -> tuple[Rows, Step]:
    """Return the decoding step of a `GPTModel`, and the rows that it reads and extends."""
    blocks = model.trf_blocks
    H, C = blocks[0].att.n_heads, model.tok_emb.embedding_dim
    rows = Rows(len(blocks), model.context_length, (H, H, H), C // H)
    tok_emb, pos_emb, final_norm = model.tok_emb.weight, model.pos_emb.weight, layer_norm(model.final_norm)
    layers = [
        (
            layer_norm(block.norm1), linear(block.att.qkv), linear(block.att.proj),
            layer_norm(block.norm2), linear(block.ff.layers[0]), linear(block.ff.layers[2]),
        )
        for block in blocks
    ]  # fmt: skip

    def step(token: int, position: int) -> Tensor:
        x = tok_emb[token] + pos_emb[position]
        for (norm1, qkv, proj, norm2, up, down), (row, q, k, v) in zip(layers, rows.at(position), strict=True):
            qkv(norm1(x), out=row)
            x = x + proj(F.scaled_dot_product_attention(q, k, v).view(-1))
            x = x + down(F.gelu(up(norm2(x)), approximate="tanh"))
        return final_norm(x)

    return rows, step
