"""Continuations drawn from n-gram counts by the compiled library, with the results of `NgramTargets.draw` in NumPy."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mamegpt.native.library import Native

__all__ = ["draw"]

_P, _I, _L = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
_ARGUMENTS: list[Any] = [_I, _P, _P, _L, ctypes.c_double, _I, _I, _I, _P, _P, _P, _I]


def draw(
    native: Native,
    levels: Sequence[npt.NDArray[np.int64]],
    vocab_size: int,
    discount: float,
    ids: npt.NDArray[np.int64],
    random: npt.NDArray[np.float64],
) -> npt.NDArray[np.int64]:
    """Return continuations of each position: ids (B, T), random (levels, B, T, 1 + K) -> (B, T, K).

    ``levels`` are sorted n-grams of 1, 2, ... tokens, as in `NgramTargets`. Raises `ValueError` for arrays of another
    type or shape.
    """
    B, T = ids.shape
    K = random.shape[-1] - 1
    arrays: list[npt.NDArray[Any]] = [*levels, ids]
    if any(one.dtype != np.int64 or not one.flags.c_contiguous or not one.size for one in arrays) or not levels:
        raise ValueError("n-grams and ids must be int64, in one piece, and not empty")
    if random.shape[:-1] != (len(levels), B, T) or random.dtype != np.float64 or not random.flags.c_contiguous:
        raise ValueError(f"random numbers must be float64 of {(len(levels), B, T)} and more (got {random.shape})")
    drawn = np.empty((B, T, K), np.int64)
    function = native.library.mame_draw
    function.argtypes, function.restype = _ARGUMENTS, None
    function(
        len(levels),
        (_P * len(levels))(*[one.ctypes.data for one in levels]),
        (_L * len(levels))(*[len(one) for one in levels]),
        vocab_size,
        discount,
        B,
        T,
        K,
        *[one.ctypes.data for one in (ids, random, drawn)],
        torch.get_num_threads(),
    )
    return drawn
