"""What a run wrote down while it trained: ``metrics.jsonl``, one line a step and one line a validation."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

__all__ = ["METRICS_FILE", "read_metrics"]

METRICS_FILE = "metrics.jsonl"


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The records of a run, in order; none if nothing was written yet.

    Of a step: ``step``, ``loss`` (nats per token), ``lr``, ``tokens`` and ``elapsed_s`` since the run began; of a
    validation: ``step`` and ``quality``, the fields of `mamegpt.evaluate.Quality`. Half a line, which a killed
    process leaves, is passed over.
    """
    path = run / METRICS_FILE
    records = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                records.append(json.loads(line))
    return records
