"""Settings that belong together: shapes by size, and the recipes.

A preset gives defaults; any option of the command line goes before it.
"""

from __future__ import annotations

from typing import Any, Literal

from mamegpt.config import TrainConfig

__all__ = ["RECIPES", "SIZES", "Recipe", "Size", "peak_lr", "preset"]

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

ADAMW_LR = 3e-3
"""Peak learning rate of AdamW alone at `TrainConfig`'s width, a tenth of what it has beside Muon (docs/log.md)."""


def preset(size: Size = "5m", recipe: Recipe = "mame", *, emb_dim: int = 0, optimizer: str = "") -> TrainConfig:
    """Return the settings of a size and a recipe, of another width or optimizer if these are given.

    The learning rate follows the width and the optimizer, but for the seed's recipe, which has its own (and one size).
    """
    settings = {**SIZES[size], **RECIPES[recipe]}
    settings |= {name: value for name, value in (("emb_dim", emb_dim), ("optimizer", optimizer)) if value}
    lr = peak_lr(settings["emb_dim"], settings.get("optimizer", TrainConfig.optimizer))
    return TrainConfig(**{"lr": lr, **settings})


def peak_lr(emb_dim: int, optimizer: str) -> float:
    """Return the peak learning rate of AdamW at a width: for everything, or what Muon leaves to it.

    Both follow 1 / sqrt(width), as measured (docs/log.md). Muon's own update has its own scale.
    """
    lr = ADAMW_LR if optimizer == "adamw" else TrainConfig.lr
    return float(lr * (TrainConfig.emb_dim / emb_dim) ** 0.5)
