"""Number formats agree within what they can, are measured once and kept, and a budget of minutes is spent exactly."""

import dataclasses
import itertools
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from training_helpers import final_weights, finish, tiny

from mamegpt.config import ModelConfig, Precision, TrainConfig
from mamegpt.distributed.processes import World
from mamegpt.models.base import LanguageModel
from mamegpt.models.registry import ARCHITECTURES, build_model
from mamegpt.run.run import Extension
from mamegpt.system.hardware import has_bf16, has_compiler
from mamegpt.system.run_files import CONFIG_FILE
from mamegpt.training import autotune
from mamegpt.training.forward import Kind, SummedLoss, micro_batch, recompute_blocks, seconds_per_step
from mamegpt.training.optim import OPTIMIZERS, build_optimizer, lr_factor
from mamegpt.training.trainer import train

ALONE = World(0, 1, torch.device("cpu"))
SIZES = ModelConfig(vocab_size=300, context_length=32, emb_dim=64, n_layers=2, n_heads=2, drop_rate=0.0)


def model_of(architecture: str) -> LanguageModel:
    torch.manual_seed(0)
    model = build_model(architecture, SIZES)
    with torch.no_grad():
        for parameter in model.parameters():  # also those that begin at zero
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_bf16_agrees_with_fp32(architecture: str) -> None:
    ids, targets = torch.randint(300, (2, 8, 32), generator=torch.Generator().manual_seed(1))
    found: dict[Precision, tuple[float, torch.Tensor]] = {}
    for precision in ("fp32", "bf16"):
        model = model_of(architecture)
        loss = SummedLoss(model, precision)(ids, targets)
        loss.backward()
        assert all(p.dtype == torch.float32 and p.grad is not None for p in model.parameters())
        found[precision] = loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    (loss32, gradient32), (loss16, gradient16) = found["fp32"], found["bf16"]
    assert loss16 != loss32  # it really is another format
    assert loss16 == pytest.approx(loss32, rel=1e-3)
    assert (gradient16 - gradient32).norm() < 0.02 * gradient32.norm()


class Types(TorchDispatchMode):
    """Every type of a tensor that goes into an operation of PyTorch or comes out of one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen |= {x.dtype for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)}
        return result


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_nothing_of_a_step_is_computed_in_16_bits_if_float32_was_chosen(architecture: str, optimizer: str) -> None:
    ids, targets = torch.randint(300, (2, 8, 32), generator=torch.Generator().manual_seed(1))
    seen = {}
    for precision in ("fp32", "bf16"):
        model = build_model(architecture, dataclasses.replace(SIZES, drop_rate=0.1))
        made = build_optimizer(model, TrainConfig(architecture=architecture, optimizer=optimizer, precision=precision))
        summed_loss = SummedLoss(model, precision)
        with Types() as types:
            summed_loss(ids, targets).backward()
            made.step()
        seen[precision] = types.seen & {torch.bfloat16, torch.float16}
    assert seen == {"fp32": set(), "bf16": {torch.bfloat16}}


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_blocks_that_are_run_again_keep_less_and_give_the_same_gradients(architecture: str) -> None:
    ids, targets = torch.randint(300, (2, 8, 32), generator=torch.Generator().manual_seed(1))
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        model = build_model(architecture, dataclasses.replace(SIZES, drop_rate=0.3))
        if again:
            recompute_blocks(model)
        kept = []

        def keep(tensor: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept.append(tensor.nbytes)
            return tensor

        torch.manual_seed(7)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = SummedLoss(model, "fp32")(ids, targets)
        loss.backward()
        found.append((loss.item(), {name: p.grad for name, p in model.named_parameters()}, sum(kept)))
    (loss, gradients, n_bytes), (same_loss, same_gradients, fewer_bytes) = found
    assert same_loss == loss and same_gradients.keys() == gradients.keys()
    assert all(torch.equal(same_gradients[name], gradients[name]) for name in gradients)
    assert fewer_bytes < n_bytes / 3


@pytest.mark.parametrize(
    ("device", "context_length", "share", "asked", "expected"),
    [("cpu", 256, 32, 0, 16), ("cpu", 256, 8, 0, 8), ("cpu", 256, 17, 0, 9), ("cpu", 8192, 4, 0, 1),
     ("cpu", 256, 24, 0, 12), ("cpu", 256, 32, 4, 4), ("cuda", 256, 32, 0, 32)],
)  # fmt: skip
def test_a_step_is_cut_into_passes_of_one_size(
    device: str, context_length: int, share: int, asked: int, expected: int
) -> None:
    config = TrainConfig(context_length=context_length, micro_batch_size=asked)
    assert micro_batch(config, share, torch.device(device)) == expected


def test_a_measurement_leaves_no_trace() -> None:
    config = TrainConfig(
        context_length=16, emb_dim=16, n_layers=1, n_heads=2, batch_size=4, activation_checkpointing=True
    )
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    seconds = seconds_per_step(config, 50, torch.device("cpu"), [("fp32", False), ("bf16", False)])
    assert len(seconds) == 2 and min(seconds) > 0
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("capabilities", "expected"), [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True),
                                                        ({"avx512_f": True}, False)])  # fmt: skip
def test_a_processor_without_bf16_is_known(
    capabilities: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_bf16(torch.device("cpu")) is expected
    assert has_bf16(torch.device("mps")) is False


@pytest.mark.parametrize(
    ("in_hardware", "seconds", "expected"),
    [(True, [2.0, 1.0], "bf16"), (True, [1.0, 2.0], "fp32"), (False, [1.0], "fp32")],
)
def test_what_is_faster_is_measured_once_and_kept(
    in_hardware: bool, seconds: list[float], expected: str, stories_txt: Path, stories_model: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(autotune, "has_bf16", lambda device: in_hardware)
    monkeypatch.setattr(autotune, "seconds_per_step", lambda *arguments: seconds)
    config = tiny(stories_txt, stories_model, tmp_path / "run", precision="auto", max_steps=3)
    train(config)
    written = json.loads((tmp_path / "run" / CONFIG_FILE).read_text(encoding="utf-8"))
    assert written["precision"] == expected
    monkeypatch.setattr(autotune, "seconds_per_step", lambda *arguments: pytest.fail("measured again"))
    monkeypatch.setattr(autotune, "has_bf16", lambda device: not in_hardware)
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
    changes: dict[str, Any], compiler: bool, measurements: list[list[float]], expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """And nothing is measured where nothing is left to decide."""
    answers = iter(measurements)
    monkeypatch.setattr(autotune, "has_compiler", lambda device: compiler)
    monkeypatch.setattr(autotune, "seconds_per_step", lambda *arguments: next(answers))
    config = TrainConfig(**{"precision": "fp32", **changes})
    assert autotune.measured(config, 100, ALONE).compile == expected
    assert not list(answers)


def test_a_compiler_that_fails_is_said_once_and_done_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(
        config: TrainConfig, vocab_size: int, device: torch.device, kinds: list[Kind], world_size: int = 1
    ) -> list[float]:
        if any(compiled for _, compiled in kinds):
            raise BackendCompilerFailed("inductor", RuntimeError("no Python.h"), None)
        return [10.0]

    monkeypatch.setattr(autotune, "has_compiler", lambda device: True)
    monkeypatch.setattr(autotune, "seconds_per_step", measure)
    assert autotune.measured(TrainConfig(precision="fp32"), 100, ALONE).compile == "false"
    assert capsys.readouterr().out.count("warning: torch.compile does not work here") == 1


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(torch.device("cpu")), reason="no C++ compiler")
def test_a_compiled_run_is_that_of_eager_code_and_goes_on_bitwise(
    stories_txt: Path, stories_model: Path, tmp_path: Path
) -> None:
    """Losses agree with eager ones while rounding has had no time to grow."""
    config = tiny(stories_txt, stories_model, tmp_path / "eager", optimizer="adamw", lr=1e-3)
    eager = train(config).losses
    counters.clear()
    compiled = train(dataclasses.replace(config, out=str(tmp_path / "compiled"), compile="true"))
    assert compiled.losses == pytest.approx(eager, rel=1e-4)
    assert counters["stats"]["unique_graphs"] == 1  # it really was compiled, in one piece
    final = final_weights(compiled.out, 12)
    newest = compiled.out / "checkpoints" / "step-00000012"
    shutil.rmtree(newest)
    finish("-m", "mamegpt", "train", "--resume", str(compiled.out))
    assert final_weights(compiled.out, 12) == final


def pace_of(minutes: float, monkeypatch: pytest.MonkeyPatch, measured: float, first_step: int = 0) -> autotune.Pace:
    config = TrainConfig(minutes=minutes, precision="fp32")
    monkeypatch.setattr(autotune, "seconds_per_step", lambda *arguments: [measured])
    return autotune.Pace(config, 100, first_step, elapsed_s=10.0 * first_step, world=ALONE)


def test_a_budget_is_spent_whatever_the_measurement_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for measured, actual in ((1.0, 1.0), (0.1, 1.0), (10.0, 1.0), (1.0, 0.07)):
        run_pace = pace_of(2, monkeypatch, measured)
        assert run_pace.n_steps == round(120 / measured)
        step, elapsed = 0, 0.0
        while step < run_pace.n_steps:
            step, elapsed = step + 1, elapsed + actual
            run_pace.update(step, elapsed)
        assert elapsed == pytest.approx(120, abs=actual)


def test_a_machine_that_slows_down_ends_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    run_pace = pace_of(2, monkeypatch, 1.0)
    step, elapsed, totals = 0, 0.0, []
    while step < run_pace.n_steps:
        step, elapsed = step + 1, elapsed + (1.0 if elapsed < 60 else 3.0)
        run_pace.update(step, elapsed)
        totals.append(run_pace.n_steps)
    assert elapsed == pytest.approx(120, abs=3)
    assert totals[0] == 120 and totals[-1] == step == 80


def test_a_resumed_budget_is_what_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    run_pace = pace_of(2, monkeypatch, 10.0, first_step=9)  # 90 s are gone
    assert run_pace.n_steps == 12
    run_pace.update(10, 105.0)
    assert run_pace.n_steps == 11
    assert pace_of(2, monkeypatch, 10.0, first_step=13).n_steps == 14  # one if nothing was, to finish the run
    over = autotune.Pace(TrainConfig(minutes=2, precision="fp32"), 100, 13, 130.0, ALONE, is_over=True)
    assert over.n_steps == 13


def test_the_last_validation_is_within_the_minutes_and_what_is_left_is_by_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(autotune, "seconds_per_step", lambda *arguments: [1.0])
    config = TrainConfig(minutes=2, precision="fp32")
    run_pace = autotune.Pace(config, 100, 0, 20.0, ALONE, reserve_s=10.0)  # tokenizing took 20 s
    assert run_pace.n_steps == 90
    step, elapsed = 0, 20.0
    while step < run_pace.n_steps:
        step, elapsed = step + 1, elapsed + (1.0 if step % 7 else 4.0)
        run_pace.update(step, elapsed)
        assert run_pace.seconds_left(step, elapsed, 1.0) == pytest.approx(120 - elapsed)
    assert elapsed + 10 == pytest.approx(120, abs=4)
    assert autotune.Pace(TrainConfig(max_steps=7), 100, 0, 0.0, ALONE).seconds_left(3, 1e9, 2.0) == 8.0


def test_an_extension_has_a_schedule_of_its_own_and_the_steps_before_keep_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = TrainConfig(max_steps=50, warmup_fraction=0.2, cooldown_fraction=0.4)
    added = [Extension(50, 1.0, steps=20), Extension(70, 2.0, steps=10)]
    whole = autotune.Pace(config, 100, 0, 0.0, ALONE, added)
    assert whole.n_steps == 80
    factors = [whole.lr_factor(step) for step in range(80)]
    expected = [lr_factor(step, n, 0.2, 0.4) for n in (50, 20, 10) for step in range(n)]
    assert factors == expected
    monkeypatch.setattr(autotune, "seconds_per_step", lambda *arguments: [1.0])
    timed = autotune.Pace(config, 100, 70, 100.0, ALONE, [added[0], Extension(70, 100.0, minutes=1)])
    assert timed.n_steps == 130 and timed.seconds_left(80, 110.0, 1.0) == 50.0
    assert [timed.lr_factor(step) for step in range(70)] == expected[:70]


def test_without_minutes_the_steps_are_those_asked_for() -> None:
    run_pace = autotune.Pace(TrainConfig(max_steps=7), 100, 0, 0.0, ALONE)
    run_pace.update(3, 1e9)
    assert run_pace.n_steps == 7


def test_a_run_of_minutes_cools_down_and_says_so(
    stories_txt: Path,
    stories_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks) * 2e-3)  # else a machine may pause at the end
    run = tmp_path / "run"
    config = tiny(stories_txt, stories_model, run, max_steps=TrainConfig.max_steps, minutes=0.02, log_every_steps=1)
    result = train(config)
    assert not result.interrupted
    rates = [json.loads(line).get("lr") for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert min(rate for rate in rates[1:] if rate) < 0.2 * config.lr
    assert "done of about" in capsys.readouterr().out
