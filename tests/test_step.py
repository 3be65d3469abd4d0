"""Number formats agree within what they can, are measured once and kept, and a budget of minutes is spent exactly."""

import json
from pathlib import Path

import pytest
import torch
from training_helpers import tiny

from mamegpt import trainer
from mamegpt.config import ModelConfig, Precision, TrainConfig
from mamegpt.distributed import World
from mamegpt.machine import has_bf16
from mamegpt.models import ARCHITECTURES, LanguageModel, build_model
from mamegpt.step import SummedLoss, seconds_per_step
from mamegpt.trainer import CONFIG_FILE, train

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


def test_a_measurement_leaves_no_trace() -> None:
    config = TrainConfig(context_length=16, emb_dim=16, n_layers=1, n_heads=2, batch_size=4)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    seconds = seconds_per_step(config, 50, torch.device("cpu"), ("fp32", "bf16"))
    assert set(seconds) == {"fp32", "bf16"} and min(seconds.values()) > 0
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
    [(True, {"fp32": 2.0, "bf16": 1.0}, "bf16"), (True, {"fp32": 1.0, "bf16": 2.0}, "fp32"), (False, {}, "fp32")],
)
def test_what_is_faster_is_measured_once_and_kept(
    in_hardware: bool, seconds: dict[Precision, float], expected: str, stories_txt: Path, stories_model: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(trainer, "has_bf16", lambda device: in_hardware)
    monkeypatch.setattr(trainer, "seconds_per_step", lambda *arguments: seconds)
    config = tiny(stories_txt, stories_model, tmp_path / "run", precision="auto", max_steps=3)
    train(config)
    written = json.loads((tmp_path / "run" / CONFIG_FILE).read_text(encoding="utf-8"))
    assert written["precision"] == expected
    monkeypatch.setattr(trainer, "seconds_per_step", lambda *arguments: pytest.fail("measured again"))
    monkeypatch.setattr(trainer, "has_bf16", lambda device: not in_hardware)
    assert train(config, resume=True).step == 3  # "auto" agrees with what was chosen
    assert json.loads((tmp_path / "run" / CONFIG_FILE).read_text(encoding="utf-8")) == written


def plan_of(minutes: float, monkeypatch: pytest.MonkeyPatch, measured: float, first_step: int = 0) -> trainer._Plan:
    config = TrainConfig(minutes=minutes, precision="fp32")
    monkeypatch.setattr(trainer, "seconds_per_step", lambda *arguments: {"fp32": measured})
    return trainer._Plan(config, 100, first_step, elapsed_s=10.0 * first_step, world=ALONE)


def test_a_budget_is_spent_whatever_the_measurement_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for measured, actual in ((1.0, 1.0), (0.1, 1.0), (10.0, 1.0), (1.0, 0.07)):
        plan = plan_of(2, monkeypatch, measured)
        assert plan.n_steps == round(120 / measured)
        step, elapsed = 0, 0.0
        while step < plan.n_steps:
            step, elapsed = step + 1, elapsed + actual
            plan.update(step, elapsed)
        assert elapsed == pytest.approx(120, abs=actual)


def test_a_machine_that_slows_down_ends_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(2, monkeypatch, 1.0)
    step, elapsed, totals = 0, 0.0, []
    while step < plan.n_steps:
        step, elapsed = step + 1, elapsed + (1.0 if elapsed < 60 else 3.0)
        plan.update(step, elapsed)
        totals.append(plan.n_steps)
    assert elapsed == pytest.approx(120, abs=3)
    assert totals[0] == 120 and totals[-1] == step == 80


def test_a_resumed_budget_is_what_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(2, monkeypatch, 10.0, first_step=9)  # 90 s are gone
    assert plan.n_steps == 12
    plan.update(10, 105.0)
    assert plan.n_steps == 11
    assert plan_of(2, monkeypatch, 10.0, first_step=13).n_steps == 13  # and nothing if nothing was


def test_without_minutes_the_steps_are_those_asked_for() -> None:
    plan = trainer._Plan(TrainConfig(max_steps=7), 100, 0, 0.0, ALONE)
    plan.update(3, 1e9)
    assert plan.n_steps == 7


def test_a_run_of_minutes_cools_down_and_says_so(
    stories_txt: Path, stories_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    config = tiny(stories_txt, stories_model, run, max_steps=TrainConfig.max_steps, minutes=0.02, log_every_steps=1)
    result = train(config)
    assert not result.interrupted
    rates = [json.loads(line).get("lr") for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert min(rate for rate in rates[1:] if rate) < 0.2 * config.lr
    assert "done of about" in capsys.readouterr().out
