"""RMSNorm, the rotation of queries and keys, and SwiGLU by the compiled library, with gradients."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mamegpt.native.library import WIDTH_UNIT, Native

__all__ = ["Pointwise"]

_P, _I, _L = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
_ARGUMENTS = {
    "mame_rms_norm": ([_L, _I, _P, _P, ctypes.c_float, _P, _I], None),
    "mame_rms_norm_memory": ([_L, _I], _L),
    "mame_rms_norm_backward": ([_L, _I, _P, _P, ctypes.c_float, _P, _P, _P, _P, _I], None),
    "mame_rotate": ([_I, _I, _I, _I, _P, _L, _P, _P, _I, _I], None),
    "mame_swiglu": ([_L, _P, _P, _P, _I], None),
    "mame_swiglu_backward": ([_L, _P, _P, _P, _P, _P, _I], None),
}


class Pointwise:
    """The functions, for float32 tensors on the CPU; they take the place of those of the same names in the models."""

    def __init__(self, native: Native) -> None:
        self.library = native.library
        for name, (arguments, result) in _ARGUMENTS.items():
            function = getattr(self.library, name)
            function.argtypes, function.restype = arguments, result

    def normalize(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Return the RMSNorm of the rows of x (..., n), times weight (n,); n is a multiple of 8."""
        out: Tensor = _RMSNorm.apply(x, weight, eps, self.library)  # type: ignore[no-untyped-call]
        return out

    def rotate(self, x: Tensor, rope: Tensor) -> Tensor:
        """Rotate pairs of (B, H, T, D) by the angles of rope (2, T, D/2); D is a multiple of 16."""
        out: Tensor = _Rotation.apply(x, rope, self.library)  # type: ignore[no-untyped-call]
        return out

    def swiglu(self, gate: Tensor, up: Tensor) -> Tensor:
        """Return SiLU(gate) * up, of one shape."""
        out: Tensor = _SwiGLU.apply(gate, up, self.library)  # type: ignore[no-untyped-call]
        return out


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, library: Any) -> Tensor:
        x, weight = _plain(x), _plain(weight)
        n = weight.shape[0]
        if weight.dim() != 1 or x.shape[-1:] != weight.shape or n % (WIDTH_UNIT // 2):
            raise ValueError(f"rows of {tuple(x.shape)} cannot have a norm with a weight {tuple(weight.shape)}")
        out = torch.empty_like(x)
        ctx.eps, ctx.library = eps, library
        library.mame_rms_norm(x.numel() // n, n, *_pointers(x, weight), eps, *_pointers(out), torch.get_num_threads())
        ctx.save_for_backward(x, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), dy = ctx.saved_tensors, _plain(grad_outputs[0])
        n = weight.shape[0]
        n_rows = x.numel() // n
        dx, dw, memory = (
            torch.empty_like(x),
            torch.empty_like(weight),
            torch.empty(ctx.library.mame_rms_norm_memory(n_rows, n)),
        )
        ctx.library.mame_rms_norm_backward(
            n_rows, n, *_pointers(x, weight), ctx.eps, *_pointers(dy, dx, dw, memory), torch.get_num_threads()
        )
        return dx, dw, None, None


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rope: Tensor, library: Any) -> Tensor:
        B, H, T, D = x.shape
        by_position = _plain(x.transpose(1, 2))
        if (
            rope.shape != (2, T, D // 2)
            or D % WIDTH_UNIT
            or rope.dtype != torch.float32
            or rope[0].stride() != (D // 2, 1)
        ):
            raise ValueError(f"heads of {tuple(x.shape)} cannot be rotated by {tuple(rope.shape)}")
        ctx.sizes, ctx.rope, ctx.library = (B, T, H, D), rope, library
        out = torch.empty(B, H, T, D)
        _rotate(ctx, by_position, out, back=False)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        dx = torch.empty(ctx.sizes)
        _rotate(ctx, _plain(grad_outputs[0]), dx, back=True)
        return dx.transpose(1, 2), None, None


def _rotate(ctx: Any, x: Tensor, out: Tensor, *, back: bool) -> None:
    rope = ctx.rope
    ctx.library.mame_rotate(
        *ctx.sizes, *_pointers(rope), rope.stride(0), *_pointers(x, out), back, torch.get_num_threads()
    )


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, library: Any) -> Tensor:
        gate, up = _plain(gate), _plain(up)
        if gate.shape != up.shape:
            raise ValueError(f"shapes {tuple(gate.shape)} and {tuple(up.shape)} differ")
        out = torch.empty_like(up)
        library.mame_swiglu(up.numel(), *_pointers(gate, up, out), torch.get_num_threads())
        ctx.save_for_backward(gate, up)
        ctx.library = library
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gate, up), dy = ctx.saved_tensors, _plain(grad_outputs[0])
        d_gate, d_up = torch.empty_like(gate), torch.empty_like(up)
        ctx.library.mame_swiglu_backward(up.numel(), *_pointers(gate, up, dy, d_gate, d_up), torch.get_num_threads())
        return d_gate, d_up, None


def _plain(tensor: Tensor) -> Tensor:
    """Return a tensor in one piece. Raises `ValueError` unless it is float32 on the CPU."""
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or tensor.layout != torch.strided:
        raise ValueError(f"a tensor must be float32 on the CPU (got {tensor.dtype} on {tensor.device})")
    return tensor.contiguous()


def _pointers(*tensors: Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]
