"""The compiled library, as Python functions of tensors."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mamegpt.errors import ConfigError, first_line
from mamegpt.native.build import InstructionSet, best_instruction_set, build, is_built, library_path

__all__ = ["BF16_WIDTH_UNIT", "WIDTH_UNIT", "Native", "load", "load_if_built"]

WIDTH_UNIT = 16
"""Hidden sizes must be multiples of this: two vectors;"""
BF16_WIDTH_UNIT = 32
"""in bfloat16, of this: a row of a tile."""
_LARGEST_UNIT = 256
_MOST = (1 << 31) - 1
_P, _I = ctypes.c_void_p, ctypes.c_int32


class Native:
    """The functions of a library, for float32 tensors on the CPU, which some of them multiply in bfloat16.

    They compute on as many threads as PyTorch does. Results have the same bits with any number of threads.
    """

    def __init__(self, path: Path, instructions: InstructionSet) -> None:
        """Load a library. Raises `ConfigError` if the system cannot."""
        self.instructions = instructions
        try:
            self.library = library = ctypes.CDLL(str(path))
            self._heads = {
                torch.float32: (library.mame_head, library.mame_head_memory, 4),
                torch.bfloat16: (library.mame_head_bf16, library.mame_head_bf16_memory, 1),
            }
            self._attention, self._attention_backward = library.mame_attention, library.mame_attention_backward
            self._attention_memory, self._attention_square = (
                library.mame_attention_memory,
                library.mame_attention_square,
            )
        except (OSError, AttributeError) as error:
            raise ConfigError(
                "{path} cannot be loaded ({reason}); remove it", path=path, reason=first_line(error)
            ) from None
        library.mame_use_threads.argtypes, library.mame_use_threads.restype = [_P, _P], None
        library.mame_use_threads(*_threads_of_pytorch())
        for head, memory, _ in self._heads.values():
            memory.argtypes, memory.restype = [_I, _I, _I, _I], ctypes.c_int64
            head.argtypes, head.restype = [_I, _I, _I, _I, _P, _P, _P, _P, ctypes.c_float, _P, _P, _P, _P, _I], _I
        self._attention_memory.argtypes, self._attention_memory.restype = [_I, _I, _I], ctypes.c_int64
        self._attention_square.argtypes, self._attention_square.restype = [_I], ctypes.c_int64
        self._attention.argtypes, self._attention.restype = [_I, _I, _I, _I, *[_P] * 6, _I], None
        self._attention_backward.argtypes, self._attention_backward.restype = [_I, _I, _I, _I, *[_P] * 10, _I], None

    def head(
        self,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        soft_targets: Tensor | None,
        true_share: float,
        needs_gradient: bool,
        compute_dtype: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return `linear_cross_entropy` and, if needed, its gradients: (N, C), (V, C), (N,), (N, K) -> scalar.

        The products are computed in ``compute_dtype``, float32 or bfloat16. Raises `ValueError` for tensors of another
        type, place or shape, and `IndexError` for an id outside of the vocabulary.
        """
        N, C = hidden.shape
        V, K = weight.shape[0], 0 if soft_targets is None else soft_targets.shape[-1]
        _check("hidden", hidden, torch.float32, (N, C))
        _check("weight", weight, torch.float32, (V, C))
        _check("targets", targets, torch.int64, (N,))
        if soft_targets is not None:
            _check("soft_targets", soft_targets, torch.int64, (N, K))
        unit = WIDTH_UNIT if compute_dtype == torch.float32 else BF16_WIDTH_UNIT
        if C % unit or not C > 0 or not V > 0 or max(N, C, V + _LARGEST_UNIT, K) > _MOST:
            raise ValueError(f"the hidden size must be a multiple of {unit} (got {C}), and the vocabulary not empty")
        inputs = [tensor.detach().contiguous() for tensor in (hidden, weight, targets)]
        soft = None if soft_targets is None else soft_targets.contiguous()
        losses = torch.empty(N + 1, dtype=torch.float64)
        grad_hidden = torch.empty_like(inputs[0]) if needs_gradient else None
        fill = torch.empty_like if N else torch.zeros_like  # without positions the library writes nothing
        grad_weight = fill(inputs[1]) if needs_gradient else None
        n_threads = torch.get_num_threads()
        head, memory_of_head, item_bytes = self._heads[compute_dtype]
        memory = torch.empty(memory_of_head(V, C, n_threads, needs_gradient) * item_bytes, dtype=torch.uint8)
        failed = head(
            N,
            V,
            C,
            K,
            *map(_pointer, inputs),
            _pointer(soft),
            true_share,
            _pointer(losses),
            _pointer(grad_hidden),
            _pointer(grad_weight),
            _pointer(memory),
            n_threads,
        )
        if failed:
            raise IndexError(f"a target is no token of the vocabulary (0 to {V - 1})")
        return losses[N].float(), grad_hidden, grad_weight

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the causal attention of q (B, H, T, D) over k, v (B, K, T, D), with gradients: (B, H, T, D).

        Raises `ValueError` for tensors of another type, place or shape.
        """
        out: Tensor = _Attention.apply(q, k, v, self)  # type: ignore[no-untyped-call]
        return out


class _Attention(torch.autograd.Function):
    """Causal attention; the probabilities are kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, native: Native) -> Tensor:
        """Compute the attention: (B, H, T, D), (B, K, T, D), (B, K, T, D) -> (B, H, T, D)."""
        (B, H, T, D), K = q.shape, k.shape[1]
        _check("q", q, torch.float32, (B, H, T, D))
        _check("k", k, torch.float32, (B, K, T, D))
        _check("v", v, torch.float32, (B, K, T, D))
        if D % WIDTH_UNIT or K < 1 or H % K or max(B * H, T) > _MOST // WIDTH_UNIT:
            raise ValueError(f"{H} heads of {D} over {K} heads; a multiple of {WIDTH_UNIT} over a divisor is needed")
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        out = torch.empty_like(q)
        p = torch.empty(B * H * native._attention_square(T))
        ctx.sizes, ctx.native = (B * K, H // K, T, D), native
        memory, n_threads = _memory(native, T, D)
        native._attention(*ctx.sizes, *map(_pointer, (q, k, v, p, out, memory)), n_threads)
        ctx.save_for_backward(q, k, v, p, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of q, k and v."""
        q, k, v, p, out = ctx.saved_tensors
        found = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        memory, n_threads = _memory(ctx.native, *ctx.sizes[2:])
        inputs = (q, k, v, p, out, grad_outputs[0].contiguous())
        ctx.native._attention_backward(*ctx.sizes, *map(_pointer, (*inputs, *found, memory)), n_threads)
        return *found, None


def _threads_of_pytorch() -> tuple[int | None, int | None]:
    """Return the addresses of two functions of the OpenMP library that PyTorch brings, if it is one of GCC's kind.

    Otherwise the native library starts threads of its own.
    """
    folder = Path(torch.__file__).parent
    for path in [*(folder / "lib").glob("libgomp*.so*"), *folder.parent.glob("torch.libs/libgomp*.so*")]:
        library = ctypes.CDLL(str(path))  # the one that is loaded
        found = ctypes.cast(library.GOMP_parallel, _P), ctypes.cast(library.omp_get_num_threads, _P)
        return found[0].value, found[1].value
    return None, None


def _memory(native: Native, T: int, D: int) -> tuple[Tensor, int]:
    """Return the memory that attention needs, and for how many threads."""
    n_threads = torch.get_num_threads()
    return torch.empty(native._attention_memory(T, D, n_threads)), n_threads


def _check(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Raise `ValueError` for a tensor whose memory is not what the library would take it for."""
    if tensor.dtype != dtype or tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.shape != shape:
        raise ValueError(
            f"{name} must be {dtype} {shape} on the CPU (got {tensor.dtype} {tuple(tensor.shape)} on {tensor.device})"
        )


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def load(instructions: InstructionSet | None = None, on_build: Callable[[str], None] = lambda _: None) -> Native:
    """Return the library for a set of instructions (default: the best of this processor), compiled if need be.

    ``on_build`` is called with the compiler before that. Raises `ConfigError` with the reason if there can be none.
    """
    return _loaded(build(chosen := instructions or best_instruction_set(), on_build), chosen)


def load_if_built() -> Native | None:
    """Return the library for the best set of instructions of this processor, if there is one without compiling it."""
    try:
        return _loaded_if_built(best_instruction_set())
    except (FileNotFoundError, ConfigError):  # not built, no cache folder, or the system cannot load it
        return None


@functools.cache
def _loaded_if_built(instructions: InstructionSet) -> Native:
    """Return the library. Raises `FileNotFoundError` if there is none; then the next call looks again."""
    path = library_path(instructions)
    if not is_built(path):
        raise FileNotFoundError(path)
    return _loaded(path, instructions)


_loaded = functools.cache(Native)
