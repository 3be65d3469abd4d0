"""The report while the run goes on: the same page, without samples, written again every now and then."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

from mamegpt.report.page import page
from mamegpt.report.run import ReportRun
from mamegpt.system.files import atomic_write
from mamegpt.system.run_files import REPORT_FILE
from mamegpt.training.events import Ended, Event, Saved, Started, StepEvent, Validated, Validating, Watcher

__all__ = ["live_report"]

EVERY_S = 10.0
"""Seconds between two pages, at least; an open page asks as often for a newer one."""
TIMES_COST = 100
"""A page comes only after this many times as long as the last one took, so that pages take a hundredth of a run."""


def live_report() -> Watcher:
    """Watch a run and keep ``report.html`` in its folder; at the end the page no longer asks to be loaded again."""
    run: Path | None = None
    next_s = 0.0

    def on_event(event: Event) -> None:
        nonlocal run, next_s
        if isinstance(event, Started):
            run, next_s = event.run, 0.0
        elif isinstance(event, Ended) and run is not None and next_s:  # there is a step to show
            _write(run)
        elif isinstance(event, StepEvent | Validating | Validated | Saved) and run is not None:
            now = time.monotonic()
            if now >= next_s:
                _write(run, refresh_s=round(EVERY_S))
                cost = time.monotonic() - now
                next_s = time.monotonic() + max(EVERY_S, TIMES_COST * cost)

    return on_event


def _write(run: Path, refresh_s: int = 0) -> None:
    with atomic_write(run / REPORT_FILE) as file:
        file.write(page([ReportRun(run)], [], datetime.now(), refresh_s))
