"""The schedule has its closed form, and the optimizers do what their papers say."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mamegpt.config import TrainConfig
from mamegpt.errors import ConfigError
from mamegpt.models.base import LanguageModel
from mamegpt.models.registry import build_model
from mamegpt.training.muon import Muon
from mamegpt.training.optim import (
    FINAL_LR_FACTOR,
    OPTIMIZERS,
    ChainedOptimizer,
    build_optimizer,
    fitted_lr_factor,
    lr_factor,
    mark_fitted,
)

CONFIG = TrainConfig(optimizer="adamw", lr=0.02, weight_decay=0.3, beta2=0.9)
FRACTIONS = st.floats(0, 1, allow_nan=False)


def tiny_model(seed: int = 0) -> LanguageModel:
    torch.manual_seed(seed)
    return build_model("custom-gpt", TrainConfig(context_length=8, emb_dim=8, n_layers=1, n_heads=2).model(20))


def test_positions_are_no_token_table_however_many_there_are() -> None:
    """Muon's large rate is the token table's, told by the module and not by the shape."""
    for context_length in (8, 20):  # as many as pieces
        sizes = TrainConfig(context_length=context_length, emb_dim=8, n_layers=1, n_heads=2).model(20)
        model = build_model("custom-gpt", sizes)
        optimizer = build_optimizer(model, TrainConfig(optimizer="muon", emb_lr=0.25))
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        named = dict(model.named_parameters())
        assert rates[id(named["tok_emb.weight"])] == 0.25
        assert rates[id(named["pos_emb.weight"])] == rates[id(named["out_head.weight"])] == TrainConfig.lr


def give_gradients(model: nn.Module, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=random)


@given(max_steps=st.integers(1, 5000), warmup=FRACTIONS, cooldown=FRACTIONS, at=FRACTIONS)
def test_the_factor_is_positive_and_at_most_one(max_steps: int, warmup: float, cooldown: float, at: float) -> None:
    step = min(max_steps - 1, int(at * max_steps))
    assert 0 < lr_factor(step, max_steps, warmup, cooldown) <= 1


@given(max_steps=st.integers(2, 300), parts=st.tuples(FRACTIONS, FRACTIONS).filter(lambda p: p[0] + p[1] <= 1))
def test_the_factor_rises_stays_and_falls(max_steps: int, parts: tuple[float, float]) -> None:
    factors = [lr_factor(step, max_steps, *parts) for step in range(max_steps)]
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


def test_the_trapezoid_of_a_hundred_steps() -> None:
    factors = [lr_factor(step, 100, 0.1, 0.5) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert factors[9:51] == [1.0] * 42
    low = FINAL_LR_FACTOR
    assert factors[51:] == pytest.approx([low + (1 - low) * left / 50 for left in range(49, 0, -1)])
    assert lr_factor(100, 100, 0.1, 0.5) == pytest.approx(low)


def test_without_warmup_and_cooldown_the_rate_is_constant() -> None:
    assert {lr_factor(step, 50, 0.0, 0.0) for step in range(50)} == {1.0}


def test_adamw_is_the_algorithm_of_the_paper() -> None:
    model, reference = tiny_model(), tiny_model()
    optimizer = build_optimizer(model, CONFIG)
    first = {name: torch.zeros_like(p) for name, p in reference.named_parameters()}
    second = {name: torch.zeros_like(p) for name, p in reference.named_parameters()}
    for t in range(1, 6):
        rate = 0.02 / t
        give_gradients(model, seed=t)
        give_gradients(reference, seed=t)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        with torch.no_grad():
            for name, p in reference.named_parameters():  # Loshchilov and Hutter 2019, algorithm 2
                assert p.grad is not None
                first[name] = 0.9 * first[name] + 0.1 * p.grad
                second[name] = 0.9 * second[name] + 0.1 * p.grad**2
                m, v = first[name] / (1 - 0.9**t), second[name] / (1 - 0.9**t)
                decay = 0.3 if p.ndim == 2 else 0.0
                p -= rate * (m / (v.sqrt() + 1e-8) + decay * p)
    for ours, plain in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_parameter_is_optimized_once_and_no_vector_decays(name: str) -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, dataclasses.replace(CONFIG, optimizer=name))
    grouped = [(p, group) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, model.parameters())) == sorted(id(p) for p, _ in grouped)
    for p, group in grouped:
        assert group["weight_decay"] == 0 or p.ndim == 2
        assert group["peak_lr"] == group["lr"] > 0
    assert any(group["weight_decay"] == CONFIG.weight_decay for _, group in grouped)


def test_adamw_decays_every_matrix() -> None:
    optimizer = build_optimizer(tiny_model(), CONFIG)
    decayed = {p.ndim: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decayed == {1: 0.0, 2: 0.3}


def test_muon_moves_every_direction_of_a_matrix_alike() -> None:
    model = tiny_model()
    config = dataclasses.replace(CONFIG, optimizer="muon", weight_decay=0.0, muon_lr=1.0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    give_gradients(model, seed=1)
    build_optimizer(model, config).step()
    for name, parameter in model.named_parameters():
        if name.startswith("trf_blocks.") and parameter.ndim == 2:
            stretch = max(1, parameter.shape[0] / parameter.shape[1]) ** 0.5
            moved = torch.linalg.svdvals(parameter.detach() - before[name]) / stretch
            assert 0.5 < moved.min() <= moved.max() < 1.5  # Newton-Schulz as Jordan et al. tune it: about 0.7 to 1.2
        else:  # AdamW's first step: the learning rate, against the sign of the gradient
            assert parameter.grad is not None
            rate = config.emb_lr if name == "tok_emb.weight" else config.lr
            expected = -rate * parameter.grad.sign()
            torch.testing.assert_close(parameter.detach() - before[name], expected, rtol=1e-3, atol=1e-5)


SHAPES = [(8, 8), (24, 8), (8, 24), (8, 8), (17, 5), (8, 24), (1, 6)]


def matrices_after(kind: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> list[torch.Tensor]:
    """Weights of SHAPES after three steps of an optimizer on random gradients; one has no gradient at first."""
    random = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape, generator=random)) for shape in SHAPES]
    optimizer = kind(weights)
    for step in range(3):
        for weight in weights:
            gradient = torch.randn(weight.shape, generator=random)
            weight.grad = None if weight is weights[1] and step == 0 else gradient
        optimizer.step()
    return [weight.detach() for weight in weights]


def test_muon_in_bfloat16_is_pytorchs() -> None:
    ours = matrices_after(lambda w: Muon(w, lr=0.02, weight_decay=0.1, compute_dtype=torch.bfloat16))
    pytorchs = matrices_after(lambda w: torch.optim.Muon(w, lr=0.02, weight_decay=0.1))
    for mine, its in zip(ours, pytorchs, strict=True):
        assert torch.equal(mine, its)


def test_muon_in_float32_is_the_iteration_of_the_paper() -> None:
    ours = matrices_after(lambda w: Muon(w, lr=0.02, weight_decay=0.1, compute_dtype=torch.float32))
    for mine, plain in zip(ours, matrices_after(PlainMuon), strict=True):
        torch.testing.assert_close(mine, plain, rtol=0, atol=1e-6)


class PlainMuon(torch.optim.Optimizer):
    """One matrix after another, in float64, as Jordan et al. 2024 write it down."""

    def __init__(self, weights: list[nn.Parameter]) -> None:
        super().__init__(weights, {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for weight in self.param_groups[0]["params"]:
            if weight.grad is None:
                continue
            gradient = weight.grad.double()
            momentum = self.state[weight].setdefault("momentum", torch.zeros_like(gradient))
            momentum.mul_(0.95).add_(0.05 * gradient)
            x = 0.05 * gradient + 0.95 * momentum
            x = x / x.norm()
            for _ in range(5):
                gram = x @ x.T
                x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
            rows, columns = weight.shape
            weight.mul_(1 - 0.02 * 0.1).sub_(0.02 * max(1, rows / columns) ** 0.5 * x)


@pytest.mark.parametrize("compute_dtype", [torch.float32, torch.bfloat16])
def test_matrices_in_a_batch_are_updated_as_each_alone(
    compute_dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = matrices_after(lambda w: Muon(w, lr=0.02, weight_decay=0.1, compute_dtype=compute_dtype))
    monkeypatch.setattr("mamegpt.training.muon.BATCH_BYTES", 1)
    alone = matrices_after(lambda w: Muon(w, lr=0.02, weight_decay=0.1, compute_dtype=compute_dtype))
    assert all(map(torch.equal, together, alone))


@pytest.mark.parametrize(("precision", "expected"), [("auto", 32), ("fp32", 32), ("bf16", 16)])
def test_muon_multiplies_in_the_type_of_the_run(precision: str, expected: int) -> None:
    optimizer = build_optimizer(tiny_model(), dataclasses.replace(CONFIG, optimizer="muon", precision=precision))
    assert isinstance(optimizer, ChainedOptimizer) and isinstance(optimizer.parts[0], Muon)
    assert torch.finfo(optimizer.parts[0].compute_dtype).bits == expected


def test_a_fit_has_low_rates_and_higher_ones_in_longer_runs() -> None:
    assert [fitted_lr_factor(n_steps) for n_steps in (1, 300, 600, 1200, 10**7)] == pytest.approx(
        [0.1, 0.1, 0.2, 0.4, 0.4]
    )
    optimizer = build_optimizer(tiny_model(), dataclasses.replace(CONFIG, optimizer="muon"))
    mark_fitted(optimizer)
    marked = {id(p) for group in optimizer.param_groups if group.get("fitted") for p in group["params"]}
    inside = {id(p) for p in optimizer.param_groups[0]["params"]}
    assert marked == {id(p) for group in optimizer.param_groups for p in group["params"]} - inside
    alone = build_optimizer(tiny_model(), dataclasses.replace(CONFIG, optimizer="adamw"))
    mark_fitted(alone)
    assert not any(group.get("fitted") for group in alone.param_groups)


def test_an_embedding_that_is_the_head_learns_as_a_head() -> None:
    sizes = TrainConfig(context_length=8, emb_dim=8, n_layers=1, n_heads=2, tie_embeddings=True).model(20)
    optimizer = build_optimizer(build_model("qwen3", sizes), dataclasses.replace(CONFIG, optimizer="muon"))
    rates = {p.shape: group["peak_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[torch.Size([20, 8])] == CONFIG.lr != CONFIG.emb_lr


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_lowers_a_loss(name: str) -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, dataclasses.replace(CONFIG, optimizer=name, weight_decay=0.0))
    ids = torch.arange(8).repeat(4, 1)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_an_unknown_optimizer_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="optimizer must be one of adamw"):
        build_optimizer(tiny_model(), dataclasses.replace(CONFIG, optimizer="sgd"))
