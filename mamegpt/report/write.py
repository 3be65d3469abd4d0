"""What happened in one or several runs, as one HTML file that opens anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mamegpt.arguments import checked
from mamegpt.errors import ConfigError, OutputError
from mamegpt.report.page import page
from mamegpt.report.run import ReportRun, samples
from mamegpt.system.files import atomic_write
from mamegpt.system.outputs import check_outputs

__all__ = ["WritingSamples", "write_report"]


@dataclass(frozen=True)
class WritingSamples:
    """A checkpoint is about to write the samples of a report."""

    checkpoint: Path


@checked
def write_report(
    folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | Path,
    on_event: Callable[[WritingSamples], None] = lambda _: None,
) -> None:
    """Write the report of one or several runs; a file of that name is replaced when the new one is complete.

    The prompts of the samples are from the first run's text; ``on_event`` is called with `WritingSamples` for each
    checkpoint. Raises `ConfigError` without a run, `CheckpointError` if a folder is no run or a checkpoint is damaged,
    and `OutputError` if ``out`` is a folder or not called ``.html``.
    """
    folders, out = [folders] if isinstance(folders, str | os.PathLike) else folders, Path(out)
    if not folders:
        raise ConfigError("name at least one run")
    check_outputs([out])
    if out.suffix.lower() != ".html":
        raise OutputError("{out}: a report is .html; name it so", out=out)
    runs = [ReportRun(Path(folder)) for folder in folders]
    prompts = runs[0].openings
    written = [sample for run in runs for sample in samples(run, prompts, lambda path: on_event(WritingSamples(path)))]
    with atomic_write(out) as file:
        file.write(page(runs, written if prompts else [], datetime.now()))
