"""What a person sees in the terminal: lines, one live progress line, and small curves."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = [
    "INTERRUPTED", "StepProgress", "columns", "duration", "is_terminal", "say", "sparkline", "table", "write_stream",
]  # fmt: skip

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended, as shells have it."""

BARS = "▁▂▃▄▅▆▇█"


def say(*lines: str) -> None:
    """Print lines to standard output at once, terminal or not."""
    print(*lines, sep="\n", flush=True)


def is_terminal() -> bool:
    """Whether standard output is a terminal that can redraw a line."""
    return sys.stdout.isatty()


def sparkline(values: Sequence[float], width: int = 48) -> str:
    """Values as one line of bars, averaged down to ``width`` of them."""
    if not values:
        return ""
    n = min(width, len(values))
    edges = [len(values) * i // n for i in range(n + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns, the first padded, the second as it is."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A header and rows of as many cells: the first column to the left, the others to the right."""
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(f"{cell:{'>' if i else '<'}{widths[i]}}" for i, cell in enumerate(row)) for row in table)
    return "\n".join(f"  {line.rstrip()}" for line in lines)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 40 s, 12 min, 3.5 h, 2.1 days."""
    for unit, length in (("days", 86_400), ("h", 3_600)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def write_stream(prompt: str, pieces: Iterable[str]) -> None:
    """Print a prompt and its continuation as it is made."""
    print(prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print(flush=True)


class StepProgress:
    """One live line while steps go by: step, loss, tokens per second, time left.

    In a terminal the line is redrawn; elsewhere a plain line is printed every ``every`` steps. A ``quiet`` one
    prints nothing (the other processes of a parallel run).
    """

    def __init__(self, total: int, done: int, every: int, quiet: bool = False) -> None:
        self.every, self.quiet = every, quiet
        self.live: Progress | None = None
        if is_terminal() and not quiet:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self.live = Progress(
                TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
                BarColumn(bar_width=None),
                TextColumn("loss {task.fields[loss]:.4f}"),
                TextColumn("{task.fields[rate]:,.0f} tokens/s"),
                TimeRemainingColumn(compact=True),
                console=Console(file=sys.stdout),
                expand=True,
            )
            self.task = self.live.add_task("train", total=total, completed=done, loss=float("nan"), rate=0.0)

    def __enter__(self) -> StepProgress:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def update(self, step: int, total: int, loss: float, tokens_per_s: float, seconds_left: float) -> None:
        """``step`` steps of ``total`` are done; ``loss`` is their latest, in nats per token."""
        if self.live:
            self.live.update(self.task, completed=step, total=total, loss=loss, rate=tokens_per_s)
        elif not self.quiet and (step % self.every == 0 or step == total):
            minutes, seconds = divmod(round(seconds_left), 60)
            say(f"step {step}/{total} - loss {loss:.4f} - {tokens_per_s:,.0f} tokens/s - {minutes}:{seconds:02} left")

    def line(self, text: str) -> None:
        """Print a line above the live one."""
        if self.quiet:
            return
        if self.live:
            self.live.console.print(text, highlight=False, markup=False)
        else:
            say(text)
