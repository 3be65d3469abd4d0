"""The GGUF file of an architecture: what llama.cpp calls its settings and tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mamegpt.config import ModelConfig

__all__ = ["GGUFFormat", "Tensors", "renamed"]

Tensors = dict[str, NDArray[np.float32]]
"""Tensors by their names."""


@dataclass(frozen=True)
class GGUFFormat:
    """One architecture of llama.cpp, which is a model of ours."""

    name: str
    """As llama.cpp calls it."""
    write_settings: Callable[[Any, ModelConfig], None]
    """Write into a ``gguf.GGUFWriter`` the settings that not all models have."""
    to_file: Callable[[Tensors, ModelConfig], Tensors]
    """Turn our tensors into those of the file."""


def renamed(tensors: Tensors, blocks: str, names: Mapping[str, str]) -> Tensors:
    """Give our tensors llama.cpp's names: ``trf_blocks.2.norm1.weight`` becomes ``blk.2.attn_norm.weight``.

    ``blocks`` is our prefix of blocks (``trf_blocks``); ``names`` are modules, those in a block without its prefix.
    """
    found = {}
    for name, tensor in tensors.items():
        layer, module, kind = re.fullmatch(rf"(?:{re.escape(blocks)}\.(\d+)\.|)(.+)\.(\w+)", name).groups()  # type: ignore[union-attr]
        found[f"{f'blk.{layer}.' if layer else ''}{names[module]}.{kind}"] = tensor
    return found
