"""Settings: every mistake is named at once, by its flag; the fingerprint knows every setting."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from help_texts import sentences

from mamegpt.config import ModelConfig, TrainConfig, flag
from mamegpt.errors import CheckpointError, ConfigError, naming_options
from mamegpt.models.registry import unsupported_fields

GOOD = TrainConfig(data="a.txt", tokenizer="b.model", out="runs/c")


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    return value + ("x" if isinstance(value, str) else 1)


def test_the_defaults_are_fine() -> None:
    GOOD.validate()
    GOOD.validate(n_processes=4)


# fmt: off
BAD: list[tuple[str, Any]] = [
    ("data", ""), ("tokenizer", ""), ("out", ""), ("context_length", 0), ("emb_dim", 0), ("emb_dim", 130),
    ("n_layers", 0), ("n_heads", -1), ("drop_rate", 1.0), ("drop_rate", -0.1), ("drop_rate", float("nan")),
    ("batch_size", 0), ("batch_size", -32), ("micro_batch_size", -1), ("micro_batch_size", 5), ("max_steps", 0),
    ("samples_per_epoch", -1), ("lr", 0.0), ("lr", -1e-3), ("lr", float("nan")), ("weight_decay", -0.1),
    ("beta2", 1.0), ("warmup_fraction", -0.1), ("warmup_fraction", 0.5), ("cooldown_fraction", -0.1),
    ("grad_clip", -1.0), ("seed", -1), ("seed", 1 << 64), ("log_every_steps", 0), ("eval_every_steps", 0),
    ("val_tokens", -1), ("val_fraction", 1.0), ("val_fraction", -0.1), ("save_every_steps", 0),
    ("keep_checkpoints", 0), ("minutes", float("inf")), ("grad_clip", float("nan")), ("precision", "fp8"),
    ("sharding", "fsdp"), ("on_bad_loss", "Rollback"), ("device", "gpu"), ("batch_size", "8"), ("max_steps", True),
]
# fmt: on


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_wrong_setting_is_named_and_no_other_is(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(GOOD, **{name: value}).validate()
    message = str(caught.value)
    assert re.search(rf"\b{name}\b", message) and "\n" not in message
    with naming_options():
        assert flag(name) in str(caught.value)
    assert ";" not in message.replace("; use ", "")  # one problem


def test_all_problems_are_reported_in_one_line() -> None:
    bad = TrainConfig(max_steps=0, lr=-1, n_heads=3, drop_rate=2, val_fraction=1, architecture="rnn")
    with pytest.raises(ConfigError) as caught:
        bad.validate(architecture={"gpt": {}})
    message = str(caught.value)
    names = ("data", "tokenizer", "out", "max_steps", "lr", "n_heads", "drop_rate", "val_fraction", "architecture")
    for name in names:
        assert f"{name} " in message
    assert "\n" not in message


def test_names_of_a_registry_are_listed() -> None:
    with pytest.raises(ConfigError, match=r"optimizer must be one of adamw, muon \(got sgd\)"):
        dataclasses.replace(GOOD, optimizer="sgd").validate(optimizer=["adamw", "muon"])


@pytest.mark.parametrize(("batch", "micro", "world", "use"), [(32, 5, 1, 35), (30, 0, 4, 32), (30, 4, 4, 32)])
def test_a_batch_that_cannot_be_shared_names_one_that_can(batch: int, micro: int, world: int, use: int) -> None:
    bad = dataclasses.replace(GOOD, batch_size=batch, micro_batch_size=micro)
    with pytest.raises(ConfigError, match=f"batch_size {batch} is not divisible.*; use {use}"):
        bad.validate(world)
    dataclasses.replace(bad, batch_size=use).validate(world)


@pytest.mark.parametrize(("width", "heads", "use"), [(130, 4, "128 or 132"), (3, 4, "4"), (7, 2, "6 or 8")])
def test_a_width_that_cannot_be_shared_names_two_that_can(width: int, heads: int, use: str) -> None:
    message = f"emb_dim {width} is not divisible by n_heads {heads}; use {use}"
    with pytest.raises(ConfigError) as caught:
        TrainConfig(emb_dim=width, n_heads=heads).model(10).validate(
            "custom-gpt", {"rope_theta": TrainConfig.rope_theta}
        )
    assert str(caught.value) == message


@pytest.mark.parametrize("field", dataclasses.fields(TrainConfig), ids=lambda field: field.name)
def test_the_fingerprint_changes_with_every_setting_that_decides_weights(field: "dataclasses.Field[Any]") -> None:
    changed = dataclasses.replace(GOOD, **{field.name: other(getattr(GOOD, field.name))})
    assert (changed.fingerprint() == GOOD.fingerprint()) == (field.name in ("out", "on_bad_loss"))


@pytest.mark.parametrize("wish", [{"precision": "auto"}, {"minutes": 1.0}, {"compile": "true"}], ids=str)
def test_what_needs_a_whole_model_cannot_be_had_with_shares(wish: dict[str, Any]) -> None:
    shared = dataclasses.replace(GOOD, sharding="full", precision="fp32")
    shared.validate(4)
    with pytest.raises(ConfigError, match=r"sharding full does not work with .*; use precision bf16 or fp32"):
        dataclasses.replace(shared, **wish).validate(4)


def test_help_says_which_architectures_have_a_setting() -> None:
    unsupported = unsupported_fields()
    for name, sentence in sentences(TrainConfig).items():
        without = [architecture for architecture, fields in unsupported.items() if name in fields]
        only = [architecture for architecture in unsupported if architecture not in without]
        said = f"({', '.join(only)} only" in sentence or f"(not {' and not '.join(without)}" in sentence
        assert said == bool(without), name


def test_settings_come_back_from_json(tmp_path: Path) -> None:
    config = dataclasses.replace(GOOD, lr=0.1 + 0.2, data="豆.txt", qkv_bias=True)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    assert TrainConfig.load(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"bach_size": 3}', '{"batch_size": "3"}', '{"data": null}', '{"lr": true}']
)
def test_a_file_that_holds_no_settings_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json does not hold the settings of a run") as caught:
        TrainConfig.load(tmp_path / "config.json")
    assert "\n" not in str(caught.value)


def test_what_a_message_quotes_leaves_it_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"bach\\r\\u2028_size": 3}', encoding="utf-8")
    with pytest.raises(CheckpointError) as caught:
        TrainConfig.load(tmp_path / "config.json")
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_without_settings_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no run in .*: it has no config\.json"):
        TrainConfig.load(tmp_path / "config.json")


def test_the_model_gets_the_sizes_of_the_run() -> None:
    config = dataclasses.replace(GOOD, context_length=7, emb_dim=6, n_layers=5, n_heads=3, drop_rate=0.2, qkv_bias=True)
    assert config.model(11) == ModelConfig(
        vocab_size=11,
        context_length=7,
        emb_dim=6,
        n_layers=5,
        n_heads=3,
        drop_rate=0.2,
        qkv_bias=True,
        ffn_dim=0,
        n_kv_heads=0,
        head_dim=0,
        rope_theta=10000.0,
        norm_eps=1e-6,
        tie_embeddings=False,
    )


def test_only_runs_have_defaults() -> None:
    assert all(field.default is dataclasses.MISSING for field in dataclasses.fields(ModelConfig))
    for architecture, unsupported in unsupported_fields().items():
        for name, value in unsupported.items():
            assert getattr(TrainConfig, name) == value, (architecture, name)
