"""Presets: settings for model sizes, and recipes.

A preset provides defaults; explicit settings override it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple, get_args

from mamegpt.config import TrainConfig
from mamegpt.errors import ConfigError, check_choice

__all__ = ["ORIGINAL", "RECIPES", "SIZES", "Recipe", "Shape", "Size", "peak_lr", "preset"]

Size = Literal["1m", "5m", "15m", "30m", "60m", "125m"]
Recipe = Literal["mame", "seed", "original"]


class Shape(NamedTuple):
    """The settings that depend on the model size."""

    emb_dim: int
    n_layers: int
    n_heads: int
    tie_embeddings: bool = False


SIZES: dict[Size, Shape] = {
    "1m": Shape(emb_dim=64, n_layers=4, n_heads=1, tie_embeddings=True),
    "5m": Shape(emb_dim=128, n_layers=4, n_heads=2),
    "15m": Shape(emb_dim=256, n_layers=8, n_heads=4),
    "30m": Shape(emb_dim=384, n_layers=10, n_heads=6),
    "60m": Shape(emb_dim=512, n_layers=14, n_heads=8),
    "125m": Shape(emb_dim=768, n_layers=14, n_heads=12),
}
"""Shapes by number of parameters at vocabulary size 16,000. Heads are 64 wide, which attention kernels prefer."""

ORIGINAL = TrainConfig(
    architecture="custom-gpt",
    emb_dim=128,
    n_layers=4,
    n_heads=4,
    drop_rate=0.1,
    batch_size=32,
    optimizer="adamw",
    lr=3e-4,
    weight_decay=0.01,
    beta2=0.999,
    warmup_fraction=0.0,
    cooldown_fraction=0.0,
    grad_clip=0.0,
)
"""The settings of the original ``training.py``."""

RECIPES: tuple[Recipe, ...] = get_args(Recipe)
"""``mame`` is `TrainConfig`'s own defaults, n-grams and what suits them; ``original``, also called ``seed``, is
`ORIGINAL`."""

ADAMW_LR = 3e-3
"""Peak learning rate of AdamW alone at `TrainConfig`'s width, a tenth of its rate together with Muon (docs/log.md)."""

NGRAMS_BATCH_SIZE = 8
"""Soft targets have less noise, so that fewer sequences make a good step (docs/log.md)."""


def preset(size: Size | None = None, recipe: Recipe = "mame", **settings: Any) -> TrainConfig:
    """Return the settings of a size (default: 5m) and a recipe, overridden by ``settings`` of `TrainConfig`.

    Example: ``preset("5m", data="wiki.txt", tokenizer="jp.model", out="runs/first", minutes=10)``; paths may be `Path`.
    The learning rate follows from width and optimizer, and the batch size from ``ngrams``, except in the original
    recipe, which has its own (and one size). Raises `ConfigError` for an unknown size or recipe, for a size of the
    original recipe, and for settings of another type.
    """
    check_choice("--recipe", recipe, RECIPES)
    if size is not None:
        check_choice("--size", size, SIZES)
        if recipe != "mame":
            raise ConfigError(
                "--recipe {recipe} has one size, its own; leave out --size {size}, or give --emb-dim and others",
                recipe=recipe,
                size=size,
            )
    base = TrainConfig(**SIZES[size or "5m"]._asdict()) if recipe == "mame" else ORIGINAL
    config = dataclasses.replace(base, **settings)
    if settings:
        config.check_types()
    if recipe != "mame":
        return config
    ngrams = settings.get("ngrams", not config.init_from)
    found: dict[str, Any] = {"ngrams": ngrams, "lr": peak_lr(max(1, config.emb_dim), config.optimizer)}
    if ngrams:
        found["batch_size"] = NGRAMS_BATCH_SIZE
    return dataclasses.replace(config, **{**found, **settings})


def peak_lr(emb_dim: int, optimizer: str) -> float:
    """Return the peak learning rate of AdamW at a width: for all parameters, or for those that Muon leaves to it.

    Both follow 1 / sqrt(width), as measured (docs/log.md). Muon's own update has its own scale.
    """
    lr = ADAMW_LR if optimizer == "adamw" else TrainConfig.lr
    return float(lr * (TrainConfig.emb_dim / emb_dim) ** 0.5)
