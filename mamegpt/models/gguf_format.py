"""The GGUF file of an architecture: its settings, and its tensors in llama.cpp's layout."""

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
    """An architecture of llama.cpp, and how one of our models becomes it."""

    name: str
    """Its name in llama.cpp."""
    write_settings: Callable[[Any, ModelConfig], None]
    """Write settings that not all models have into a ``gguf.GGUFWriter``."""
    to_file: Callable[[Tensors, ModelConfig], Tensors] = lambda tensors, _sizes: tensors
    """Turn our tensors into those of the file, still named as in transformers."""
