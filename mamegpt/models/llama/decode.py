"""The decoding step of Llama."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mamegpt.models.decode import Rows, Step, after_rms_norm, linear, swiglu_weights
from mamegpt.native.decode import Norm, StepWeights

__all__ = ["decode_step", "step_weights"]


def decode_step(model: Any) -> tuple[Rows, Step]:
    """Return the decoding step of a `Llama`, and the rows that it reads and extends.

    The divisor of an RMSNorm is a number, applied within the matrix product that follows (see `after_rms_norm`).
    """
    body = model.model
    first, C, eps = body.layers[0].self_attn, body.embed_tokens.embedding_dim, body.norm.eps
    D = first.head_dim
    H, K = first.q_proj.out_features // D, first.k_proj.out_features // D
    rows = Rows(len(body.layers), model.context_length, (H, K, K), D)
    cos, sin = body.rope.repeat(1, 1, 2)[:, :, None]  # (capacity, 1, D) each, for x and for its halves swapped
    sin = sin * torch.cat((-torch.ones(D // 2), torch.ones(D // 2)))
    embedding, final_norm = body.embed_tokens.weight, C**0.5 * body.norm.weight
    layers = []
    for block in body.layers:
        att, mlp = block.self_attn, block.mlp
        layers.append(
            (
                after_rms_norm(block.input_layernorm, att.q_proj, att.k_proj, att.v_proj),
                linear(att.o_proj),
                after_rms_norm(block.post_attention_layernorm, mlp.gate_proj, mlp.up_proj),
                linear(mlp.down_proj),
            )
        )

    def factor(x: Tensor) -> float:
        """Return 1 / sqrt(|x|^2 + C eps)."""
        return float((x.dot(x).item() + C * eps) ** -0.5)

    def step(token: int, position: int) -> Tensor:
        x = embedding[token]
        for (qkv, out, gate_up, down), (row, q, k, v) in zip(layers, rows.at(position), strict=True):
            qkv(x, factor(x), out=row)
            qk = row[: (H + K) * D].view(H + K, D)
            torch.addcmul(qk * cos[position], qk.roll(D // 2, -1), sin[position], out=qk)
            x = x + out(F.scaled_dot_product_attention(q, k, v, enable_gqa=H != K).view(-1))
            gate, up = gate_up(x, factor(x)).chunk(2)
            x = x + down(F.silu(gate) * up)
        return torch.mul(x, factor(x)) * final_norm

    return rows, step


def step_weights(model: Any) -> StepWeights:
    """Return the weights of a `Llama` for the native decoding step."""
    return swiglu_weights(model, lambda _: (Norm(), Norm()))
