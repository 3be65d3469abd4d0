"""The decoding step of the book's GPT."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mamegpt.models.decode import Rows, Step, layer_norm, linear, weights_of
from mamegpt.native.decode import BlockWeights, Linear, Norm, StepWeights

__all__ = ["decode_step", "step_weights"]


def decode_step(model: Any) -> tuple[Rows, Step]:
    """Return the decoding step of a `GPTModel`, and the rows that it reads and extends."""
    blocks = model.trf_blocks
    H, C = blocks[0].att.n_heads, model.tok_emb.embedding_dim
    rows = Rows(len(blocks), model.context_length, (H, H, H), C // H)
    tok_emb, pos_emb, final_norm = model.tok_emb.weight, model.pos_emb.weight, layer_norm(model.final_norm)
    layers = [
        (
            layer_norm(block.norm1),
            linear(block.att.qkv),
            linear(block.att.proj),
            layer_norm(block.norm2),
            linear(block.ff.layers[0]),
            linear(block.ff.layers[2]),
        )
        for block in blocks
    ]

    def step(token: int, position: int) -> Tensor:
        x = tok_emb[token] + pos_emb[position]
        for (norm1, qkv, proj, norm2, up, down), (row, q, k, v) in zip(layers, rows.at(position), strict=True):
            qkv(norm1(x), out=row)
            x = x + proj(F.scaled_dot_product_attention(q, k, v).view(-1))
            x = x + down(F.gelu(up(norm2(x)), approximate="tanh"))
        return final_norm(x)

    return rows, step


def step_weights(model: Any) -> StepWeights:
    """Return the weights of a `GPTModel` for the native decoding step."""

    def norm(layer: Any) -> Norm:
        return Norm(layer.weight.detach(), layer.bias.detach())

    def block_weights(block: Any) -> BlockWeights:
        qkv = block.att.qkv
        biases = [None] * 3 if qkv.bias is None else qkv.bias.detach().chunk(3)
        q, k, v = map(Linear, qkv.weight.detach().chunk(3), biases)
        return BlockWeights(
            before_attention=norm(block.norm1),
            of_queries=Norm(),
            of_keys=Norm(),
            q=q,
            k=k,
            v=v,
            out=weights_of(block.att.proj),
            before_mlp=norm(block.norm2),
            gate=Linear(),
            up=weights_of(block.ff.layers[0]),
            down=weights_of(block.ff.layers[2]),
        )

    n_heads, C = model.trf_blocks[0].att.n_heads, model.tok_emb.embedding_dim
    return StepWeights(
        embedding=model.tok_emb.weight.detach(),
        positions=model.pos_emb.weight.detach(),
        rope=None,
        blocks=[block_weights(block) for block in model.trf_blocks],
        last=norm(model.final_norm),
        eps=model.final_norm.eps,
        head_dim=C // n_heads,
        capacity=model.context_length,
    )
