"""The GGUF file of an architecture: its settings, and its tensors as llama.cpp lays them out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mamegpt.config import ModelConfig

__all__ = ["GGUFFormat", "Tensors"]

Tensors = dict[str, NDArray[np.float32]]
"""Tensors by their names."""


@dataclass(frozen=True)
class GGUFFormat:
    """One architecture of llama.cpp, which is a model of ours."""

    name: str
    """As llama.cpp calls it."""
    write_settings: Callable[[Any, ModelConfig], None]
    """Write into a ``gguf.GGUFWriter`` the settings that not all models have."""
    to_file: Callable[[Tensors, ModelConfig], Tensors] = lambda tensors, _sizes: tensors
    """Turn our tensors into those of the file, which are still named as in transformers."""
