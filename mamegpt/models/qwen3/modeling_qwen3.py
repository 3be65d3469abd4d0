"""Qwen3 in plain PyTorch, the default architecture of ``mamegpt train``, which every tool can run.

The architecture is that of the Qwen3 Technical Report (Yang et al. 2025, section 2), as ``transformers`` computes it:
pre-norm blocks (RMSNorm), RoPE, normalized queries and keys, grouped heads, SwiGLU, no biases. State-dict keys are
those of ``Qwen3ForCausalLM``, so an exported folder is a copy and needs no code.

Letters in shape comments: B batch, T new tokens, S all tokens (including the cache), C hidden size, H heads, K heads of
keys and values, D width of a head, F feed-forward width, V vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Qwen3", "resolve_sizes"]


class Sizes(Protocol):
    """The sizes from which a model is built; `resolve_sizes` replaces a 0."""

    vocab_size: int
    context_length: int
    emb_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn_dim: int
    rope_theta: float
    norm_eps: float
    tie_embeddings: bool
    drop_rate: float


class Cache(Protocol):
    """Keys and values of the previous tokens, by layer, with the two methods of transformers' own caches."""

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Append (B, K, T, D) keys and values to a layer and return all of its (B, K, S, D)."""
        ...

    def get_seq_length(self) -> int:
        """Return the number of cached tokens."""
        ...


def resolve_sizes(sizes: Sizes) -> tuple[int, int, int]:
    """Return (K, D, F): heads of keys and values, width of a head, feed-forward width; a 0 is replaced by the default.

    F defaults to 8/3 C, rounded up to a multiple of 8: three matrices then have as many weights as two of 4 C (Shazeer
    2020, section 3).
    """
    head_dim = sizes.head_dim or sizes.emb_dim // sizes.n_heads
    ffn_dim = sizes.ffn_dim or 8 * -(-sizes.emb_dim // 3)
    return sizes.n_kv_heads or sizes.n_heads, head_dim, ffn_dim


def rope_table(context_length: int, head_dim: int, theta: float) -> Tensor:
    """Return cosines and sines (2, context_length, D/2) of position x theta^(-2i/D) (Su et al. 2021, eq. 15)."""
    frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2).float() / head_dim)
    angles = torch.arange(context_length).float()[:, None] * frequencies
    return torch.stack((angles.cos(), angles.sin()))


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate each pair (x_i, x_{i + D/2}) of (B, H, T, D) by its angle, given as cosines and sines (2, T, D/2).

    Su et al. 2021, eq. 34, with pairs half a head apart, as in GPT-NeoX and everywhere in transformers.
    """
    cos, sin = rope
    a, b = x.chunk(2, dim=-1)  # 2 x (B, H, T, D/2)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) * weight over the last dimension, (..., n) -> (..., n)."""
    return F.rms_norm(x, weight.shape, weight, eps)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return SiLU(gate) * up, of one shape."""
    return F.silu(gate) * up


def eager_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the causal attention of q (B, H, T, D) over k, v (B, K, T, D), as separate matrix products.

    In training on a CPU, with sequences of a few hundred tokens, it takes a third to three quarters of the time of
    PyTorch's fused kernel (docs/log.md).
    """
    B, H, T, D = q.shape
    future = torch.full((T, T), float("-inf"), device=q.device).triu(1)
    k, v = (x.repeat_interleave(H // x.shape[1], dim=1).reshape(B * H, T, D) for x in (k, v))
    scores = torch.baddbmm(future.to(q.dtype), q.reshape(B * H, T, D), k.transpose(1, 2), alpha=D**-0.5)  # (BH, T, T)
    return (scores.softmax(-1) @ v).view(B, H, T, D)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension (Zhang and Sennrich 2019, eq. 4)."""

    normalize = staticmethod(rms_norm)

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight to ones."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., width) -> (..., width) in the dtype of ``x``, which autocast may have made bfloat16.

        Autocast of CUDA would return float32.
        """
        return self.normalize(x, self.weight.to(x.dtype), self.eps).to(x.dtype)


class Attention(nn.Module):
    """Causal self-attention with grouped queries (Ainslie et al. 2023) and QK-norm (Henry et al. 2020)."""

    rotate = staticmethod(rotate)
    attend = staticmethod(eager_attention)
    """What computes the attention in training on a CPU; another function in its place does so in evaluation, too."""

    def __init__(self, sizes: Sizes, layer: int) -> None:
        super().__init__()
        self.layer = layer
        n_kv_heads, self.head_dim, _ = resolve_sizes(sizes)
        self.is_grouped = n_kv_heads != sizes.n_heads
        self.q_proj = nn.Linear(sizes.emb_dim, sizes.n_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(sizes.emb_dim, n_kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(sizes.emb_dim, n_kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(sizes.n_heads * self.head_dim, sizes.emb_dim, bias=False)
        self.q_norm = RMSNorm(self.head_dim, sizes.norm_eps)
        self.k_norm = RMSNorm(self.head_dim, sizes.norm_eps)

    def forward(self, x: Tensor, rope: Tensor, mask: Tensor | None, cache: Cache | None) -> Tensor:
        """Return (B, T, C) -> (B, T, C). ``mask`` (T, S) is true where a query may attend; None: causal."""
        B, T, _ = x.shape
        heads = (B, T, -1, self.head_dim)
        q = self.rotate(self.q_norm(self.q_proj(x).view(heads)).transpose(1, 2), rope)  # (B, T, HD) -> (B, H, T, D)
        k = self.rotate(self.k_norm(self.k_proj(x).view(heads)).transpose(1, 2), rope)  # (B, T, KD) -> (B, K, T, D)
        v = self.v_proj(x).view(heads).transpose(1, 2)  # (B, T, KD) -> (B, K, T, D)
        if cache is not None:
            k, v = cache.update(k, v, self.layer)  # (B, K, S, D)
        # One query after a cache attends to everything, several without a cache causally; else the mask decides.
        is_causal = mask is None and T > 1
        if is_causal and x.device.type == "cpu" and (self.training or self.attend is not eager_attention):
            y = self.attend(q, k, v)
        else:
            is_grouped = self.is_grouped
            if is_grouped and q.dtype == torch.float32 and q.device.type != "cpu":
                # Grouped keys and values in float32 would take the kernel that stores all scores (transformers#48633).
                k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
                is_grouped = False
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=is_grouped)
        return self.o_proj(y.transpose(1, 2).reshape(B, T, -1))  # (B, H, T, D) -> (B, T, C)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, eq. 6): down(silu(gate(x)) * up(x))."""

    swiglu = staticmethod(swiglu)

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        _, _, ffn_dim = resolve_sizes(sizes)
        self.gate_proj = nn.Linear(sizes.emb_dim, ffn_dim, bias=False)
        self.up_proj = nn.Linear(sizes.emb_dim, ffn_dim, bias=False)
        self.down_proj = nn.Linear(ffn_dim, sizes.emb_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.down_proj(self.swiglu(self.gate_proj(x), self.up_proj(x)))


class Block(nn.Module):
    """One pre-norm transformer block: attention, then feed-forward, each added to what came in."""

    native: Callable[[Block, Tensor, Tensor], Tensor] | None = None
    """What computes a whole block in training and evaluation, if PyTorch does not: (block, x, rope) -> (B, T, C)."""

    def __init__(self, sizes: Sizes, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(sizes, layer)
        self.mlp = FeedForward(sizes)
        self.input_layernorm = RMSNorm(sizes.emb_dim, sizes.norm_eps)
        self.post_attention_layernorm = RMSNorm(sizes.emb_dim, sizes.norm_eps)
        self.dropout = nn.Dropout(sizes.drop_rate)

    def forward(self, x: Tensor, rope: Tensor, mask: Tensor | None, cache: Cache | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        if self.native is not None and mask is None and cache is None:
            return self.native(self, x, rope)
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), rope, mask, cache))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


class Body(nn.Module):
    """The model without the head: ids to final hidden states."""

    rope: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(sizes.vocab_size, sizes.emb_dim)
        self.dropout = nn.Dropout(sizes.drop_rate)
        self.layers = nn.ModuleList(Block(sizes, layer) for layer in range(sizes.n_layers))
        self.norm = RMSNorm(sizes.emb_dim, sizes.norm_eps)
        _, self.head_dim, _ = resolve_sizes(sizes)
        self.rope_theta = sizes.rope_theta
        table = torch.empty(2, sizes.context_length, self.head_dim // 2)
        self.register_buffer("rope", table, persistent=False)  # not in files: transformers has no such key
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Compute the table of positions, but not on the meta device, where PyTorch would import its compiler."""
        if not self.rope.is_meta:
            self.rope.copy_(rope_table(self.rope.shape[1], self.head_dim, self.rope_theta))

    def forward(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """Return hidden states, (B, T) -> (B, T, C)."""
        T, context_length = ids.shape[1], self.rope.shape[1]
        past = cache.get_seq_length() if cache is not None else 0
        S = past + T
        if context_length < S:
            raise ValueError(f"{S} tokens do not fit into context_length {context_length}")
        mask = None
        if past > 0 and T > 1:
            rows = torch.arange(past, S, device=ids.device)[:, None]
            mask = torch.arange(S, device=ids.device)[None, :] <= rows  # (T, S)
        x = self.dropout(self.embed_tokens(ids))
        for layer in self.layers:
            x = layer(x, self.rope[:, past:S], mask, cache)
        return self.norm(x)


class Qwen3(nn.Module):
    """Maps token ids to logits. It never sees targets and never computes a loss."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.context_length = sizes.context_length
        self.model = Body(sizes)
        self.lm_head = nn.Linear(sizes.emb_dim, sizes.vocab_size, bias=False)
        if sizes.tie_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
            self.register_load_state_dict_pre_hook(_share_the_embedding)  # type: ignore[no-untyped-call]

    @property
    def out_head(self) -> nn.Linear:
        """The output head, (V, C)."""
        return self.lm_head

    def hidden(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """Return the final hidden states, (B, T) ids -> (B, T, C); ``out_head`` turns them into logits.

        ``cache`` contains the previous tokens. Raises ValueError for more than ``context_length`` positions.
        """
        return self.model(ids, cache)

    def forward(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """Return logits, (B, T) -> (B, T, V)."""
        return self.lm_head(self.hidden(ids, cache))


def _share_the_embedding(_model: nn.Module, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
    """Restore the head of a tied model, which files do not contain; refuse a head that differs from the embedding."""
    embedding, head = f"{prefix}model.embed_tokens.weight", f"{prefix}lm_head.weight"
    errors = rest[-1]
    assert isinstance(errors, list), "torch's hooks end with the list of errors"
    if embedding in state and not torch.equal(state.setdefault(head, state[embedding]), state[embedding]):
        errors.append(f"{head} is not {embedding}, though the two are to be tied")
