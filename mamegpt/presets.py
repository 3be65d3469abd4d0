"""Settings that belong together: shapes by size, and the recipes.

A preset gives defaults; any option of the command line goes before it.
"""

from __future__ import annotations

from typing import Any, Literal

from mamegpt.config import TrainConfig

__all__ = ["RECIPES", "SIZES", "Recipe", "Size", "preset", "width_lr"]

Size = Literal["1m", "5m", "15m", "30m", "60m", "125m"]
Recipe = Literal["mame", "seed"]

SIZES: dict[Size, dict[str, Any]] = {
    "1m": {"emb_dim": 64, "n_layers": 4, "n_heads": 1, "tie_embeddings": True},
    "5m": {"emb_dim": 128, "n_layers": 4, "n_heads": 2},
    "15m": {"emb_dim": 256, "n_layers": 8, "n_heads": 4},
    "30m": {"emb_dim": 384, "n_layers": 10, "n_heads": 6},
    "60m": {"emb_dim": 512, "n_layers": 14, "n_heads": 8},
    "125m": {"emb_dim": 768, "n_layers": 14, "n_heads": 12},
}
"""Shapes by their parameters with a vocabulary of 16,000. Heads are 64 wide, as attention kernels like them."""

RECIPES: dict[Recipe, dict[str, Any]] = {
    "mame": {},
    "seed": {
        "architecture": "custom-gpt", "emb_dim": 128, "n_layers": 4, "n_heads": 4, "drop_rate": 0.1,
        "batch_size": 32, "tie_embeddings": False,
        "optimizer": "adamw", "lr": 3e-4, "weight_decay": 0.01, "beta2": 0.999,
        "warmup_fraction": 0.0, "cooldown_fraction": 0.0, "grad_clip": 0.0,
    },
}  # fmt: skip
"""``mame`` is `TrainConfig`'s own defaults; ``seed`` is what the original ``training.py`` does."""


def preset(size: Size = "5m", recipe: Recipe = "mame") -> TrainConfig:
    """The settings of a size and a recipe; the seed's recipe has one size, its own."""
    shape = SIZES[size]
    return TrainConfig(**{**shape, "lr": width_lr(shape["emb_dim"]), **RECIPES[recipe]})


def width_lr(emb_dim: int) -> float:
    """AdamW's learning rate at that width, `TrainConfig`'s own at its own.

    It follows 1 / sqrt(width) (docs/log.md); Muon's update has its own scale and needs nothing.
    """
    return float(TrainConfig.lr * (TrainConfig.emb_dim / emb_dim) ** 0.5)
