"""What is faster here is measured once, on a model that is thrown away, and kept."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed
from training_helpers import tiny

from mamegpt.config import TrainConfig
from mamegpt.distributed.processes import World
from mamegpt.native.library import load_if_built
from mamegpt.system.run_files import CONFIG_FILE, MACHINE_FILE
from mamegpt.training import autotune as module
from mamegpt.training import engine
from mamegpt.training.autotune import Kind, Probe, autotune
from mamegpt.training.events import CompileFailed, Compiling, EngineMeasured, Event, PrecisionMeasured
from mamegpt.training.trainer import train

ALONE = World(0, 1, torch.device("cpu"))


def ignored(event: Event) -> None:
    """Hear nothing."""


def test_a_measurement_leaves_no_trace() -> None:
    config = TrainConfig(
        context_length=16, emb_dim=16, n_layers=1, n_heads=2, batch_size=4, activation_checkpointing=True
    )
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    probe = Probe(config, 50, torch.device("cpu"))
    for kinds in ([Kind("fp32"), Kind("bf16")], [Kind("bf16")]):  # the second one takes the same model
        seconds = probe.seconds_per_step(kinds)
        assert len(seconds) == len(kinds) and min(seconds) > 0
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("in_hardware", "seconds", "expected"),
    [(True, [2.0, 1.0], "bf16"), (True, [1.0, 2.0], "fp32"), (False, [1.0], "fp32")],
)
def test_what_is_faster_is_measured_once_and_kept(
    in_hardware: bool,
    seconds: list[float],
    expected: str,
    stories_txt: Path,
    stories_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "has_bf16", lambda device: in_hardware)
    monkeypatch.setattr(Probe, "seconds_per_step", lambda *arguments: seconds)
    config = tiny(stories_txt, stories_model, tmp_path / "run", precision="auto", max_steps=3)
    train(config)
    written = json.loads((tmp_path / "run" / CONFIG_FILE).read_text(encoding="utf-8"))
    assert written["precision"] == expected
    monkeypatch.setattr(Probe, "seconds_per_step", lambda *arguments: pytest.fail("measured again"))
    monkeypatch.setattr(module, "has_bf16", lambda device: not in_hardware)
    assert train(config, resume=True).step == 3  # "auto" agrees with what was chosen
    assert json.loads((tmp_path / "run" / CONFIG_FILE).read_text(encoding="utf-8")) == written


@pytest.mark.parametrize(
    ("changes", "compiler", "measurements", "expected"),
    [
        ({"max_steps": 600}, True, [[1.0], [1.0, 0.5]], "true"),
        ({"max_steps": 600}, True, [[1.0], [1.0, 1.1]], "false"),
        ({"max_steps": 599}, True, [[1.0]], "false"),
        ({"max_steps": TrainConfig.max_steps, "minutes": 10.0}, True, [[1.0], [1.0, 0.5]], "true"),
        ({"max_steps": TrainConfig.max_steps, "minutes": 9.9}, True, [[1.0]], "false"),
        ({"max_steps": 600}, False, [], "false"),
        ({"max_steps": 600, "drop_rate": 0.1}, True, [], "false"),
        ({"max_steps": 600, "compile": "false"}, True, [], "false"),
        ({"max_steps": 600, "sharding": "full"}, True, [], "false"),  # or the run could not be gone on with
        ({"max_steps": 600, "compile": "true"}, True, [], "true"),
    ],
)
def test_only_long_runs_are_compiled_and_only_for_a_gain(
    changes: dict[str, Any],
    compiler: bool,
    measurements: list[list[float]],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And nothing is measured where nothing is left to decide."""
    answers = iter(measurements)
    monkeypatch.setattr(module, "has_compiler", lambda device: compiler)
    config = TrainConfig(**{"precision": "fp32", "engine": "torch", **changes})
    assert autotune(config, lambda kinds: next(answers), ALONE, ignored).compile == expected
    assert not list(answers)


@pytest.mark.parametrize(
    ("instructions", "emb_dim", "seconds", "expected"),
    [  # PyTorch in float32 and bfloat16, and the native engine in float32, and in bfloat16 where it multiplies
        ("avx512", 128, [4.0, 3.0, 1.5], ("native", "fp32", 2.0)),
        ("avx512", 128, [4.0, 1.0, 1.5], ("torch", "bf16", 1.5)),
        ("avx512", 128, [1.0, 4.0, 3.0], ("torch", "fp32", 3.0)),
        ("amx", 48, [4.0, 3.0, 1.5], ("native", "fp32", 2.0)),
        ("amx", 128, [4.0, 3.0, 2.0, 1.5], ("native", "bf16", 2.0)),
        ("avx512bf16", 128, [4.0, 1.0, 2.0, 1.5], ("torch", "bf16", 1.5)),
    ],
)
def test_the_engine_is_measured_where_none_is_known_to_be_faster(
    instructions: str,
    emb_dim: int,
    seconds: list[float],
    expected: tuple[str, str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "has_bf16", lambda device: True)
    monkeypatch.setattr(module, "best_instruction_set", lambda: instructions)
    events: list[Event] = []
    tuned = autotune(TrainConfig(emb_dim=emb_dim, compile="false"), lambda kinds: seconds, ALONE, events.append)
    assert events == [EngineMeasured(*expected)] and (tuned.engine, tuned.precision) == expected[:2]


def test_a_run_computes_with_the_engine_that_was_measured(
    stories_txt: Path, stories_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if load_if_built() is None:
        pytest.skip("the library is not built")
    monkeypatch.setattr("mamegpt.training.setup.choose_engine", engine.choose_engine)
    monkeypatch.setattr(engine, "_is_faster", lambda device: False)
    monkeypatch.setattr(module, "has_bf16", lambda device: False)
    for name, seconds in (("torch", [1.0, 2.0]), ("native", [2.0, 1.0])):
        monkeypatch.setattr(Probe, "seconds_per_step", lambda *arguments, seconds=seconds: seconds)
        run = tmp_path / name
        train(tiny(stories_txt, stories_model, run, precision="auto", engine="auto", max_steps=3))
        assert json.loads((run / CONFIG_FILE).read_text(encoding="utf-8"))["engine"] == name
        assert json.loads((run / MACHINE_FILE).read_text(encoding="utf-8"))["engine"].startswith(name)


def test_a_compiler_that_fails_is_said_once_and_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(kinds: Sequence[Kind]) -> list[float]:
        if any(kind.compiled for kind in kinds):
            raise BackendCompilerFailed("inductor", RuntimeError("no Python.h"), None)
        return [10.0]

    events: list[Event] = []
    monkeypatch.setattr(module, "has_compiler", lambda device: True)
    assert autotune(TrainConfig(precision="fp32", engine="torch"), measure, ALONE, events.append).compile == "false"
    assert [type(event) for event in events] == [Compiling, CompileFailed]


def test_a_gpu_without_bfloat16_measures_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mamegpt.training.autotune.has_bf16", lambda device: False)
    world = World(0, 1, torch.device("cuda:0"))
    events: list[Event] = []
    tuned = autotune(TrainConfig(compile="false", engine="torch"), lambda kinds: [2.0, 0.5], world, events.append)
    assert tuned.precision == "fp16" and events == [PrecisionMeasured("fp16", 4.0)]
