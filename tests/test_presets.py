"""Presets have the sizes they are called by, and give way to any option."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from command import Mame

import mamegpt
from mamegpt.config import TrainConfig
from mamegpt.errors import ConfigError
from mamegpt.models.registry import ARCHITECTURES, build_model, unsupported_fields
from mamegpt.presets import RECIPES, SIZES, Recipe, Size, peak_lr, preset

MILLIONS = {"1m": 1, "5m": 5, "15m": 15, "30m": 30, "60m": 60, "125m": 125}


@pytest.mark.parametrize("size", SIZES)
def test_a_preset_has_the_parameters_it_is_called_by(size: Size) -> None:
    config = dataclasses.replace(preset(size), data="x", tokenizer="x", out="x")
    config.validate()
    with torch.device("meta"):
        model = build_model(config.architecture, config.model(16_000))
    n = sum(parameter.numel() for parameter in model.parameters())
    assert n == pytest.approx(MILLIONS[size] * 1e6, rel=0.3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_tied", [False, True])
def test_every_size_begins_with_a_guess_that_is_nearly_uniform(architecture: str, size: Size, is_tied: bool) -> None:
    if is_tied and "tie_embeddings" in unsupported_fields()[architecture]:
        pytest.skip("it has no tied embeddings")
    torch.manual_seed(0)
    config = dataclasses.replace(preset(size), architecture=architecture, tie_embeddings=is_tied, n_layers=2)
    model = build_model(architecture, config.model(1_000))
    ids = torch.randint(1_000, (4, 65))
    with torch.no_grad():
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    # GPT-2's head is N(0, 0.02) at any width, so its logits are N(0, 0.0004 C): 0.15 nats at 768, by definition.
    spread = 0.0004 * config.emb_dim / 2 if architecture == "custom-gpt" else 0.0
    assert loss.item() - spread == pytest.approx(math.log(1_000), abs=0.1)


def test_the_default_preset_is_the_default() -> None:
    assert preset(ngrams=False) == TrainConfig()
    assert preset() == TrainConfig(ngrams=True, batch_size=8)
    assert preset(init_from="a") == TrainConfig(init_from="a")  # a model that has learned needs no counts
    assert preset(ngrams=True, lr=1.0, emb_lr=2.0, batch_size=4).emb_lr == 2.0
    assert not preset(recipe="original").ngrams


def test_the_seeds_recipe_is_that_of_the_original_script() -> None:
    config = preset(recipe="original")
    assert (config.architecture, config.optimizer, config.lr, config.drop_rate) == ("custom-gpt", "adamw", 3e-4, 0.1)
    assert (config.context_length, config.emb_dim, config.n_layers, config.n_heads) == (256, 128, 4, 4)
    assert (config.batch_size, config.warmup_fraction, config.cooldown_fraction, config.grad_clip) == (32, 0, 0, 0)
    config.model(100).validate(config.architecture, unsupported_fields()[config.architecture])


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_has_settings_that_work(recipe: Recipe) -> None:
    preset(recipe=recipe, data="x", tokenizer="x", out="x").validate()


def test_explicit_settings_override_a_preset_and_the_learning_rate_follows_them() -> None:
    wide = preset("1m", emb_dim=256, optimizer="adamw", seed=7)
    assert (wide.emb_dim, wide.n_heads, wide.seed, wide.lr) == (256, 1, 7, peak_lr(256, "adamw"))
    assert preset("15m", lr=0.5, out=Path("runs/豆")) == preset("15m", lr=0.5, out="runs/豆")
    assert preset(recipe="original", emb_dim=256).lr == preset(recipe="original").lr


def test_options_go_before_the_preset(mame: Mame, tmp_path: Path) -> None:
    code, printed, _ = mame("train", "--help", "--size", "15m")
    assert code == 0 and "(default: 256)" in printed.split("--emb-dim")[1].split("--n-layers")[0]
    code, _, error = mame(
        "train", "--size", "15m", "--n-heads", 5, "--data", "x", "--tokenizer", "x", "--out", tmp_path / "run"
    )
    assert code == 2 and "--emb-dim 256" in error and "--n-heads 5" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recipe", "seed", "--size", "15m"], "--recipe seed has one size"),
        (["--size", "14m"], "14m"),
        (["--size"], "--size"),
    ],
)
def test_what_cannot_be_is_said(mame: Mame, arguments: list[str], said: str) -> None:
    code, _, error = mame("train", *arguments)
    assert code == 2 and said in error


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: preset("1m", "original"), "recipe original has one size, its own; leave out size 1m, or give emb_dim"),
        (lambda: preset("5m", "seed"), "recipe seed has one size, its own"),
        (lambda: preset("1m", emb_dim="64"), "emb_dim must be a whole number"),
        (lambda: preset(lr=None, seed=1.5), "seed must be a whole number .*; |lr must be a number .*; "),
        (lambda: preset(recipe="seed", device="gpu"), "device must be one of auto, cpu"),
        (lambda: mamegpt.train({"out": "new"}), "config must be .*TrainConfig"),  # type: ignore[arg-type]
        (lambda: mamegpt.train(TrainConfig(out=5)), "out must be a string"),  # type: ignore[arg-type]
        (lambda: TrainConfig(seed=10**5000).validate(), "seed must be a finite number"),
    ],
)
def test_settings_of_another_type_or_without_effect_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()
