"""What training does on devices that are not here: the settings of a GPU, on the CPU or on fakes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from training_helpers import losses, tiny

from mamegpt.config import TrainConfig
from mamegpt.errors import ConfigError
from mamegpt.models.loss import chunk_tokens, linear_cross_entropy
from mamegpt.run.run import Run
from mamegpt.training import trainer
from mamegpt.training.autotune import Probe, fit_micro_batch
from mamegpt.training.events import Event, MicroBatchHalved
from mamegpt.training.forward import SummedLoss, refuse_wrong_results
from mamegpt.training.trainer import train

CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda:0", "mps"))


class Small:
    """A probe of a GPU whose memory suffices for so many rows of twelve."""

    device, n_rows, n_windows = CUDA, 12, 12

    def __init__(self, most: int) -> None:
        self.most = most

    def fits(self, precision: str) -> bool:
        """Whether the memory suffices."""
        assert precision == "fp32"
        return self.n_rows <= self.most


def test_rows_are_halved_until_a_step_fits_and_are_equal_parts_of_it() -> None:
    events: list[Event] = []
    config, probe = TrainConfig(batch_size=12), Small(3)
    assert fit_micro_batch(config, probe, events.append).micro_batch_size == probe.n_rows == 3  # type: ignore[arg-type]
    assert events == [MicroBatchHalved(12, 6), MicroBatchHalved(6, 3)]
    assert fit_micro_batch(config, Small(12), events.append) is config  # type: ignore[arg-type]
    asked = dataclasses.replace(config, micro_batch_size=12)
    assert fit_micro_batch(asked, Small(1), events.append) is asked and len(events) == 2  # type: ignore[arg-type]


def test_a_step_that_needs_more_memory_than_there_is_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe(TrainConfig(context_length=8, emb_dim=16, n_layers=1, batch_size=4), 50, CPU)
    state = torch.get_rng_state()
    assert probe.fits("fp32") and torch.equal(torch.get_rng_state(), state)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(SummedLoss, "forward", full)
    assert not probe.fits("fp32")
    probe.n_rows = 1
    with pytest.raises(torch.OutOfMemoryError):
        probe.fits("fp32")


def test_a_run_keeps_the_rows_that_fitted_and_learns_the_same(
    stories_txt: Path, stories_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(stories_txt, stories_model, tmp_path / "whole", max_steps=4, eval_every_steps=4)
    train(config)
    monkeypatch.setattr(
        "mamegpt.training.setup.fit_micro_batch", lambda kept, *_: dataclasses.replace(kept, micro_batch_size=2)
    )
    waited: list[torch.device] = []
    monkeypatch.setattr(trainer, "synchronize", waited.append)  # before the clock is read
    halved = dataclasses.replace(config, out=str(tmp_path / "halved"))
    train(halved)
    assert waited and set(waited) == {CPU}
    assert Run(tmp_path / "halved").config.micro_batch_size == 2
    assert losses(tmp_path / "halved") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)
    monkeypatch.undo()
    train(halved, resume=True)  # although its settings have no rows


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"precision": "bf16"}, "precision bf16"),
        ({"activation_checkpointing": True, "drop_rate": 0.1}, "gradients"),
        ({"activation_checkpointing": True}, ""),
        ({"precision": "fp16", "drop_rate": 0.1}, ""),
    ],
)
def test_what_mps_computes_wrongly_is_refused(changes: dict[str, Any], refused: str) -> None:
    config = TrainConfig(**changes)
    refuse_wrong_results(config, CUDA)
    if not refused:
        refuse_wrong_results(config, MPS)
        return
    with pytest.raises(ConfigError, match=f"{refused}.* on MPS"):
        refuse_wrong_results(config, MPS)


def test_the_head_has_larger_pieces_off_the_cpu_and_writes_into_no_slice_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chunk_tokens(16_000, torch.float32, CPU) == 256 and chunk_tokens(16_000, torch.float32, CUDA) == 4194
    product = torch.mm

    def plain(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:  # without out=, which MPS of macOS 14 does not write
        return product(a, b)

    monkeypatch.setattr(torch, "mm", plain)
    hidden, weight = (torch.randn(n, 4, device="meta", requires_grad=True) for n in (6, 9))
    loss = linear_cross_entropy(hidden, weight, torch.zeros(6, dtype=torch.int64, device="meta"))
    torch.autograd.backward(loss)
    assert hidden.grad is not None and hidden.grad.shape == hidden.shape
