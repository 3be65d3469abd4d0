"""Training in float16, on a CPU, with a scale that is far too large at first."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from training_helpers import final_weights, records, tiny

from mamegpt.config import TrainConfig
from mamegpt.models.loss import linear_cross_entropy
from mamegpt.report.run import ReportRun
from mamegpt.training import loss_scaling
from mamegpt.training.muon import orthogonalize
from mamegpt.training.trainer import train

TOO_LARGE = 2.0**26


@pytest.fixture(scope="module", params=["muon", "adamw"])
def straight(
    request: pytest.FixtureRequest, stories_txt: Path, stories_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainConfig:
    """A run in float16 that was never interrupted."""
    out = tmp_path_factory.mktemp("fp16") / "run"
    config = tiny(stories_txt, stories_model, out, precision="fp16", optimizer=request.param, lr=0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_scaling, "INITIAL_SCALE", TOO_LARGE)
        train(config)
    return config


def scale_at(run: Path, step: int) -> float:
    """The scale in the checkpoint of a step."""
    state = json.loads((run / "checkpoints" / f"step-{step:08}" / "state.json").read_text(encoding="utf-8"))
    return float(state["loss_scale"])


def test_steps_that_overflow_are_skipped_counted_and_halve_the_scale(straight: TrainConfig) -> None:
    steps = [record for record in records(Path(straight.out)) if "loss" in record]
    skipped = [record["step"] for record in steps if "skipped" in record]
    assert 2 <= len(skipped) <= 8
    assert all(math.isfinite(record["loss"]) for record in steps)
    assert [record["step"] for record in steps if record["grad_norm"] is None] == skipped
    assert "Infinity" not in (Path(straight.out) / "metrics.jsonl").read_text(encoding="utf-8")
    assert len(ReportRun(Path(straight.out)).curve("step", "grad_norm")) == len(steps) - len(skipped)
    assert [record["tokens"] for record in steps] == [record["step"] * steps[0]["tokens"] for record in steps]
    assert scale_at(Path(straight.out), 12) == TOO_LARGE / 2 ** len(skipped)
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_a_run_that_is_resumed_while_its_scale_falls_has_the_same_weights(
    straight: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = dataclasses.replace(straight, out=str(tmp_path / "run"))
    monkeypatch.setattr(loss_scaling, "INITIAL_SCALE", TOO_LARGE)

    def stop(event: object) -> None:
        if getattr(event, "step", 0) == 3 and type(event).__name__ == "Saved":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(again, watchers=[stop])
    monkeypatch.setattr(loss_scaling, "INITIAL_SCALE", 1.0)
    train(again, resume=True)
    assert final_weights(Path(again.out), 12) == final_weights(Path(straight.out), 12)


def test_float16_is_near_float32_also_where_a_sum_would_pass_its_range() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(400, 8, generator=generator) * 300
    weight = torch.randn(3, 8, generator=generator) * 0.001
    targets = torch.zeros(400, dtype=torch.int64)
    found = []
    for dtype in (torch.float32, torch.float16):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        loss = linear_cross_entropy(h.abs(), w, targets, dtype)
        torch.autograd.backward(loss)
        assert h.grad is not None and w.grad is not None
        found.append((loss.detach(), h.grad, w.grad))
    assert found[0][2].abs().max() > 65504 / 2 and found[1][2].isfinite().all()
    for exact, rounded in zip(*found, strict=True):
        torch.testing.assert_close(rounded, exact, rtol=1e-2, atol=1e-2 * float(exact.abs().max()))


def test_muon_in_float16_sees_gradients_below_its_range() -> None:
    tiny_gradient = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(0)) * 1e-9
    group = {"ns_coefficients": (3.4445, -4.775, 2.0315), "eps": 1e-7, "ns_steps": 5}
    found = orthogonalize(tiny_gradient, group, torch.float16).float()
    assert (torch.linalg.svdvals(found) - 1).abs().max() < 0.5
