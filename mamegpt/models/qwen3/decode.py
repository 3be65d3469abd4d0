"""The decoding step of Qwen3."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mamegpt.models.decode import Rows, Step, after_rms_norm, linear, norm_of, swiglu_weights
from mamegpt.native.decode import StepWeights

__all__ = ["decode_step", "step_weights"]


def decode_step(model: Any) -> tuple[Rows, Step]:
    """Return the decoding step of a `Qwen3`, and the rows that it reads and extends.

    RMSNorm of n numbers is sqrt(n) weight x / sqrt(|x|^2 + n eps). sqrt(n) and the weight are moved into the following
    operation, a matrix or the rotation. The divisor of a whole x is a number, applied within the matrix product.
    """
    body = model.model
    first, C, eps = body.layers[0].self_attn, body.embed_tokens.embedding_dim, body.norm.eps
    D = first.head_dim
    H, K = first.q_proj.out_features // D, first.k_proj.out_features // D
    rows = Rows(len(body.layers), model.context_length, (H, K, K), D)
    angles = body.rope.repeat(1, 1, 2)[:, :, None]  # (2, capacity, 1, D)
    embedding, floor = body.embed_tokens.weight, torch.tensor((D * eps) ** 0.5)
    final_norm: Tensor = C**0.5 * body.norm.weight
    layers = []
    rotations = []
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
        scale = D**0.5 * torch.cat((att.q_norm.weight.expand(H, D), att.k_norm.weight.expand(K, D)))  # (H + K, D)
        a, b = scale.chunk(2, dim=-1)
        rotations.append(angles * torch.stack((scale, torch.cat((-b, a), dim=-1)))[:, None])
    rotation = torch.stack(rotations, dim=1)  # (2, layers, capacity, H + K, D), for x and for its halves swapped

    def factor(x: Tensor) -> float:
        """Return 1 / sqrt(|x|^2 + C eps)."""
        return float((x.dot(x).item() + C * eps) ** -0.5)

    def step(token: int, position: int) -> Tensor:
        x = embedding[token]
        cos, sin = (table.unbind() for table in rotation[:, :, position].unbind())
        for layer, (row, q, k, v) in enumerate(rows.at(position)):
            qkv, out, gate_up, down = layers[layer]
            qkv(x, factor(x), out=row)
            qk = row[: (H + K) * D].view(H + K, D)
            normed = qk / torch.hypot(torch.linalg.vector_norm(qk, dim=-1, keepdim=True), floor)
            torch.addcmul(normed * cos[layer], normed.roll(D // 2, -1), sin[layer], out=qk)
            x = x + out(F.scaled_dot_product_attention(q, k, v, enable_gqa=H != K).view(-1))
            gate, up = gate_up(x, factor(x)).chunk(2)
            x = x + down(F.silu(gate) * up)
        return torch.mul(x, factor(x)) * final_norm

    return rows, step


def step_weights(model: Any) -> StepWeights:
    """Return the weights of a `Qwen3` for the native decoding step."""
    return swiglu_weights(model, lambda att: (norm_of(att.q_norm), norm_of(att.k_norm)))
