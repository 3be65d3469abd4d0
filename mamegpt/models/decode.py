"""Building blocks of decoding steps: a second implementation of a model, for the next token of one sequence on a CPU.

A token of a small model needs little arithmetic; the number of PyTorch calls and one pass over the weights dominate. A
step therefore works on plain vectors, joins matrices that read the same vector, keeps query, key and value of a
position in one row, and runs on one thread: waking a second one takes longer than it saves.

Letters in shape comments are those of the models: C hidden size, H heads, K heads of keys and values, D width of a
head, V vocabulary size; N = H + 2 K.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from mamegpt.native.decode import BlockWeights, Linear, Norm, StepWeights

__all__ = [
    "Rows",
    "Step",
    "after_rms_norm",
    "by_columns",
    "layer_norm",
    "linear",
    "norm_of",
    "one_thread",
    "swiglu_weights",
    "weights_of",
]

Step = Callable[[int, int], Tensor]
"""Computes the final hidden state (C,) of a token from its id and its position."""


class Rows:
    """Queries, keys and values of all positions: rows (N D,) per layer, as one matrix product writes them."""

    def __init__(self, n_layers: int, capacity: int, heads: tuple[int, int, int], head_dim: int) -> None:
        rows = torch.empty(n_layers, capacity, sum(heads), head_dim)
        self._rows = rows.flatten(2)
        # (layers, capacity, N, D) -> (layers, 1, N, capacity, D) -> (layers, 1, H or K, capacity, D) each
        self._queries, self.keys, self.values = rows.transpose(1, 2)[:, None].split_with_sizes(heads, dim=2)

    def at(self, position: int) -> Iterator[tuple[Tensor, ...]]:
        """Yield, for each layer, the row of a position, its query, and keys and values up to it; one call for all
        layers.
        """
        return zip(
            self._rows[:, position].unbind(),
            self._queries.narrow(3, position, 1).unbind(),
            self.keys.narrow(3, 0, position + 1).unbind(),
            self.values.narrow(3, 0, position + 1).unbind(),
            strict=True,
        )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute on one thread within the block."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def by_columns(matrix: Tensor) -> Tensor:
    """Store a matrix in column-major order: its product with a vector can be twice as fast."""
    return matrix.detach().t().contiguous().t()


def linear(layer: Any) -> Callable[..., Tensor]:
    """Return an `nn.Linear` as a function of a vector; ``out=`` is the destination."""
    matrix = by_columns(layer.weight)
    bias = matrix.new_zeros(len(matrix)) if layer.bias is None else layer.bias.detach()
    return lambda x, out=None: torch.addmv(bias, matrix, x, out=out)


def layer_norm(norm: Any) -> Callable[[Tensor], Tensor]:
    """Return an `nn.LayerNorm` as a function of a vector."""
    shape, weight, bias, eps = norm.normalized_shape, norm.weight.detach(), norm.bias.detach(), norm.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def after_rms_norm(norm: Any, *layers: Any) -> Callable[..., Tensor]:
    """Return several `nn.Linear` after an RMSNorm, joined, as a function of a vector and a factor for the product.

    RMSNorm of n numbers is sqrt(n) weight x / sqrt(|x|^2 + n eps). sqrt(n) and the weight are moved into the matrix;
    the factor 1 / sqrt(|x|^2 + n eps) is a number, applied within the matrix product.
    """
    joined = torch.cat([layer.weight.detach() for layer in layers])
    matrix = by_columns(joined.mul_(norm.weight).mul_(len(norm.weight) ** 0.5))
    nothing = matrix.new_zeros(len(matrix))
    return lambda x, factor, out=None: torch.addmv(nothing, matrix, x, alpha=factor, out=out)


def weights_of(layer: Any) -> Linear:
    """Return the weights of an `nn.Linear`, not copied."""
    return Linear(layer.weight.detach(), None if layer.bias is None else layer.bias.detach())


def norm_of(layer: Any) -> Norm:
    """Return the weight of an RMSNorm, not copied."""
    return Norm(layer.weight.detach())


def swiglu_weights(model: Any, head_norms: Callable[[Any], tuple[Norm, Norm]]) -> StepWeights:
    """Return the weights, for the native decoding step, of a model with RMSNorm, RoPE and SwiGLU.

    ``head_norms`` returns the norms of an attention's queries and keys.
    """
    body = model.model

    def block_weights(block: Any) -> BlockWeights:
        attention, mlp = block.self_attn, block.mlp
        of_queries, of_keys = head_norms(attention)
        return BlockWeights(
            before_attention=norm_of(block.input_layernorm),
            of_queries=of_queries,
            of_keys=of_keys,
            q=weights_of(attention.q_proj),
            k=weights_of(attention.k_proj),
            v=weights_of(attention.v_proj),
            out=weights_of(attention.o_proj),
            before_mlp=norm_of(block.post_attention_layernorm),
            gate=weights_of(mlp.gate_proj),
            up=weights_of(mlp.up_proj),
            down=weights_of(mlp.down_proj),
        )

    return StepWeights(
        embedding=body.embed_tokens.weight.detach(),
        positions=None,
        rope=body.rope,
        blocks=[block_weights(block) for block in body.layers],
        last=norm_of(body.norm),
        eps=body.norm.eps,
        head_dim=body.head_dim,
        capacity=model.context_length,
    )
