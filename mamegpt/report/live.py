"""The report while the run goes on: the same page, without samples, written anew every now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from mamegpt.report.page import page
from mamegpt.report.run import ReportRun
from mamegpt.system.files import atomic_write
from mamegpt.system.run_files import REPORT_FILE
from mamegpt.training.events import Event, Listener, Started

__all__ = ["live_report"]

EVERY_S = 10.0
"""Seconds between two pages, at least; an open page asks as often for a newer one."""
TIMES_COST = 100
"""A page comes only after this many times as long as the last one took, so that pages take a hundredth of a run."""


@contextmanager
def live_report(started: Started) -> Iterator[Listener]:
    """Watch a run and keep ``report.html`` in its folder; at the end the page no longer asks to be loaded anew."""
    next_s = 0.0

    def listen(event: Event) -> None:
        nonlocal next_s
        now = time.monotonic()
        if now >= next_s:
            _write(started.run, refresh_s=round(EVERY_S))
            cost = time.monotonic() - now
            next_s = time.monotonic() + max(EVERY_S, TIMES_COST * cost)

    try:
        yield listen
    finally:
        if next_s:  # something was heard, so there is a step to show
            _write(started.run)


def _write(run: Path, refresh_s: int = 0) -> None:
    with atomic_write(run / REPORT_FILE) as file:
        file.write(page([ReportRun(run)], [], datetime.now(), refresh_s))
