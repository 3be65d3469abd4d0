"""A run keeps its engine: resumed it has the same bits, and says so where it cannot."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from training_helpers import final_weights, losses, tiny

from mamegpt.distributed.processes import World
from mamegpt.errors import CheckpointError, ConfigError
from mamegpt.native.build import InstructionSet
from mamegpt.native.library import Native, load
from mamegpt.pretrained import load as load_model
from mamegpt.run.run import Run
from mamegpt.system.hardware import cpp_compiler
from mamegpt.system.run_files import CONFIG_FILE, MACHINE_FILE
from mamegpt.training import engine
from mamegpt.training.engine import choose_engine
from mamegpt.training.events import Event, MachineChanged, NoEngine, StepEvent
from mamegpt.training.setup import validation
from mamegpt.training.trainer import train

pytestmark = pytest.mark.skipif(cpp_compiler() is None, reason="no C++ compiler")


@pytest.fixture
def bf16_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine multiply in bfloat16 by whatever instructions there are."""
    monkeypatch.setattr(engine, "BF16_SETS", get_args(InstructionSet))


def no_library(**_: object) -> None:
    raise ConfigError("there is no C++ compiler; install g++ or clang++")


def interrupted_after(n_events: int) -> object:
    """A watcher that presses Ctrl-C, as it were, after some lines of progress."""
    seen = 0

    def on_event(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, StepEvent)
        if seen == n_events:
            raise KeyboardInterrupt

    return on_event


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ngrams": True, "architecture": "llama"},
        {"tie_embeddings": True},
        {"precision": "bf16", "emb_dim": 64, "n_heads": 2},
        {"precision": "bf16", "architecture": "llama", "emb_dim": 32, "n_heads": 1, "batch_size": 3},
    ],
)
def test_a_resumed_run_ends_with_the_bits_of_one_that_was_not_interrupted(
    changes: dict[str, object], stories_txt: Path, stories_model: Path, tmp_path: Path, bf16_anywhere: None
) -> None:
    config = tiny(stories_txt, stories_model, tmp_path / "whole", engine="native", **changes)
    train(config)
    part = dataclasses.replace(config, out=str(tmp_path / "part"))
    with pytest.raises(KeyboardInterrupt):
        train(part, watchers=[interrupted_after(4)])  # type: ignore[list-item]
    step = train(part, resume=True).step
    assert final_weights(tmp_path / "part", step) == final_weights(tmp_path / "whole", step)
    plain = train(dataclasses.replace(config, out=str(tmp_path / "torch"), engine="torch"))
    assert final_weights(plain.out, step) != final_weights(tmp_path / "whole", step)  # it was another one that computed
    assert list(losses(plain.out).values()) == pytest.approx(
        list(losses(tmp_path / "whole").values()), rel=1e-2 if "precision" in changes else 1e-4
    )


def test_the_engine_computes_validations_too(
    stories_txt: Path, stories_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(stories_txt, stories_model, tmp_path / "run", engine="native", emb_dim=32, max_steps=2)
    quality, run = train(config).quality, Run(tmp_path / "run")
    found, tokens, calls, attention = load_model(run.folder, device="cpu"), run.tokens(), [0], Native.attention
    assert found.tokenizer and tokens and quality

    def counted(self: Native, *heads: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return attention(self, *heads)

    monkeypatch.setattr(Native, "attention", counted)
    world, engines = World(0, 1, torch.device("cpu")), (load(), None)
    native, plain = (
        validation(config, tokens[1]["val"], found.tokenizer, found.model, world, one)(step=2) for one in engines
    )
    assert native == quality and calls[0] and calls[0] % config.n_layers == 0
    n_calls = calls[0]
    assert plain.loss != native.loss and plain.loss == pytest.approx(native.loss, rel=1e-5)
    rounded = [
        validation(config, tokens[1]["val"], found.tokenizer, found.model, world, one)(compute_dtype=torch.bfloat16)
        for one in engines
    ]
    assert {one.dtype for one in rounded} == {"bfloat16"} and calls[0] == n_calls  # whole blocks
    assert rounded[0].loss != rounded[1].loss and rounded[0].loss == pytest.approx(rounded[1].loss, rel=1e-3)


def test_a_run_that_loses_its_engine_goes_on_and_says_so(
    stories_txt: Path, stories_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(stories_txt, stories_model, tmp_path / "run", engine="native")
    with pytest.raises(KeyboardInterrupt):
        train(config, watchers=[interrupted_after(4)])  # type: ignore[list-item]
    monkeypatch.setattr(engine, "load", no_library)
    with pytest.raises(ConfigError, match="engine native cannot be used"):
        train(dataclasses.replace(config, out=str(tmp_path / "new")))
    events: list[Event] = []
    assert train(config, resume=True, watchers=[events.append]).step == config.max_steps
    assert any(isinstance(event, NoEngine) for event in events)
    (changed,) = [event for event in events if isinstance(event, MachineChanged)]
    assert changed.now == {"engine": "torch"} and str(changed.before["engine"]).startswith("native ")
    assert Run(tmp_path / "run").config.engine == "native"  # elsewhere it goes on with that


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_engine_with_the_same_bits_is_no_other_arithmetic(
    precision: str, stories_txt: Path, stories_model: Path, tmp_path: Path, bf16_anywhere: None
) -> None:
    config = tiny(stories_txt, stories_model, tmp_path / "run", engine="native", precision=precision, emb_dim=32)
    train(config)
    path = tmp_path / "run" / MACHINE_FILE
    values = json.loads(path.read_text(encoding="utf-8"))
    now = values["engine"]
    of_x86 = {"native avx2", "native avx512", "native avx512bf16", "native amx"}
    others = of_x86 if now in of_x86 and precision == "fp32" else {now}
    for begun in (*sorted(of_x86), "native neon", "torch", now):
        path.write_text(json.dumps(values | {"engine": begun}), encoding="utf-8")
        events: list[Event] = []
        train(config, resume=True, more_steps=1, watchers=[events.append])
        assert any(isinstance(event, MachineChanged) for event in events) == (begun not in others)


def test_auto_is_decided_once_and_kept(
    stories_txt: Path, stories_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_is_faster", lambda device: True)
    config = tiny(stories_txt, stories_model, tmp_path / "run", engine="auto")
    train(config)
    assert Run(tmp_path / "run").config.engine == "native"
    assert Run(tmp_path / "run").machine["engine"].startswith("native ")
    monkeypatch.setattr(engine, "_is_faster", lambda device: pytest.fail("decided again"))
    assert train(config, resume=True).step == config.max_steps
    with pytest.raises(CheckpointError, match="other settings"):
        train(dataclasses.replace(config, engine="torch"), resume=True)


def test_a_run_of_before_there_was_another_goes_on_with_pytorch(
    stories_txt: Path, stories_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(stories_txt, stories_model, tmp_path / "run", engine="torch")
    train(config)
    for name in (CONFIG_FILE, MACHINE_FILE):
        path = tmp_path / "run" / name
        values = json.loads(path.read_text(encoding="utf-8"))
        assert values.pop("engine") == "torch"
        path.write_text(json.dumps(values), encoding="utf-8")
    monkeypatch.setattr(engine, "_is_faster", lambda device: True)
    events: list[Event] = []
    kept = Run(tmp_path / "run").config
    assert choose_engine(kept, torch.device("cpu")) == "torch" and kept.fingerprint() == config.fingerprint()
    train(kept, resume=True, more_steps=2, watchers=[events.append])
    assert not any(isinstance(event, MachineChanged) for event in events)
