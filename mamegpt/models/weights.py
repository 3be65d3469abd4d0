"""Weights files, safely read, and the models that they fill.

No code in a file is executed: PyTorch files are read with ``weights_only``.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mamegpt.errors import ModelError, first_line, is_out_of_memory
from mamegpt.models.base import LanguageModel, not_finite
from mamegpt.system.files import is_lfs_pointer

__all__ = ["check_memory", "load_weights", "memory_of", "n_bytes", "read_weights", "refuse_not_finite"]

MEMORY_FACTOR, MEMORY_FREE = 4, 1 << 28
"""Limit of a model's memory: this multiple of the bytes of its weights files, plus these bytes."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return a state dict under the architecture's own keys, from ``.safetensors`` or a PyTorch file.

    Prefixes of wrappers (``backbone.``, ``module.``, ``_orig_mod.``) are removed, and a state dict inside
    ``{"state_dict": ...}`` is found. Raises `ModelError` if the file is missing, truncated, not a state dict, expands
    to far more than its size, or contains anything but tensors (such a file could run code, so it is not opened
    further).
    """
    if not path.is_file():
        raise ModelError("no weights file {path}", path=path)
    if is_lfs_pointer(path):
        raise ModelError(
            "{path} is a Git LFS pointer, not the file; fetch it in its folder with: git lfs pull", path=path
        )
    try:
        if path.suffix == ".safetensors":
            weights: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about pickle protocols; real problems are reported below
                weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            "{path} was refused: it is damaged, or holds code or objects besides tensors, which "
            "could do anything when opened; ask for a plain state dict or a .safetensors file",
            path=path,
        ) from None
    except Exception as error:  # a damaged pickle may raise anything, even IndexError or struct.error
        if is_out_of_memory(error):
            raise
        raise ModelError(
            "{path} is truncated or is not a weights file: {reason}", path=path, reason=first_line(error)
        ) from None
    if isinstance(weights, dict) and isinstance(weights.get("state_dict"), dict):
        weights = weights["state_dict"]
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise ModelError("{path} does not hold a state dict (names and tensors)", path=path)
    check_memory(
        sum(map(n_bytes, weights.values())), path.stat().st_size, path
    )  # the storage of a view may be larger than the view
    return {_own_name(str(name)): tensor for name, tensor in weights.items()}


def check_memory(needed: int, there: int, origin: str | Path) -> None:
    """Raise `ModelError` if a model needs far more memory than its weights have bytes (``there``)."""
    if needed > MEMORY_FACTOR * there + MEMORY_FREE:
        raise ModelError(
            "{origin} would take {needed_gb:,.1f} GB of memory for {there_mb:,.1f} MB of weights; it "
            "is damaged or made to exhaust the memory, or its config.json allows far too many "
            "positions",
            origin=origin,
            needed_gb=needed / 1e9,
            there_mb=there / 1e6,
        )


def memory_of(model: nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers; it may be on the meta device."""
    return sum(map(n_bytes, (*model.parameters(), *model.buffers())))


def n_bytes(tensor: Tensor) -> int:
    """Return the bytes of the elements of a tensor."""
    return tensor.numel() * tensor.element_size()


def load_weights(model: LanguageModel, weights: dict[str, Tensor], origin: str) -> None:
    """Fill a model with a state dict. Raises `ModelError` if a name or shape does not fit, or for NaN or infinity."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        raise ModelError(
            "{origin} does not fit the model: {names}",
            origin=origin,
            names=" ".join(line.strip() for line in lines[1:3]),
        ) from None
    refuse_not_finite(model, origin)


def refuse_not_finite(model: nn.Module, origin: str) -> None:
    """Raise `ModelError` for a model with NaN or infinity among its weights."""
    if names := not_finite(model.named_parameters()):
        raise ModelError(
            "{origin} has {n} weights with NaN or infinity, {name} first; use another copy or an earlier checkpoint",
            origin=origin,
            n=len(names),
            name=names[0],
        )


def _own_name(name: str) -> str:
    prefixes = ("_orig_mod.", "module.", "backbone.")
    while name.startswith(prefixes):  # wrappers may be nested in any order
        name = name.partition(".")[2]
    return name
