"""Our Qwen3 is the one of transformers: same logits, same names, and folders that either writes and the other reads."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from little import N_SENTENCES, Little, export_here, random_model, sizes_for
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import DynamicCache, Qwen3Config, Qwen3ForCausalLM

from mamegpt.config import ModelConfig, TrainConfig
from mamegpt.errors import CheckpointError, ConfigError, ExportError, ModelError
from mamegpt.exporting.model_card import Facts, model_card
from mamegpt.exporting.publish import export, export_weights
from mamegpt.generation.cache import KVCache
from mamegpt.models.base import LanguageModel
from mamegpt.models.qwen3 import architecture as qwen3
from mamegpt.models.qwen3.hf import QWEN3
from mamegpt.models.qwen3.init import EMBEDDING_STD
from mamegpt.models.registry import ARCHITECTURES, build_model, hf_formats, unsupported_fields
from mamegpt.pretrained import load
from mamegpt.run import checkpoint
from mamegpt.training.optim import build_optimizer

OTHER_PYTHON = "MAMEGPT_TRANSFORMERS4_PYTHON"
SIZES = TrainConfig(context_length=24, emb_dim=24, n_layers=3, n_heads=4, drop_rate=0.0).model(61)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_embeddings": True},
    "two heads of keys and values": {"n_kv_heads": 2, "tie_embeddings": True},
    "one head of keys and values": {"n_kv_heads": 1, "ffn_dim": 40},
    "wide heads": {"head_dim": 10, "n_heads": 3, "rope_theta": 50.0, "norm_eps": 0.1},
}
EVERY = pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)


def sizes(**changes: Any) -> ModelConfig:
    return dataclasses.replace(SIZES, **changes)


def model_of(**changes: Any) -> LanguageModel:
    return random_model(sizes(**changes), seed=3, architecture="qwen3")


def theirs(config: ModelConfig, **more: Any) -> Qwen3ForCausalLM:
    """The model of transformers; written down from its documentation, not from our exporter."""
    return Qwen3ForCausalLM(
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
            **more,
        )
    ).eval()


def random_ids(batch: int = 2, length: int = 24) -> Tensor:
    return torch.randint(0, 61, (batch, length), generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------- the model


@EVERY
def test_logits_are_those_of_transformers(changes: dict[str, Any]) -> None:
    model, reference = model_of(**changes), theirs(sizes(**changes))
    reference.load_state_dict(model.state_dict())
    for length in (1, 7, 24):
        ids = random_ids(length=length)
        with torch.inference_mode():
            logits = model(ids)
            assert logits.std() > 0.5
            torch.testing.assert_close(logits, reference(ids, use_cache=False).logits, atol=2e-5, rtol=1e-5)


@EVERY
def test_keys_shapes_and_parameters_are_those_of_transformers(changes: dict[str, Any]) -> None:
    model, reference = build_model("qwen3", sizes(**changes)), theirs(sizes(**changes))
    shapes = [{name: tensor.shape for name, tensor in m.state_dict().items()} for m in (model, reference)]
    assert shapes[0] == shapes[1]
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in reference.named_parameters()]


@EVERY
def test_every_size_matters(changes: dict[str, Any]) -> None:
    """So that the comparison above could fail: other positions or another epsilon give other logits."""
    ids, state = random_ids(), model_of(**changes).state_dict()
    results = []
    for more in ({}, {"rope_theta": 7.0}, {"norm_eps": 0.5}):
        model = build_model("qwen3", sizes(**(changes | more))).eval()
        model.load_state_dict(state)
        results.append(model(ids))
    for other in results[1:]:
        assert (other - results[0]).abs().max() > 1e-2


@EVERY
@pytest.mark.parametrize("cache", [DynamicCache, lambda: KVCache(24)], ids=["theirs", "ours"])
def test_logits_with_a_cache_are_those_without(changes: dict[str, Any], cache: Any) -> None:
    model, ids, held = model_of(**changes), random_ids(), cache()
    with torch.inference_mode():
        pieces = [model(part, held) for part in ids.split([5, 1, 1, 9, 8], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids), atol=2e-5, rtol=1e-5)


def test_a_cache_holds_only_the_heads_of_keys_and_values() -> None:
    seen = []

    class Cache(KVCache):
        def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
            seen.append((layer_idx, tuple(key_states.shape), tuple(value_states.shape)))
            return super().update(key_states, value_states, layer_idx)

    model_of(n_kv_heads=2)(random_ids(), Cache(24))
    assert seen == [(layer, (2, 2, 24, 6), (2, 2, 24, 6)) for layer in range(3)]


@pytest.mark.parametrize(("width", "expected"), [(24, 64), (26, 72), (128, 344), (512, 1368)])
def test_the_feed_forward_width_is_eight_thirds_rounded_up_to_eights(width: int, expected: int) -> None:
    model = build_model("qwen3", sizes(emb_dim=width, n_heads=1, n_layers=1))
    assert model.state_dict()["model.layers.0.mlp.up_proj.weight"].shape == (expected, width)
    assert expected % 8 == 0 <= expected - width * 8 / 3 < 8


def test_a_tied_head_is_the_embedding_and_learns_from_both_sides() -> None:
    model = model_of(tie_embeddings=True)
    assert model.out_head.weight is dict(model.named_parameters())["model.embed_tokens.weight"]
    model(random_ids()).logsumexp(-1).sum().backward()
    tied = model.out_head.weight.grad
    loose = model_of()
    loose.load_state_dict(model.state_dict())
    loose(random_ids()).logsumexp(-1).sum().backward()
    gradients = {name: p.grad for name, p in loose.named_parameters()}
    expected = gradients["model.embed_tokens.weight"] + gradients["lm_head.weight"]
    torch.testing.assert_close(tied, expected)
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())


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
        model: Any = model_of(drop_rate=0.3, n_layers=1)
        model.model.dropout.p = 0.0
        torch.nn.init.zeros_(model.get_submodule(f"model.layers.0.{silent}").weight)
        assert torch.equal(model(random_ids()), model(random_ids()))
        model.train()
        assert not torch.allclose(model(random_ids()), model(random_ids()))


@EVERY
def test_under_autocast_it_is_nearly_the_same_and_nothing_warns(changes: dict[str, Any]) -> None:
    model, ids = build_model("qwen3", sizes(**changes)), random_ids()
    model.load_state_dict(model_of(**changes).state_dict())
    with warnings.catch_warnings(), torch.autocast("cpu", dtype=torch.bfloat16):
        warnings.simplefilter("error")
        hidden = model.hidden(ids)
        hidden.sum().backward()
    exact = model.hidden(ids)
    difference = (hidden.float() - exact).abs().max() / exact.abs().max()
    assert 0 < difference < 0.05
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@EVERY
def test_it_compiles_into_one_graph(changes: dict[str, Any]) -> None:
    model, ids = model_of(**changes), random_ids()
    torch._dynamo.reset()
    compiled = torch.compile(model.hidden, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(ids), model.hidden(ids))


def test_positions_are_a_table_in_float32_that_no_file_holds() -> None:
    model = build_model("qwen3", SIZES)
    ((name, table),) = model.named_buffers()
    assert table.dtype == torch.float32 and table.shape == (2, 24, 3)
    assert name not in model.state_dict()
    torch.testing.assert_close(table.square().sum(0), torch.ones(24, 3))
    torch.testing.assert_close(table[1, 5], torch.tensor([5.0, 5 / 10000 ** (1 / 3), 5 / 10000 ** (2 / 3)]).sin())


# ---------------------------------------------------------------- settings


def test_it_is_known_which_sizes_an_architecture_has() -> None:
    assert ARCHITECTURES.keys() == {found.architecture for found in hf_formats().values()}
    fields = {field.name for field in dataclasses.fields(ModelConfig)}
    assert all(set(names) < fields for names in unsupported_fields().values())


@pytest.mark.parametrize(
    ("architecture", "name", "value"),
    [("qwen3", "qkv_bias", True), ("custom-gpt", "ffn_dim", 96), ("custom-gpt", "n_kv_heads", 2),
     ("custom-gpt", "rope_theta", 5e5), ("custom-gpt", "tie_embeddings", True)],
)  # fmt: skip
def test_a_setting_that_would_do_nothing_is_refused(architecture: str, name: str, value: Any) -> None:
    run = TrainConfig(data="a", tokenizer="b", out="c", architecture=architecture)
    known = unsupported_fields()
    run.validate(architecture=known)
    with pytest.raises(ConfigError, match=f"^{name} is nothing that {architecture} has; leave it out$"):
        dataclasses.replace(run, **{name: value}).validate(architecture=known)
    with pytest.raises(ConfigError, match=f"^{name} is nothing .*; emb_dim 30 is not divisible by n_heads 4"):
        build_model(architecture, sizes(emb_dim=30, **{name: value}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_kv_heads": 3}, "n_kv_heads 3 does not divide n_heads 4; use one of 1, 2, 4"),
        ({"n_kv_heads": 8}, "n_kv_heads 8 does not divide n_heads 4; use one of 1, 2, 4"),
        ({"n_kv_heads": -1}, "n_kv_heads must not be negative, not -1"),
        ({"ffn_dim": -8}, "ffn_dim must not be negative, not -8"),
        ({"rope_theta": 0.0}, "rope_theta must be above 0 and finite, not 0.0"),
        ({"rope_theta": float("nan")}, "rope_theta must be above 0 and finite, not nan"),
        ({"norm_eps": float("inf")}, "norm_eps must be above 0 and finite, not inf"),
        ({"emb_dim": 20}, "emb_dim 20 is not divisible by n_heads 4 into even widths; use 16 or 24"),
        ({"head_dim": 7}, "head_dim 7 is odd, but rotary positions turn pairs; use an even one"),
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


# ---------------------------------------------------------------- checkpoints


def saved(folder: Path, model: LanguageModel) -> Path:
    optimizer = build_optimizer(model, TrainConfig(optimizer="adamw"))
    return checkpoint.save(folder, model, optimizer, checkpoint.State(1, 1.0, "", "", ""), keep=1)


def loaded(path: Path, **changes: Any) -> LanguageModel:
    model = build_model("qwen3", sizes(**changes))
    checkpoint.load(path, model, build_optimizer(model, TrainConfig(optimizer="adamw")))
    return model.eval()


@pytest.mark.parametrize("tied", [False, True])
def test_a_checkpoint_holds_a_tied_weight_once_and_comes_back(tmp_path: Path, tied: bool) -> None:
    model = model_of(tie_embeddings=tied)
    path = saved(tmp_path, model)
    assert ("lm_head.weight" in load_file(path / "model.safetensors")) == (not tied)
    back = loaded(path, tie_embeddings=tied)
    assert torch.equal(back(random_ids()), model(random_ids()))
    assert (back.out_head.weight is dict(back.named_parameters())["model.embed_tokens.weight"]) == tied


def test_weights_that_are_not_tied_do_not_fit_a_tied_model_nor_the_other_way(tmp_path: Path) -> None:
    path = saved(tmp_path, model_of())
    with pytest.raises(CheckpointError, match="does not fit this model"):
        loaded(path, tie_embeddings=True)
    path = saved(tmp_path, model_of(tie_embeddings=True))
    with pytest.raises(CheckpointError, match="does not fit this model"):
        loaded(path)


# ---------------------------------------------------------------- folders that transformers wrote


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | changes
    kept = {name: value for name, value in config.items() if value != "-"}
    (folder / "config.json").write_text(json.dumps(kept), encoding="utf-8")


@pytest.fixture
def foreign(little: Little, tmp_path: Path) -> Path:
    """A folder as transformers saves it, with a SentencePiece model beside."""
    return foreign_folder(little, tmp_path / "foreign")


def foreign_folder(little: Little, folder: Path, **changes: Any) -> Path:
    config = sizes_for(little.tokenizer, emb_dim=24, n_kv_heads=2, rope_theta=77.0, **changes)
    reference = theirs(config)
    reference.load_state_dict(random_model(config, architecture="qwen3").state_dict())
    reference.save_pretrained(folder)
    (folder / "jp.model").write_bytes(little.spm.read_bytes())
    return folder


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": True}, {"head_dim": 10, "norm_eps": 0.01}], ids=str)
@pytest.mark.parametrize("words", ["of transformers 5", "of transformers 4"])
def test_a_folder_of_transformers_loads_by_our_own_class(
    little: Little, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    folder = foreign_folder(little, tmp_path / "foreign", **changes)
    reference = Qwen3ForCausalLM.from_pretrained(folder).eval()
    if words == "of transformers 4":
        edit(folder, rope_parameters="-", rope_theta=77, rope_scaling=None, dtype="-", torch_dtype="float32")
    found = load(folder)
    assert found.architecture == "qwen3" and found.use_cache
    assert found.sizes is not None and found.sizes.rope_theta == 77.0
    ids = random_ids()
    with torch.inference_mode():
        torch.testing.assert_close(found.model(ids), reference(ids).logits, atol=2e-5, rtol=1e-5)


def test_weights_in_bfloat16_become_float32(foreign: Path) -> None:
    weights = {name: tensor.bfloat16() for name, tensor in load_file(foreign / "model.safetensors").items()}
    save_file(weights, foreign / "model.safetensors", metadata={"format": "pt"})
    edit(foreign, dtype="bfloat16")
    for name, parameter in load(foreign, device="cpu").model.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, weights[name].float())


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
        ({"rope_theta": "77", "rope_parameters": "-"}, "rope_theta is '77', not a number"),
        ({"rms_norm_eps": None}, "rms_norm_eps is None, not a number"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"hidden_size": "-"}, "hidden_size is None, not a whole number"),
        ({"head_dim": 6.5, "num_hidden_layers": "2"}, "num_hidden_layers is '2', .*; head_dim is 6.5, not a whole"),
        ({"num_key_value_heads": True}, "num_key_value_heads is True, not a whole number"),
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
        ({"vocab_size": 900}, ModelError, "1000 pieces, but .* 900"),
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
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": 61,
        "max_position_embeddings": 24, "hidden_size": 24, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "rope_theta": 5e5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "attention_bias": False,
        "attention_dropout": 0.0, "use_sliding_window": False, "max_window_layers": 3, "tie_word_embeddings": False,
    }  # fmt: skip


@EVERY
def test_sizes_come_back_from_the_config_that_they_make(changes: dict[str, Any]) -> None:
    whole = sizes(**({"n_kv_heads": 4, "head_dim": 6, "ffn_dim": 64} | changes))
    if "n_heads" in changes:
        whole = dataclasses.replace(whole, n_kv_heads=3)
    config = json.loads(json.dumps(QWEN3.config(whole)))
    assert QWEN3.sizes(config, {}, Path("model.safetensors")) == whole
    assert QWEN3.config(sizes(**changes)) == config  # a 0 makes what it stands for


@pytest.fixture(scope="module")
def native(little: Little, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untied model, from a folder of transformers in bfloat16, exported by us."""
    folder = foreign_folder(little, tmp_path_factory.mktemp("qwen3") / "foreign", head_dim=10, norm_eps=0.01)
    weights = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    report = export(str(folder), folder.parent / "native", n_sentences=N_SENTENCES)
    assert report.files == sorted(path.name for path in report.out.iterdir())
    assert next(check.found for check in report.checks["hf"] if check.name == "logits").endswith(
        "from model.safetensors"
    )
    return report.out


def test_a_native_folder_holds_no_code_and_no_pickle(native: Path) -> None:
    assert sorted(path.name for path in native.iterdir()) == [
        "README.md", "config.json", "generation_config.json", "jp.model", "jp.vocab", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    config = json.loads((native / "config.json").read_text(encoding="utf-8"))
    assert "auto_map" not in config
    added = {"dtype": "float32", "use_cache": True, "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 3}
    assert config.items() >= added.items()
    assert config["tie_word_embeddings"] is False and config["head_dim"] == 10
    card = (native / "README.md").read_text(encoding="utf-8")
    assert "trust_remote_code=True" not in card and "modeling_custom_gpt" not in card
    assert "- qwen3\n" in card and "キーと値は 2 ヘッド、出力層は埋め込みと共有しない" in card


def test_a_native_folder_loads_in_both_directions(native: Path) -> None:
    ours = load(native, device="cpu").model
    reference, info = Qwen3ForCausalLM.from_pretrained(native, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.inference_mode():
        torch.testing.assert_close(ours(random_ids()), reference(random_ids()).logits, atol=2e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_native_untied_folder_loads_in_transformers_4(native: Path, tmp_path: Path) -> None:
    python = os.environ.get(OTHER_PYTHON)
    if not python:
        pytest.skip(f"set {OTHER_PYTHON} to an interpreter with transformers 4.57 (and torch, safetensors, numpy)")
    script = """
import json, sys, torch, transformers
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
print(json.dumps([transformers.__version__, model(torch.tensor(json.loads(sys.argv[2]))).logits.tolist()]))
"""
    done = subprocess.run(
        [python, "-c", script, str(native), json.dumps(random_ids().tolist())],
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    version, logits = json.loads(done.stdout.splitlines()[-1])
    assert version.startswith("4.")
    with torch.inference_mode():
        ours = load(native, device="cpu").model(random_ids())
    torch.testing.assert_close(torch.tensor(logits), ours, atol=2e-5, rtol=1e-5)


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
    with pytest.raises(ExportError, match=r"logits: .* apart at most .*greedy: \d+ of 50 prompts"):
        export_here(tmp_path / "out" / "folder", model, tiny, little.tokenizer, "qwen3")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_card_of_a_tied_model_says_so(little: Little) -> None:
    card = model_card("豆", sizes_for(little.tokenizer, tie_embeddings=True), 7, little.tokenizer, QWEN3, Facts())
    assert "キーと値は 4 ヘッド、出力層は埋め込みと共有する" in card
    assert "{" not in card
