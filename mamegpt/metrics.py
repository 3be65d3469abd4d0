"""What a run wrote down while it trained: ``metrics.jsonl``, one line a step and one line a validation."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mamegpt.distributed import sum_over_processes
from mamegpt.errors import CheckpointError
from mamegpt.evaluate import Quality
from mamegpt.files import atomic_write, sync_file
from mamegpt.run_files import METRICS_FILE

__all__ = ["Metrics", "last_quality", "read_metrics"]


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The records of a run, in order; none if nothing was written yet.

    Of a step: ``step``, ``loss`` (nats per token), ``lr``, ``tokens`` and ``elapsed_s`` since the run began; of a
    validation: ``step`` and ``quality``, the fields of `mamegpt.evaluate.Quality`. The first step after a checkpoint
    also has ``save_blocked_s``, seconds it waited for the copy of the weights. Half a line, which a killed process
    leaves, is passed over.
    """
    path = run / METRICS_FILE
    records = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and isinstance(record.get("step"), int):
                    records.append(record)
    return records


def last_quality(run: Path, step: int) -> Quality | None:
    """The newest validation of a run up to ``step``, if there was one."""
    return Metrics(run, step, write=False).quality


class Metrics:
    """``metrics.jsonl`` and the losses in it. After a resume, lines past the checkpoint are dropped: they come again.

    Losses are read back from the device only at `flush`, so most steps never wait for it. Raises `CheckpointError` if
    the lines up to ``first_step`` are not those of ``digest``, the hash a checkpoint has of them.
    """

    def __init__(self, run: Path, first_step: int, write: bool, digest: str = "") -> None:
        self.path, self.write = run / METRICS_FILE, write
        self.losses: list[float] = []
        self.quality: Quality | None = None
        self.save_blocked_s: float | None = None
        self._unread: list[tuple[int, float, Tensor]] = []
        records = [record for record in read_metrics(run) if record["step"] <= first_step]
        self._hash = hashlib.sha256("".join(map(_json_line, records)).encode())
        if digest and self.path.exists() and self._hash.hexdigest() != digest:
            raise CheckpointError(
                f"{self.path} is damaged: it is not what the checkpoint of step {first_step} has the hash of; "
                "remove it to go on without what it told"
            )
        self.losses = [record["loss"] for record in records if "loss" in record]
        for record in records:
            if "quality" in record:
                self.quality = Quality(**record["quality"])
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

    def step(self, step: int, loss: Tensor, lr: float) -> None:
        """Remember one step; ``loss`` is this process's share of it."""
        self._unread.append((step, lr, loss))

    def flush(self, targets_per_step: int, elapsed_s: float) -> None:
        """Add the losses up over all processes and write a line for each step."""
        losses = sum_over_processes(torch.stack([loss for _, _, loss in self._unread])).tolist()
        lines: list[dict[str, Any]] = [
            {"step": step, "loss": loss, "lr": lr, "tokens": step * targets_per_step, "elapsed_s": elapsed_s}
            for (step, lr, _), loss in zip(self._unread, losses, strict=True)
        ]
        if self.save_blocked_s is not None:
            lines[0]["save_blocked_s"], self.save_blocked_s = self.save_blocked_s, None
        self._append(lines)
        self.losses += losses
        self._unread.clear()

    def validation(self, step: int, quality: Quality) -> None:
        """Write what a validation found."""
        self._append([{"step": step, "quality": asdict(quality)}])

    def _append(self, records: Iterable[dict[str, Any]]) -> None:
        if self.write:
            lines = "".join(map(_json_line, records))
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(lines)
            self._hash.update(lines.encode())


def _json_line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"
