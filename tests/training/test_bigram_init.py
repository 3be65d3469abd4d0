"""First weights that are fitted to the bigrams of a text."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mamegpt.config import TrainConfig
from mamegpt.models.base import cpu_state_dict, token_embedding
from mamegpt.models.registry import ARCHITECTURES, architecture, build_model
from mamegpt.training.bigram_init import fit_bigrams

V, WIDTH = 40, 32
SIZES = TrainConfig(context_length=16, emb_dim=WIDTH, n_layers=2, n_heads=2).model(V)


def text() -> np.ndarray:
    """Tokens of which each has two that may follow, one three times as often."""
    random = np.random.default_rng(0)
    tokens = [0]
    for _ in range(20_000):
        tokens.append((tokens[-1] * 3 + (1 if random.random() < 0.75 else 7)) % V)
    return np.array(tokens, np.uint16)


ENTROPY = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)


@pytest.mark.parametrize("name", sorted(name for name in ARCHITECTURES if architecture(name).hidden_of_tokens))
def test_a_fitted_model_is_that_of_bigrams_before_any_training(name: str) -> None:
    torch.manual_seed(0)
    model, tokens = build_model(name, SIZES), text()
    before = {key: tensor.clone() for key, tensor in cpu_state_dict(model).items()}
    hidden_of_tokens = architecture(name).hidden_of_tokens
    assert hidden_of_tokens is not None
    shares: list[float] = []
    hidden = functools.partial(hidden_of_tokens, model)
    mean = fit_bigrams(model, hidden, tokens, seed=1, on_progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1
    every = hidden_of_tokens(model, torch.from_numpy(tokens.astype(np.int64)))
    torch.testing.assert_close(mean, every.mean(0), rtol=0, atol=1e-3)  # without the last token
    changed = {key for key, tensor in cpu_state_dict(model).items() if not torch.equal(tensor, before[key])}
    assert changed == {"model.embed_tokens.weight", "lm_head.weight"}
    assert all(parameter.grad is None for parameter in model.parameters())

    windows = torch.from_numpy(tokens[:1600].astype(np.int64)).view(100, 16)
    with torch.no_grad():
        logits = model(windows)  # the whole model, blocks included
        torch.testing.assert_close(logits, model.out_head(hidden_of_tokens(model, windows)), rtol=1e-4, atol=1e-5)
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), windows[:, 1:].flatten())
    assert ENTROPY - 0.05 < loss.item() < ENTROPY + 0.05


def test_the_same_seed_gives_the_same_weights() -> None:
    found = []
    hidden_of_tokens = architecture("qwen3").hidden_of_tokens
    assert hidden_of_tokens is not None
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        model = build_model("qwen3", SIZES)
        fit_bigrams(model, functools.partial(hidden_of_tokens, model), text()[:500], seed)
        found.append(model.out_head.weight)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_hidden_states_of_tokens_are_those_of_a_new_model() -> None:
    """Only where this holds may an architecture say how; where blocks are no identity at the start, it has none."""
    for name in ARCHITECTURES:
        model = build_model(name, SIZES)
        hidden_of_tokens = architecture(name).hidden_of_tokens
        if hidden_of_tokens is None:
            continue
        ids = torch.arange(10)
        torch.testing.assert_close(model.hidden(ids[None])[0], hidden_of_tokens(model, ids))


@pytest.mark.parametrize("name", sorted(name for name in ARCHITECTURES if architecture(name).look_back))
def test_heads_begin_by_looking_back_and_change_nothing_yet(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    sizes = dataclasses.replace(SIZES, n_heads=4, n_kv_heads=2, head_dim=32)
    model, found = build_model(name, sizes).eval(), architecture(name)
    assert found.hidden_of_tokens and found.look_back
    with torch.no_grad():
        token_embedding(model).weight += 0.4 * torch.randn(WIDTH)  # what all tokens share, as after a fit to a text
        model.out_head.weight.normal_()
        mean = found.hidden_of_tokens(model, torch.arange(V)).mean(0)
    windows = torch.randint(V, (100, 16))
    before = model(windows)
    found.look_back(model, mean)
    weights: list[Tensor] = []

    def spy(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> Tensor:
        scores = q @ k.repeat_interleave(2, dim=1).transpose(-1, -2) * q.shape[-1] ** -0.5
        weights.append(scores.masked_fill(torch.ones(16, 16, dtype=torch.bool).triu(1), -torch.inf).softmax(-1))
        return attention(q, k, v, **rest)

    attention = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    assert torch.equal(model(windows), before)
    assert len(weights) == sizes.n_layers
    for layer in weights:  # (B, H, T, S)
        for i, back in enumerate([1, 2, 1, 2]):
            by_distance = layer[:, i, -1].mean(0).flip(0)[:6].tolist()  # of the last query
            assert by_distance.index(max(by_distance)) == back, by_distance
