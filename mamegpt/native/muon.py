"""A step of Muon by the compiled library, with products in bfloat16."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mamegpt.native.library import Native

__all__ = ["fits", "muon_step"]

LARGEST = 512 * 1536
"""Numbers of a matrix, padded, up to which one thread keeps it in its cache; of larger ones PyTorch's products are
faster (measured with two threads, docs/log.md)."""
_UNIT = 32

_P, _I, _L = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64


def fits(weight: Tensor) -> bool:
    """Return whether the library updates a matrix: float32, on the CPU, in one piece, not too large."""
    is_plain = weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.layout == torch.strided
    if not is_plain or weight.dim() != 2 or not weight.is_contiguous() or not weight.numel():
        return False
    rows, columns = (math.ceil(size / _UNIT) * _UNIT for size in weight.shape)
    return rows * columns <= LARGEST


def muon_step(
    native: Native,
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    momenta: Sequence[Tensor],
    group: dict[str, Any],
) -> None:
    """Update matrices that `fits` allows, and their momentum, in place; ``group`` has the settings of `Muon`.

    Raises `ValueError` for tensors of another type, place or shape.
    """
    for together in zip(weights, gradients, momenta, strict=True):
        if not all(fits(one) and one.shape == together[0].shape for one in together):
            found = ", ".join(f"{one.dtype} {tuple(one.shape)} {one.stride()}" for one in together)
            raise ValueError(f"a matrix cannot be updated; weights, gradient and momentum are {found}")
    library = native.library
    library.mame_muon_memory.argtypes, library.mame_muon_memory.restype = [_I, _I], _L
    library.mame_muon.argtypes, library.mame_muon.restype = [_I, _P, _P, _I, _P, _P, _P, _P, _L, _I], None
    shapes = [tuple(weight.shape) for weight in weights]
    n_threads = min(torch.get_num_threads(), len(shapes))
    n_bytes = max(library.mame_muon_memory(*shape) for shape in set(shapes))
    memory = torch.empty(n_threads * n_bytes, dtype=torch.uint8)
    settings = group["lr"], group["momentum"], group["weight_decay"], *group["ns_coefficients"], group["eps"]
    library.mame_muon(
        len(shapes),
        (_I * (2 * len(shapes)))(*[size for shape in shapes for size in shape]),
        (ctypes.c_float * len(settings))(*settings),
        group["ns_steps"],
        *[(_P * len(shapes))(*[one.data_ptr() for one in tensors]) for tensors in (weights, gradients, momenta)],
        memory.data_ptr(),
        n_bytes,
        n_threads,
    )
