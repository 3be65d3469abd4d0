"""The lines of ``metrics.jsonl`` as training writes them, and their hash, which a checkpoint holds."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mamegpt.distributed.processes import sum_over_processes
from mamegpt.errors import CheckpointError
from mamegpt.run.metrics import Quality, read_metrics
from mamegpt.system.files import atomic_write, sync_file
from mamegpt.system.run_files import METRICS_FILE

__all__ = ["Metrics"]


class Metrics:
    """``metrics.jsonl`` and the losses in it. After a resume, lines past the checkpoint are dropped: they come again.

    Losses are read back from the device only at `flush` and for `mean_loss`, so that few steps wait for it here. Raises
    `CheckpointError` if the lines up to ``first_step`` are not those of ``digest``, the hash a checkpoint has of them.
    A run that ``may_skip`` steps (see `loss_scaling`) marks those whose gradient was not finite, whose norm is null.
    """

    def __init__(self, run: Path, first_step: int, write: bool, digest: str = "", *, may_skip: bool = False) -> None:
        self.path, self.write, self.may_skip = run / METRICS_FILE, write, may_skip
        self.losses: list[float] = []
        self.quality: Quality | None = None
        self.validations: dict[int, Quality] = {}
        """By step, the first validation after it: that of the sample that is always measured."""
        self.save_blocked_s: float | None = None
        self._unread: list[tuple[int, float, Tensor, Tensor, Mapping[str, float]]] = []
        records = [record for record in read_metrics(run) if record["step"] <= first_step]
        self._hash = hashlib.sha256("".join(map(_json_line, records)).encode())
        if digest and self.path.exists() and self._hash.hexdigest() != digest:
            raise CheckpointError(
                "{path} is damaged: its hash is not the one in the checkpoint of step {first_step}; "
                "remove it to continue without it",
                path=self.path,
                first_step=first_step,
            )
        self.losses = [record["loss"] for record in records if "loss" in record]
        for record in records:
            if "quality" in record:
                self._keep(Quality(**{"step": record["step"], **record["quality"]}), record["step"])
        if write and self.path.exists():
            with atomic_write(self.path) as file:
                file.writelines(_json_line(record) for record in records)

    def sync(self) -> str:
        """Make what was written durable; the hash of all of it, for the checkpoint that follows."""
        if self.path.exists():
            sync_file(self.path)
        return self._hash.hexdigest()

    @property
    def n_unread(self) -> int:
        """Steps since the last `flush`."""
        return len(self._unread)

    def step(self, step: int, loss: Tensor, lr: float, grad_norm: Tensor, figures: Mapping[str, float]) -> None:
        """Remember one step; ``loss`` is this process's share of it, ``grad_norm`` and further ``figures`` of all."""
        self._unread.append((step, lr, loss, grad_norm, figures))

    def mean_loss(self, n: int) -> float:
        """Return the mean loss of the last ``n`` steps, infinity if fewer are known; all processes call it together."""
        unread = [share for _, _, share, _, _ in self._unread]
        losses = [*self.losses, *(sum_over_processes(torch.stack(unread)).tolist() if unread else [])]
        return statistics.fmean(losses[-n:]) if len(losses) >= n else math.inf

    def flush(self, n_tokens_after: Callable[[int], int], elapsed_s: float) -> list[dict[str, Any]]:
        """Add the losses up over all processes, write a line for each step, and return these records.

        ``n_tokens_after`` tells how many tokens were read after so many steps.
        """
        steps, rates, shares, norms, figures = zip(*self._unread, strict=True)
        losses = sum_over_processes(torch.stack(shares)).tolist()
        records = [
            {
                "step": step,
                "loss": loss,
                "lr": lr,
                "grad_norm": norm,
                "tokens": n_tokens_after(step),
                "elapsed_s": elapsed_s,
                **further,
            }
            for step, loss, lr, norm, further in zip(
                steps, losses, rates, torch.stack(norms).tolist(), figures, strict=True
            )
        ]
        for record in records:
            if self.may_skip and not math.isfinite(record["grad_norm"]):
                record |= {"grad_norm": None, "skipped": 1}  # JSON has no infinity
        if self.save_blocked_s is not None:
            records[0]["save_blocked_s"], self.save_blocked_s = self.save_blocked_s, None
        self._append(records)
        self.losses += losses
        self._unread.clear()
        return records

    def validation(self, quality: Quality) -> None:
        """Write what a validation found after ``quality.step`` steps."""
        assert quality.step is not None, "it is of a training"
        self._append([{"step": quality.step, "quality": quality.to_dict()}])
        self._keep(quality, quality.step)

    def _keep(self, quality: Quality, step: int) -> None:
        self.quality = quality
        self.validations.setdefault(step, quality)

    @property
    def best_step(self) -> int | None:
        """The step after which the validation loss was lowest; None without a validation."""
        return min(self.validations, key=lambda step: self.validations[step].loss, default=None)

    def _append(self, records: Iterable[dict[str, Any]]) -> None:
        if self.write:
            lines = "".join(map(_json_line, records))
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(lines)
            self._hash.update(lines.encode())


def _json_line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"
