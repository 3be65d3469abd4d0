"""What is Qwen3's own: initial weights, sizes, refusals; `test_model` and `test_hf_formats` ask the rest of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from architectures import CHANGES, SIZES, edit, foreign_folder, model_of, random_ids, sizes
from little import Little, export_here, random_model, sizes_for
from transformers import Qwen3Config, Qwen3ForCausalLM

from mamegpt.config import ModelConfig, TrainConfig
from mamegpt.errors import ConfigError, ExportError, ModelError
from mamegpt.exporting.model_card import Facts, model_card
from mamegpt.exporting.publish import export_weights
from mamegpt.models.qwen3 import architecture as qwen3
from mamegpt.models.qwen3.hf import QWEN3
from mamegpt.models.qwen3.init import EMBEDDING_STD
from mamegpt.models.registry import build_model
from mamegpt.pretrained import load

# ---------------------------------------------------------------- the model


@pytest.mark.parametrize("changes", [c for c in CHANGES.values() if "qkv_bias" not in c], ids=str)
def test_logits_are_those_of_transformers(changes: dict[str, Any]) -> None:
    """Its settings are written down from its documentation, not from our exporter."""
    config = sizes(**changes)
    theirs = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=config.vocab_size,
            max_position_embeddings=config.context_length,
            hidden_size=config.emb_dim,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads or config.n_heads,
            head_dim=config.head_dim or config.emb_dim // config.n_heads,
            intermediate_size=config.ffn_dim or 64,  # of 24: 8/3 x 24
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            tie_word_embeddings=config.tie_embeddings,
        )
    ).eval()
    model = model_of("qwen3", **changes)
    theirs.load_state_dict(model.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(model(random_ids()), theirs(random_ids()).logits, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("width", "expected"), [(24, 64), (26, 72), (128, 344), (512, 1368)])
def test_the_feed_forward_width_is_eight_thirds_rounded_up_to_eights(width: int, expected: int) -> None:
    model = build_model("qwen3", sizes(emb_dim=width, n_heads=1, n_layers=1))
    assert model.state_dict()["model.layers.0.mlp.up_proj.weight"].shape == (expected, width)
    assert expected % 8 == 0 <= expected - width * 8 / 3 < 8


def test_a_fresh_model_is_the_embedding_and_guesses_nothing() -> None:
    model, ids = build_model("qwen3", SIZES), random_ids()
    embedding = model.state_dict()["model.embed_tokens.weight"]
    torch.testing.assert_close(model.hidden(ids), F.rms_norm(embedding[ids], (24,), eps=1e-6))
    assert not model(ids).any()
    tied = build_model("qwen3", sizes(tie_embeddings=True))
    assert tied(ids).any()


def test_fresh_matrices_have_the_spread_of_their_width() -> None:
    torch.manual_seed(0)
    state = build_model("qwen3", sizes(emb_dim=256, n_layers=1, ffn_dim=512)).state_dict()
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"):
        assert state[f"model.layers.0.{name}.weight"].std() == pytest.approx(1 / 16, rel=0.05)
    assert state["model.embed_tokens.weight"].std() == pytest.approx(EMBEDDING_STD, rel=0.05)
    for name, tensor in state.items():
        if "norm" in name:
            assert (tensor == 1).all()


def test_dropout_thins_the_embedding_and_both_branches_of_a_block() -> None:
    fresh = build_model("qwen3", sizes(drop_rate=0.3)).train()  # its branches add nothing yet
    dropped = (fresh.hidden(random_ids(50)) == 0).float().mean().item()
    assert dropped == pytest.approx(0.3, abs=0.02)
    for silent in ("self_attn.o_proj", "mlp.down_proj"):  # so that the other branch alone is heard
        model: Any = model_of("qwen3", drop_rate=0.3, n_layers=1)
        model.model.dropout.p = 0.0
        torch.nn.init.zeros_(model.get_submodule(f"model.layers.0.{silent}").weight)
        assert torch.equal(model(random_ids()), model(random_ids()))
        model.train()
        assert not torch.allclose(model(random_ids()), model(random_ids()))


def test_positions_are_a_table_in_float32_that_no_file_holds() -> None:
    model = build_model("qwen3", SIZES)
    ((name, table),) = model.named_buffers()
    assert table.dtype == torch.float32 and table.shape == (2, 24, 3)
    assert name not in model.state_dict()
    torch.testing.assert_close(table.square().sum(0), torch.ones(24, 3))
    torch.testing.assert_close(table[1, 5], torch.tensor([5.0, 5 / 10000 ** (1 / 3), 5 / 10000 ** (2 / 3)]).sin())


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_kv_heads": 3}, "n_kv_heads 3 does not divide n_heads 4; use one of 1, 2, 4"),
        ({"n_kv_heads": 8}, "n_kv_heads 8 does not divide n_heads 4; use one of 1, 2, 4"),
        ({"n_kv_heads": -1}, "n_kv_heads must be at least 0 (got -1)"),
        ({"ffn_dim": -8}, "ffn_dim must be at least 0 (got -8)"),
        ({"rope_theta": 0.0}, "rope_theta must be above 0 and finite (got 0.0)"),
        ({"rope_theta": float("nan")}, "rope_theta must be above 0 and finite (got nan)"),
        ({"norm_eps": float("inf")}, "norm_eps must be above 0 and finite (got inf)"),
        ({"emb_dim": 20}, "emb_dim 20 is not divisible by n_heads 4 into even widths; use 16 or 24"),
        ({"head_dim": 7}, "head_dim must be even (got 7), since RoPE rotates pairs of dimensions"),
    ],
)
def test_impossible_sizes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_model("qwen3", sizes(**changes))
    assert str(caught.value) == message


def test_a_run_from_before_these_settings_still_loads(tmp_path: Path) -> None:
    old = TrainConfig(data="a", tokenizer="b", out="c", architecture="custom-gpt").to_dict()
    for name in ("ffn_dim", "n_kv_heads", "head_dim", "rope_theta", "norm_eps", "tie_embeddings"):
        del old[name]
    (tmp_path / "config.json").write_text(json.dumps(old), encoding="utf-8")
    build_model("custom-gpt", TrainConfig.load(tmp_path / "config.json").model(9))


# ---------------------------------------------------------------- folders that transformers wrote


@pytest.fixture
def foreign(little: Little, tmp_path: Path) -> Path:
    """A folder as transformers saves it, with a SentencePiece model beside."""
    return foreign_folder(little, tmp_path / "foreign", "qwen3")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_sliding_window": True, "sliding_window": 8}, "use_sliding_window True is not implemented"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types .* is not implemented"),
        ({"attention_bias": True}, "attention_bias True is not implemented"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not implemented"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling .*yarn.* is not implemented"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling .*linear.* is not implemented"),
        ({"rope_parameters": {"rope_type": "default", "factor": 2.0}}, "rope_parameters .* is not implemented"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 77.0}}, "rope_parameters .* is not implemented"),
        ({"rope_parameters": 3}, "rope_parameters 3 is not implemented"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not implemented"),
        ({"quantization_config": {"bits": 4}}, "quantization_config .* is not implemented"),
        ({"rope_theta": 5.0}, r"rope_theta is 5.0 and 77.0"),
        ({"rope_theta": "77", "rope_parameters": "-"}, "rope_theta must be a number"),
        ({"rms_norm_eps": None}, "rms_norm_eps must be a number"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings must be true/false"),
        ({"hidden_size": "-"}, "hidden_size must be a whole number"),
        ({"head_dim": 6.5, "num_hidden_layers": "2"}, "num_hidden_layers must .*; head_dim must be a whole"),
        ({"num_key_value_heads": True}, "num_key_value_heads must be a whole number"),
    ],
    ids=str,
)
def test_what_is_not_implemented_is_refused(foreign: Path, changes: dict[str, Any], message: str) -> None:
    edit(foreign, **changes)
    with pytest.raises(ModelError, match=rf"config\.json holds no qwen3 model known here: .*{message}") as caught:
        load(foreign)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"sliding_window": 8},  # not used
        {"rope_scaling": {"rope_type": "default", "rope_theta": 77.0}},
        {"rope_theta": 77},
        {"layer_types": None, "hidden_act": None, "attention_bias": None},
    ],
    ids=str,
)
def test_what_means_nothing_else_is_accepted(foreign: Path, changes: dict[str, Any]) -> None:
    edit(foreign, **changes)
    assert load(foreign).sizes is not None


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_hidden_layers": 3, "layer_types": None}, ModelError, "does not fit the model"),
        ({"tie_word_embeddings": True}, ModelError, "lm_head.weight is not model.embed_tokens.weight"),
        ({"vocab_size": 900}, ModelError, "vocabulary size 1000, but .* 900"),
        ({"num_key_value_heads": 3}, ConfigError, "n_kv_heads 3 does not divide n_heads 4"),
    ],
    ids=str,
)
def test_a_config_that_contradicts_the_weights(
    foreign: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    edit(foreign, **changes)
    with pytest.raises(error, match=message) as caught:
        load(foreign)
    assert "\n" not in str(caught.value)


def test_bare_weights_are_not_taken_for_they_do_not_say_their_positions(
    foreign: Path, little: Little, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="holds no GPT of the book's layout"):
        export_weights(foreign / "model.safetensors", little.spm, tmp_path / "out")


# ---------------------------------------------------------------- folders that we write


def test_config_says_what_both_transformers_need() -> None:
    config = QWEN3.config(sizes(n_kv_heads=2, rope_theta=5e5))
    assert config == {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "vocab_size": 61,
        "max_position_embeddings": 24,
        "hidden_size": 24,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 5e5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "max_window_layers": 3,
        "tie_word_embeddings": False,
    }


@pytest.mark.usefixtures("warm_exports")
def test_a_native_folder_that_behaves_differently_never_gets_its_name(
    little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_positions(config: ModelConfig) -> dict[str, Any]:
        wrong = {"rope_type": "default", "rope_theta": 5.0}
        return QWEN3.config(config) | {"rope_theta": 5.0, "rope_parameters": wrong}

    bad = dataclasses.replace(QWEN3, config=other_positions)
    monkeypatch.setattr(qwen3, "ARCHITECTURE", dataclasses.replace(qwen3.ARCHITECTURE, hf_formats=(bad,)))
    tiny = sizes_for(little.tokenizer)
    model = random_model(tiny, architecture="qwen3")
    with pytest.raises(ExportError, match=r"logits: max difference .*greedy: \d+ of 50 prompts"):
        export_here(tmp_path / "out" / "folder", model, tiny, little.tokenizer, "qwen3")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_card_of_a_tied_model_says_so(little: Little) -> None:
    card = model_card("豆", sizes_for(little.tokenizer, tie_embeddings=True), 7, little.tokenizer, QWEN3, Facts())
    assert "KV ヘッド数 4、出力層と埋め込み層の重み共有あり" in card
    assert "{" not in card
