"""The model is GPT-2 as transformers has it, sees nothing of the future, and does not change with its cache."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

from mamegpt.config import ModelConfig, TrainConfig
from mamegpt.errors import ConfigError
from mamegpt.models.base import LanguageModel
from mamegpt.models.registry import ARCHITECTURES, build_model

SIZES = TrainConfig(context_length=24, emb_dim=24, n_layers=3, n_heads=4, drop_rate=0.0).model(61)
EVERY = pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))


def sizes(**changes: object) -> ModelConfig:
    return ModelConfig(**{**SIZES.__dict__, **changes})  # type: ignore[arg-type]


def model_of(architecture: str = "custom-gpt", **changes: object) -> LanguageModel:
    torch.manual_seed(3)
    model = build_model(architecture, sizes(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # no zero bias, no unit norm: every parameter has to matter
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def random_ids(batch: int = 2, length: int = 24) -> torch.Tensor:
    return torch.randint(0, 61, (batch, length), generator=torch.Generator().manual_seed(0))


def gpt2_with_weights_of(model: LanguageModel, config: ModelConfig) -> GPT2LMHeadModel:
    gpt2 = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.context_length,
            n_embd=config.emb_dim,
            n_layer=config.n_layers,
            n_head=config.n_heads,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            tie_word_embeddings=False,
        )
    ).eval()
    ours = model.state_dict()
    theirs = {
        "transformer.wte.weight": ours["tok_emb.weight"],
        "transformer.wpe.weight": ours["pos_emb.weight"],
        "transformer.ln_f.weight": ours["final_norm.weight"],
        "transformer.ln_f.bias": ours["final_norm.bias"],
        "lm_head.weight": ours["out_head.weight"],
    }
    layers = {
        "att.qkv": "attn.c_attn",
        "att.proj": "attn.c_proj",
        "ff.layers.0": "mlp.c_fc",
        "ff.layers.2": "mlp.c_proj",
        "norm1": "ln_1",
        "norm2": "ln_2",
    }
    for n in range(config.n_layers):
        for mine, its in layers.items():
            weight = ours[f"trf_blocks.{n}.{mine}.weight"]
            bias = ours.get(f"trf_blocks.{n}.{mine}.bias", torch.zeros(weight.shape[0]))
            theirs[f"transformer.h.{n}.{its}.weight"] = weight.T if weight.ndim == 2 else weight
            theirs[f"transformer.h.{n}.{its}.bias"] = bias
    missing, unexpected = gpt2.load_state_dict(theirs, strict=False)
    assert not unexpected and all(name.endswith(("attn.bias", "attn.masked_bias")) for name in missing)
    return gpt2


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_logits_are_those_of_gpt2_in_transformers(qkv_bias: bool) -> None:
    model = model_of(qkv_bias=qkv_bias)
    gpt2 = gpt2_with_weights_of(model, sizes(qkv_bias=qkv_bias))
    for length in (1, 7, 24):
        ids = random_ids(length=length)
        with torch.inference_mode():
            torch.testing.assert_close(model(ids), gpt2(ids, use_cache=False).logits, atol=2e-5, rtol=1e-5)


@EVERY
def test_a_token_changes_no_logits_before_it(architecture: str) -> None:
    model, ids = model_of(architecture), random_ids(1)
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


@EVERY
def test_logits_are_the_head_of_the_hidden_states(architecture: str) -> None:
    model, ids = model_of(architecture), random_ids()
    hidden = model.hidden(ids)
    assert hidden.shape == (2, 24, SIZES.emb_dim)
    assert torch.equal(model(ids), hidden @ model.out_head.weight.T)


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_the_state_dict_has_exactly_the_keys_and_shapes_of_the_book(qkv_bias: bool) -> None:
    c, v, t = SIZES.emb_dim, SIZES.vocab_size, SIZES.context_length
    expected = {"tok_emb.weight": (v, c), "pos_emb.weight": (t, c), "out_head.weight": (v, c)}
    for name in ("final_norm", *(f"trf_blocks.{n}.norm{i}" for n in range(SIZES.n_layers) for i in (1, 2))):
        expected |= {f"{name}.weight": (c,), f"{name}.bias": (c,)}
    for n in range(SIZES.n_layers):
        block = f"trf_blocks.{n}"
        expected[f"{block}.att.qkv.weight"] = (3 * c, c)
        if qkv_bias:
            expected[f"{block}.att.qkv.bias"] = (3 * c,)
        for name, (n_out, n_in) in {"att.proj": (c, c), "ff.layers.0": (4 * c, c), "ff.layers.2": (c, 4 * c)}.items():
            expected |= {f"{block}.{name}.weight": (n_out, n_in), f"{block}.{name}.bias": (n_out,)}
    state = build_model("custom-gpt", sizes(qkv_bias=qkv_bias)).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


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


def test_every_parameter_gets_a_gradient() -> None:
    model = model_of(qkv_bias=True)
    model(random_ids()).logsumexp(-1).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("architecture", "changes"), [("custom-gpt", {}), ("custom-gpt", {"qkv_bias": True}), ("qwen3", {}),
                                  ("qwen3", {"n_heads": 4, "n_kv_heads": 2})],
)  # fmt: skip
def test_training_computes_what_evaluation_computes(architecture: str, changes: dict[str, object]) -> None:
    """Attention is written out in training and fused otherwise: the same logits, the same gradients."""
    model, ids = model_of(architecture, drop_rate=0.0, **changes), random_ids()
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


def test_an_unknown_architecture_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="architecture gpt-9 is not known; choose from custom-gpt"):
        build_model("gpt-9", SIZES)


def test_impossible_sizes_are_refused_with_a_width_that_works() -> None:
    with pytest.raises(ConfigError, match="emb_dim 130 is not divisible by n_heads 4; use 128 or 132"):
        build_model("custom-gpt", sizes(emb_dim=130))
