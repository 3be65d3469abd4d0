"""A budget of minutes is spent exactly, and an extension has a schedule of its own."""

import itertools
import json
import time
from pathlib import Path

import pytest
import torch
from training_helpers import tiny

from mamegpt.cli.progress import show_progress
from mamegpt.config import Precision, TrainConfig
from mamegpt.distributed.processes import World
from mamegpt.run.run import Extension
from mamegpt.training import setup
from mamegpt.training.budget import StepBudget
from mamegpt.training.optim import lr_factor
from mamegpt.training.trainer import train

ALONE = World(0, 1, torch.device("cpu"))


def budget_of(minutes: float, measured: float, first_step: int = 0) -> StepBudget:
    return StepBudget(
        TrainConfig(minutes=minutes), first_step, elapsed_s=10.0 * first_step, world=ALONE, seconds_per_step=measured
    )


def test_a_budget_is_spent_whatever_the_measurement_said() -> None:
    for measured, actual in ((1.0, 1.0), (0.1, 1.0), (10.0, 1.0), (1.0, 0.07)):
        budget = budget_of(2, measured)
        assert budget.n_steps == round(120 / measured)
        step, elapsed = 0, 0.0
        while step < budget.n_steps:
            step, elapsed = step + 1, elapsed + actual
            budget.update(step, elapsed)
        assert elapsed == pytest.approx(120, abs=actual)


def test_a_machine_that_slows_down_ends_on_time() -> None:
    budget = budget_of(2, 1.0)
    step, elapsed, totals = 0, 0.0, []
    while step < budget.n_steps:
        step, elapsed = step + 1, elapsed + (1.0 if elapsed < 60 else 3.0)
        budget.update(step, elapsed)
        totals.append(budget.n_steps)
    assert elapsed == pytest.approx(120, abs=3)
    assert totals[0] == 120 and totals[-1] == step == 80


def test_a_resumed_budget_is_what_was_left() -> None:
    budget = budget_of(2, 10.0, first_step=9)  # 90 s are gone
    assert budget.n_steps == 12
    budget.update(10, 105.0)
    assert budget.n_steps == 11
    assert budget_of(2, 10.0, first_step=13).n_steps == 14  # one if nothing was, to finish the run
    over = StepBudget(TrainConfig(minutes=2), 13, 130.0, ALONE, finished=True)
    assert over.n_steps == 13


def test_the_last_validation_is_within_the_minutes_and_what_is_left_is_by_the_clock() -> None:
    config = TrainConfig(minutes=2)
    budget = StepBudget(config, 0, 20.0, ALONE, seconds_per_step=1.0, reserve_s=10.0)  # tokenizing took 20 s
    assert budget.n_steps == 90
    step, elapsed = 0, 20.0
    while step < budget.n_steps:
        step, elapsed = step + 1, elapsed + (1.0 if step % 7 else 4.0)
        budget.update(step, elapsed)
        assert budget.seconds_left(step, elapsed, 1.0) == pytest.approx(120 - elapsed)
    assert elapsed + 10 == pytest.approx(120, abs=4)
    assert StepBudget(TrainConfig(max_steps=7), 0, 0.0, ALONE).seconds_left(3, 1e9, 2.0) == 8.0


@pytest.mark.parametrize(
    ("precision", "minutes", "n_tokens", "last", "seconds"),
    [
        ("fp32", 10.0, 40_000, 0, 50.0),  # all 40,000 and a sample of 10,000, in less than a minute
        ("fp32", 10.0, 10**8, 50_000, 60.0),
        ("fp32", 1.0, 10**8, None, 10.0),  # no fewer than the sample, which then is the result
        ("bf16", 1.0, 10**8, 10_000, 20.0),  # but for one in bfloat16
        ("fp32", 1.0, 4_000, None, 4.0),
        ("fp32", 0.0, 10**8, 0, 0.0),  # a run of steps measures all, however long that takes,
        ("fp32", 0.0, 10_000, None, 0.0),  # but not twice
    ],
)
def test_the_last_validation_takes_a_tenth_of_the_minutes(
    precision: Precision,
    minutes: float,
    n_tokens: int,
    last: int | None,
    seconds: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0

    def validate(max_tokens: int) -> None:  # at a thousand tokens a second
        nonlocal now
        now += max_tokens / 1000

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    config = TrainConfig(val_tokens=10_000, precision=precision)
    found = setup._last_validation(validate, config, n_tokens, minutes, ALONE)  # type: ignore[arg-type]
    assert found == (last, pytest.approx(seconds))


def test_an_extension_has_a_schedule_of_its_own_and_the_steps_before_keep_theirs() -> None:
    config = TrainConfig(max_steps=50, warmup_fraction=0.2, cooldown_fraction=0.4)
    added = [Extension(50, 1.0, steps=20), Extension(70, 2.0, steps=10)]
    whole = StepBudget(config, 0, 0.0, ALONE, extensions=added)
    assert whole.n_steps == 80
    factors = [whole.lr_factor(step) for step in range(80)]
    expected = [lr_factor(step, n, 0.2, 0.4) for n in (50, 20, 10) for step in range(n)]
    assert factors == expected
    timed = StepBudget(
        config, 70, 100.0, ALONE, extensions=[added[0], Extension(70, 100.0, minutes=1)], seconds_per_step=1.0
    )
    assert timed.n_steps == 130 and timed.seconds_left(80, 110.0, 1.0) == 50.0
    assert [timed.lr_factor(step) for step in range(70)] == expected[:70]


def test_without_minutes_the_steps_are_those_asked_for() -> None:
    budget = StepBudget(TrainConfig(max_steps=7), 0, 0.0, ALONE)
    budget.update(3, 1e9)
    assert budget.n_steps == 7


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
    result = train(config, watchers=[show_progress()])
    assert not result.interrupted
    rates = [json.loads(line).get("lr") for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert min(rate for rate in rates[1:] if rate) < 0.2 * config.lr
    assert "/about" in capsys.readouterr().out
