"""Training that goes on from a model instead of random weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

from mamegpt.config import TrainConfig, flag
from mamegpt.errors import ConfigError, ModelError
from mamegpt.messages import join
from mamegpt.models.base import LanguageModel
from mamegpt.presets import Recipe, peak_lr
from mamegpt.pretrained import Pretrained, load, load_weights
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["config_from_pretrained", "load_initial_weights"]

SHAPE = (
    "context_length",
    "emb_dim",
    "n_layers",
    "n_heads",
    "qkv_bias",
    "ffn_dim",
    "n_kv_heads",
    "head_dim",
    "rope_theta",
    "norm_eps",
    "tie_embeddings",
)


def config_from_pretrained(config: TrainConfig, given: Collection[str], recipe: Recipe = "mame") -> TrainConfig:
    """Return ``config`` with tokenizer, architecture and sizes of the model ``config.init_from``.

    Settings that were ``given`` must not contradict the model. The learning rate follows its width unless it was given.

    Raises `ConfigError` for contradictions, `ModelError` for a model that cannot be trained here, and what
    `load` raises.
    """
    loaded = _load(config.init_from)
    assert loaded.sizes is not None
    found = {"architecture": loaded.architecture} | {name: getattr(loaded.sizes, name) for name in SHAPE}
    if found["head_dim"] == loaded.sizes.emb_dim // loaded.sizes.n_heads:
        found["head_dim"] = 0  # as runs have it that choose no other
    asked = {name: getattr(config, name) for name in found if name in given}
    wrong = [f"{flag(name)} {value}: it has {found[name]}" for name, value in asked.items() if value != found[name]]
    if config.tokenizer and Tokenizer.load(Path(config.tokenizer)).fingerprint != loaded.tokenizer.fingerprint:
        wrong.append(f"--tokenizer {config.tokenizer}: it has another")
    if wrong:
        raise ConfigError(
            "--init-from {init_from} brings its own shape and tokenizer; {names}",
            init_from=config.init_from,
            names=join("; ", wrong),
        )
    if "lr" not in given and recipe == "mame":
        found["lr"] = peak_lr(loaded.sizes.emb_dim, config.optimizer)
    tokenizer = config.tokenizer or str(loaded.tokenizer.path)
    return dataclasses.replace(config, tokenizer=tokenizer, **found)


def load_initial_weights(model: LanguageModel, where: str) -> None:
    """Fill a fresh model with the weights of another. Raises `ModelError` if they do not fit."""
    load_weights(model, _load(where).model.state_dict(), where)


def _load(where: str) -> Pretrained:
    loaded = load(where, device="cpu")
    if loaded.sizes is None:
        raise ModelError(
            "{where} is a {architecture} model, not ours; it cannot be trained here",
            where=where,
            architecture=loaded.architecture,
        )
    return loaded
