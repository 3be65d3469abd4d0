"""A whole block of Qwen3 or Llama by the compiled library, in training and evaluation, with products in bfloat16."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mamegpt.native.library import BF16_WIDTH_UNIT, Native

__all__ = ["Blocks"]

_P, _I, _L, _F = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float
_INPUTS = [_P, _F, _I, _P, _P, _P, _L]
_ARGUMENTS = {
    "mame_block_kept": ([_P, _I], _L),
    "mame_block_memory": ([_P, _I, _I], _L),
    "mame_block": ([*_INPUTS, _P, _P, _P, _I], None),
    "mame_block_backward": ([*_INPUTS, _P, _P, _P, _P, _P, _I], None),
}
_WIDEST_HEAD = 512
_MOST = (1 << 31) - 1


class Blocks:
    """The function, for float32 tensors on the CPU; it takes the place of a block's ``native``.

    Sums stay in float32, and so does what one block hands to the next. Results have the same bits with any number of
    threads, but other ones with another set of instructions.
    """

    def __init__(self, native: Native) -> None:
        self.library = native.library
        for name, (arguments, result) in _ARGUMENTS.items():
            function = getattr(self.library, name)
            function.argtypes, function.restype = arguments, result

    def compute(self, block: Any, x: Tensor, rope: Tensor) -> Tensor:
        """Return the output of a block that `fits`, (B, T, C) -> (B, T, C); ``rope`` is (2, T, D/2).

        Raises `ValueError` for tensors of another type, place or shape.
        """
        norm = block.input_layernorm
        out: Tensor = _Block.apply(x, rope, block.self_attn.head_dim, norm.eps, self.library, *_weights(block))  # type: ignore[no-untyped-call]
        return out

    @staticmethod
    def fits(block: Any) -> bool:
        """Return whether the library computes this block: one of Qwen3 or Llama as they are, of fitting widths."""
        attention, mlp = getattr(block, "self_attn", None), getattr(block, "mlp", None)
        if attention is None or mlp is None or not hasattr(type(block), "native"):
            return False
        linear = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
        linear += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
        if any(type(one) is not nn.Linear or one.bias is not None for one in linear) or block.dropout.p > 0:
            return False
        C, D = attention.q_proj.in_features, attention.head_dim
        return bool(C % BF16_WIDTH_UNIT == 0 and D % BF16_WIDTH_UNIT == 0 and D <= _WIDEST_HEAD)


def _weights(block: Any) -> list[Tensor | None]:
    """Return the weights of a block in the order of the library's; those of norms that it does not have are None."""
    attention, mlp = block.self_attn, block.mlp
    q_norm, k_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
    return [
        block.input_layernorm.weight,
        attention.q_proj.weight,
        attention.k_proj.weight,
        attention.v_proj.weight,
        None if q_norm is None else q_norm.weight,
        None if k_norm is None else k_norm.weight,
        attention.o_proj.weight,
        block.post_attention_layernorm.weight,
        mlp.gate_proj.weight,
        mlp.up_proj.weight,
        mlp.down_proj.weight,
    ]


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, rope: Tensor, head_dim: int, eps: float, library: Any, *weights: Tensor | None
    ) -> Tensor:
        x = x.contiguous()
        sizes = _sizes(x, rope, head_dim, weights)
        normalizes = weights[4] is not None
        kept = torch.empty(library.mame_block_kept(sizes, normalizes), dtype=torch.uint8)
        out = torch.empty_like(x)
        ctx.rope, ctx.library, ctx.inputs = rope, library, (sizes, eps, normalizes)
        _call(ctx, library.mame_block, weights, x, kept.data_ptr(), out.data_ptr())
        ctx.save_for_backward(x, kept, *weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, kept, *weights = ctx.saved_tensors
        d_out, dx = grad_outputs[0].contiguous(), torch.empty_like(x)
        gradients = [None if weight is None else torch.empty_like(weight) for weight in weights]
        function = ctx.library.mame_block_backward
        _call(ctx, function, weights, x, kept.data_ptr(), d_out.data_ptr(), dx.data_ptr(), _array(gradients))
        return dx, None, None, None, None, *gradients


def _call(ctx: Any, function: Any, weights: Any, x: Tensor, *rest: Any) -> None:
    sizes, eps, normalizes = ctx.inputs
    n_threads = torch.get_num_threads()
    memory = torch.empty(ctx.library.mame_block_memory(sizes, normalizes, n_threads), dtype=torch.uint8)
    rope = ctx.rope
    inputs = sizes, eps, normalizes, _array(weights), x.data_ptr(), rope.data_ptr(), rope.stride(0)
    function(*inputs, *rest, memory.data_ptr(), n_threads)


def _array(tensors: Any) -> Any:
    return (_P * len(tensors))(*[None if tensor is None else tensor.data_ptr() for tensor in tensors])


def _sizes(x: Tensor, rope: Tensor, D: int, weights: tuple[Tensor | None, ...]) -> Any:
    """Return n, T, C, H, G, D, F. Raises `ValueError` if not all tensors have the shapes that follow from these."""
    B, T, C = x.shape
    H, G, F = (weight.shape[0] // divisor for weight, divisor in ((weights[1], D), (weights[2], D), (weights[8], 1)))  # type: ignore[union-attr]
    norms = (D,) if weights[4] is not None else None
    Q, KV = (H * D, C), (G * D, C)
    shapes = [(C,), Q, KV, KV, norms, norms, (C, H * D), (C,), (F, C), (F, C), (C, F)]
    found = [None if weight is None else tuple(weight.shape) for weight in weights]
    if found != shapes or rope.shape != (2, T, D // 2) or rope[0].stride() != (D // 2, 1):
        raise ValueError(f"weights {found} and angles {tuple(rope.shape)} are not those of a block with heads of {D}")
    for tensor in (x, rope[0], *(weight for weight in weights if weight is not None)):
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or not tensor.is_contiguous():
            raise ValueError(f"a tensor must be float32 on the CPU, in one piece (got {tensor.dtype} {tensor.device})")
    if C % BF16_WIDTH_UNIT or D % BF16_WIDTH_UNIT or not 0 < D <= _WIDEST_HEAD or G < 1 or H % G or T < 1 or F < 1:
        raise ValueError(f"a width of {C}, {H} heads of {D} over {G}, or {F} is not computed")
    if max(B, (T + BF16_WIDTH_UNIT) * (2 * F + (H + 2 * G) * D + C + 2 * BF16_WIDTH_UNIT)) > _MOST:
        raise ValueError(f"{T} positions are too many")
    return (_I * 7)(B, T, C, H, G, D, F)
