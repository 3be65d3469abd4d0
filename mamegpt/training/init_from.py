"""Training that goes on from a model instead of random weights: on more text, or tuned on conversations."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from mamegpt.config import SHAPE, TrainConfig, TuneConfig, flag
from mamegpt.data.shards import TEXT
from mamegpt.errors import ConfigError, ModelError
from mamegpt.messages import join
from mamegpt.models.base import LanguageModel, token_embedding
from mamegpt.models.lora import ADAPTERS
from mamegpt.models.weights import load_weights
from mamegpt.presets import Recipe, peak_lr
from mamegpt.pretrained import Pretrained, load
from mamegpt.run.run import Run
from mamegpt.tokenizer.reserved import Turns
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["config_from_pretrained", "load_initial_weights", "tuned_config"]

LR_FACTORS = {"dpo": 0.1, "grpo": 0.1}
"""Learning rates of tasks as a share of those of learning from answers, for models that answer already."""
GRPO_BATCH_SIZE = 8
"""Questions of a step, if no other number is given."""
CLASSIFY_VAL_FRACTION = 0.1
"""Share of texts with labels that are held out, if no other is given."""
RATES = ("lr", "emb_lr", "muon_lr")


def config_from_pretrained(config: TrainConfig, given: Collection[str], recipe: Recipe = "mame") -> TrainConfig:
    """Return ``config`` with tokenizer, architecture and sizes of the model ``config.init_from``.

    Settings that were ``given`` must not contradict the model. The learning rate follows its width unless it was given.

    Raises `ConfigError` for contradictions, `ModelError` for a model that cannot be trained here, and what
    `load` raises.
    """
    loaded = _load(config.init_from)
    assert loaded.sizes is not None
    if config.task in LR_FACTORS and not loaded.answers:
        raise ConfigError(
            "--task {task} needs a model that answers, and {model} does not; tune it on conversations first",
            task=config.task,
            model=config.init_from,
        )
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


def tuned_config(config: TuneConfig, given: Collection[str]) -> TuneConfig:
    """Return ``config`` with what it takes from the model ``config.init_from``, and lower learning rates.

    Raises as `config_from_pretrained`, and `ConfigError` for a share of text without a text.
    """
    found = config_from_pretrained(config, given)
    assert isinstance(found, TuneConfig)
    if "lr" not in given:
        found = dataclasses.replace(found, lr=found.lr * TuneConfig.lr / TrainConfig.lr)
    if found.task == "classify":
        share = found.text_share if "text_share" in given else 0.0
        val_fraction = found.val_fraction if "val_fraction" in given else CLASSIFY_VAL_FRACTION
        return dataclasses.replace(found, text_share=share, val_fraction=val_fraction, tie_embeddings=False)
    if factor := LR_FACTORS.get(found.task):
        rates = {name: getattr(found, name) * factor for name in RATES if name not in given}
        share = found.text_share if "text_share" in given else 0.0
        found = dataclasses.replace(found, text_share=share, **rates)
        if found.task == "grpo" and "batch_size" not in given:
            found = dataclasses.replace(found, batch_size=GRPO_BATCH_SIZE)
        return found
    if found.text_data or not found.text_share:
        return found
    run = Run.find(found.init_from) or Run.of_checkpoint(found.init_from)
    if run and (tokens := run.tokens(verify=False)) and (not isinstance(run.config, TuneConfig) or TEXT in tokens[1]):
        return dataclasses.replace(found, text_data=str(run.folder))
    if "text_share" in given:
        raise ConfigError(
            "--text-share {share:g} needs a text, and {model} does not say what it read; give --text-data",
            share=found.text_share,
            model=found.init_from,
        )
    return dataclasses.replace(found, text_share=0.0)


def load_initial_weights(
    model: LanguageModel, where: str, turns: Turns | None = None, *, has_own_head: bool = False
) -> None:
    """Fill a fresh model with the weights of another. Raises `ModelError` if they do not fit.

    Adapters stay as they are, and so does a head of its own, as a classifier has. With ``turns``, tokens may have been
    appended to those of the other model. Their rows, and those of the tokens of turns that it never read, begin as the
    mean of all other rows (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models").
    """
    loaded = _load(where)
    weights = loaded.model.state_dict()
    weights |= {name: own.detach() for name, own in model.named_parameters() if name.endswith(ADAPTERS)}
    if has_own_head:
        head = model.out_head.weight
        weights |= {name: own.detach() for name, own in model.named_parameters() if own is head}
    if turns is not None:
        tables = {id(token_embedding(model).weight), id(model.out_head.weight)}
        unread = [] if loaded.answers else [*turns.begin.values(), turns.end]
        for name, table in model.named_parameters(remove_duplicate=False):
            if id(table) in tables:
                weights[name] = _resized(weights[name], len(table), unread)
    load_weights(model, weights, where)


def _resized(rows: Tensor, n: int, unread: Collection[int]) -> Tensor:
    """Return ``n`` rows: those there are, and their mean for the further ones and for the ``unread``."""
    old = [i for i in range(len(rows)) if i not in unread]
    mean = rows[old].mean(0)
    new = torch.cat((rows, mean.expand(n - len(rows), -1)))
    new[[i for i in unread if i < n]] = mean
    return new


def _load(where: str) -> Pretrained:
    loaded = load(where, device="cpu")
    if loaded.sizes is None:
        raise ModelError(
            "{where} is a {architecture} model, not ours; it cannot be trained here",
            where=where,
            architecture=loaded.architecture,
        )
    return loaded
