"""A model of any architecture sees nothing of the future, does not change with its cache, and begins as it should."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import EVERY, SIZES, TIED, VARIANTS, model_of, random_ids, sizes, supported
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from transformers import DynamicCache

from mamegpt.config import ModelConfig, TrainConfig
from mamegpt.errors import CheckpointError, ConfigError
from mamegpt.generation.cache import KVCache
from mamegpt.models.base import LanguageModel, token_embedding
from mamegpt.models.registry import ARCHITECTURES, build_model, hf_formats, unsupported_fields
from mamegpt.run import checkpoint
from mamegpt.training.optim import build_optimizer


@VARIANTS
def test_a_token_changes_no_logits_before_it(architecture: str, changes: dict[str, Any]) -> None:
    model, ids = model_of(architecture, **changes), random_ids(1)
    with torch.inference_mode():
        before = model(ids)
        for t in range(ids.shape[1]):
            changed = ids.clone()
            changed[0, t] = (changed[0, t] + 1) % 61
            after = model(changed)
            assert torch.equal(before[:, :t], after[:, :t])
            assert not torch.allclose(before[:, t:], after[:, t:], atol=1e-3)


@EVERY
@settings(deadline=None, max_examples=25)
@given(lengths=st.lists(st.integers(1, 9), min_size=2, max_size=8).filter(lambda n: sum(n) <= 24))
def test_logits_with_a_cache_are_those_without(architecture: str, lengths: list[int]) -> None:
    model, ids = model_of(architecture), random_ids(length=sum(lengths))
    with torch.inference_mode():
        cache = DynamicCache()
        pieces = [model(part, cache) for part in ids.split(lengths, dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids), atol=2e-5, rtol=1e-5)
    assert cache.get_seq_length() == sum(lengths)


@VARIANTS
@pytest.mark.parametrize("cache", [DynamicCache, lambda: KVCache(24)], ids=["theirs", "ours"])
def test_both_caches_give_the_logits_of_every_variant(architecture: str, changes: dict[str, Any], cache: Any) -> None:
    model, ids, held = model_of(architecture, **changes), random_ids(), cache()
    with torch.inference_mode():
        pieces = [model(part, held) for part in ids.split([5, 1, 1, 9, 8], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids), atol=2e-5, rtol=1e-5)


@EVERY
def test_a_cache_holds_only_the_heads_of_keys_and_values(architecture: str) -> None:
    seen = []

    class Cache(KVCache):
        def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
            seen.append((layer_idx, tuple(key_states.shape), tuple(value_states.shape)))
            return super().update(key_states, value_states, layer_idx)

    few = supported(architecture, {"n_kv_heads": 2})
    model_of(architecture, **few)(random_ids(), Cache(24))
    shape = (2, few.get("n_kv_heads", 4), 24, 6)
    assert seen == [(layer, shape, shape) for layer in range(3)]


@EVERY
def test_logits_are_the_head_of_the_hidden_states(architecture: str) -> None:
    model, ids = model_of(architecture), random_ids()
    hidden = model.hidden(ids)
    assert hidden.shape == (2, 24, SIZES.emb_dim)
    assert torch.equal(model(ids), hidden @ model.out_head.weight.T)


@EVERY
def test_more_tokens_than_the_context_are_refused_with_and_without_a_cache(architecture: str) -> None:
    model = model_of(architecture)
    with pytest.raises(ValueError, match=r"25 .*context_length 24"):
        model(random_ids(length=25))
    cache = DynamicCache()
    model(random_ids(length=20), cache)
    with pytest.raises(ValueError, match=r"25 .*context_length 24"):
        model(random_ids(length=5), cache)


@EVERY
def test_dropout_acts_in_training_only(architecture: str) -> None:
    model, ids = model_of(architecture, drop_rate=0.3), random_ids()
    assert torch.equal(model(ids), model(ids))
    plain = model(ids)
    model.train()
    assert not torch.allclose(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), plain)


@EVERY
def test_a_fresh_model_is_near_the_uniform_guess(architecture: str) -> None:
    torch.manual_seed(0)
    model, ids = build_model(architecture, sizes(vocab_size=61)).eval(), random_ids(8)
    loss = torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
    assert abs(loss.item() - torch.tensor(61.0).log().item()) < 1.0


@VARIANTS
def test_every_parameter_gets_a_gradient(architecture: str, changes: dict[str, Any]) -> None:
    model = model_of(architecture, **changes)
    model(random_ids()).logsumexp(-1).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@VARIANTS
def test_training_computes_what_evaluation_computes(architecture: str, changes: dict[str, Any]) -> None:
    """Attention is written out in training and fused otherwise: the same logits, the same gradients."""
    model, ids = model_of(architecture, 0.1, **changes), random_ids()
    found = []
    for training in (True, False):
        model.train(training)
        model.zero_grad()
        logits = model(ids)
        logits.logsumexp(-1).square().sum().backward()
        found.append((logits, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-5)
    for ours, fused in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(ours, fused, rtol=1e-3, atol=1e-4 * fused.abs().max().item())


@VARIANTS
def test_under_autocast_it_is_nearly_the_same_and_nothing_warns(architecture: str, changes: dict[str, Any]) -> None:
    model, ids = model_of(architecture, 0.1, **changes).train(), random_ids()
    with warnings.catch_warnings(), torch.autocast("cpu", dtype=torch.bfloat16):
        warnings.simplefilter("error")
        hidden = model.hidden(ids)
        hidden.sum().backward()
    exact = model.hidden(ids)
    difference = (hidden.float() - exact).abs().max() / exact.abs().max()
    assert 0 < difference < 0.05
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@VARIANTS
def test_it_compiles_into_one_graph(architecture: str, changes: dict[str, Any]) -> None:
    model, ids = model_of(architecture, **changes | {"n_layers": 1}), random_ids()
    torch._dynamo.reset()
    compiled = torch.compile(model.hidden, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(ids), model.hidden(ids))


@EVERY
def test_tables_are_in_no_file(architecture: str) -> None:
    model = build_model(architecture, SIZES)
    assert {name for name, _ in model.named_buffers()} & model.state_dict().keys() == set()


# ---------------------------------------------------------------- tied weights


@TIED
def test_a_tied_head_is_the_embedding_and_learns_from_both_sides(architecture: str) -> None:
    model = model_of(architecture, tie_embeddings=True)
    assert model.out_head.weight is token_embedding(model).weight
    model(random_ids()).logsumexp(-1).sum().backward()
    tied = model.out_head.weight.grad
    loose = model_of(architecture)
    loose.load_state_dict(model.state_dict())
    loose(random_ids()).logsumexp(-1).sum().backward()
    gradients = [token_embedding(loose).weight.grad, loose.out_head.weight.grad]
    assert gradients[0] is not None and gradients[1] is not None
    torch.testing.assert_close(tied, gradients[0] + gradients[1])


def saved(folder: Path, model: LanguageModel) -> Path:
    optimizer = build_optimizer(model, TrainConfig(optimizer="adamw"))
    return checkpoint.save(folder, model, optimizer, checkpoint.State(1, 1.0, "", "", ""), keep=1)


def loaded(path: Path, architecture: str, **changes: Any) -> LanguageModel:
    model = build_model(architecture, sizes(**changes))
    checkpoint.load(path, model, build_optimizer(model, TrainConfig(optimizer="adamw")))
    return model.eval()


@TIED
@pytest.mark.parametrize("tied", [False, True])
def test_a_checkpoint_holds_a_tied_weight_once_and_comes_back(tmp_path: Path, architecture: str, tied: bool) -> None:
    model = model_of(architecture, tie_embeddings=tied)
    path = saved(tmp_path, model)
    shapes = [tensor.shape for tensor in load_file(path / "model.safetensors").values()]
    assert shapes.count(model.out_head.weight.shape) == 2 - tied
    back = loaded(path, architecture, tie_embeddings=tied)
    assert torch.equal(back(random_ids()), model(random_ids()))
    assert (back.out_head.weight is token_embedding(back).weight) == tied


@TIED
def test_weights_that_are_not_tied_do_not_fit_a_tied_model_nor_the_other_way(tmp_path: Path, architecture: str) -> None:
    path = saved(tmp_path, model_of(architecture))
    with pytest.raises(CheckpointError, match="does not fit this model"):
        loaded(path, architecture, tie_embeddings=True)
    path = saved(tmp_path, model_of(architecture, tie_embeddings=True))
    with pytest.raises(CheckpointError, match="does not fit this model"):
        loaded(path, architecture)


# ---------------------------------------------------------------- the registry


def test_an_unknown_architecture_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="architecture must be one of custom-gpt"):
        build_model("gpt-9", SIZES)


def test_it_is_known_which_sizes_an_architecture_has() -> None:
    assert ARCHITECTURES.keys() == {found.architecture for found in hf_formats().values()}
    fields = {field.name for field in dataclasses.fields(ModelConfig)}
    assert all(set(names) < fields for names in unsupported_fields().values())


OTHER = {
    "qkv_bias": True,
    "ffn_dim": 96,
    "n_kv_heads": 2,
    "rope_theta": 5e5,
    "tie_embeddings": True,
    "head_dim": 8,
    "norm_eps": 1e-5,
}
REFUSED = [(architecture, name) for architecture, names in unsupported_fields().items() for name in names]


@pytest.mark.parametrize(("architecture", "name"), REFUSED)
def test_a_setting_that_would_do_nothing_is_refused(architecture: str, name: str) -> None:
    run = TrainConfig(data="a", tokenizer="b", out="c", architecture=architecture)
    known = unsupported_fields()
    run.validate(architecture=known)
    with pytest.raises(ConfigError, match=f"^{name} is nothing that {architecture} has; leave it out$"):
        dataclasses.replace(run, **{name: OTHER[name]}).validate(architecture=known)
    with pytest.raises(ConfigError, match=f"^{name} is nothing .*; emb_dim 30 is not divisible by n_heads 4"):
        build_model(architecture, sizes(emb_dim=30, **{name: OTHER[name]}))


def test_which_settings_there_are_takes_no_pytorch() -> None:
    script = """
import sys
from mamegpt.config import TrainConfig
from mamegpt.models.registry import unsupported_fields
known = unsupported_fields()
for name in known:
    TrainConfig(data="a", tokenizer="b", out="c", architecture=name).validate(architecture=known)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "False"


def test_impossible_sizes_are_refused_with_a_width_that_works() -> None:
    with pytest.raises(ConfigError, match="emb_dim 130 is not divisible by n_heads 4; use 128 or 132"):
        build_model("custom-gpt", sizes(emb_dim=130))


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_off_the_cpu_attention_gets_one_dtype_and_no_groups_in_float32(
    architecture: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Norms answer in float32, as under CUDA's autocast; nothing is computed on the device "meta"."""
    found = []

    def attention(q: Tensor, k: Tensor, v: Tensor, *, enable_gqa: bool, **_: object) -> Tensor:
        found.append(({x.dtype for x in (q, k, v)}, k.shape[1], enable_gqa))
        return q

    model = model_of(architecture, n_heads=4, n_kv_heads=2).to("meta", dtype)
    for module in model.modules():
        if hasattr(module, "normalize"):
            module.normalize = lambda x, weight, eps: x.float()
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    model.train()(random_ids().to("meta"))
    assert found and all(one == ({dtype}, *((4, False) if dtype == torch.float32 else (2, True))) for one in found)
