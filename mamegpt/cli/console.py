"""What a command prints: lines and tables for a person, JSON for a machine, a live count while a long step goes on."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from mamegpt.cli.language import put, translated
from mamegpt.errors import first_line
from mamegpt.messages import msg
from mamegpt.text.display import visible

__all__ = [
    "INTERRUPTED",
    "Answer",
    "answering",
    "busy",
    "columns",
    "counted",
    "deliver",
    "duration",
    "headings",
    "is_terminal",
    "n_cells",
    "output_may_fail",
    "output_must_succeed",
    "pad",
    "say",
    "show_stream",
    "table",
]  # fmt: skip

T = TypeVar("T")

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended, as shells have it."""


class _Forgiving:
    """A stream in which a failed write raises nothing: the first one is reported on ``errors``, or else here."""

    def __init__(self, stream: IO[str] | None, name: str, errors: Any = None) -> None:
        self.stream = stream or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (a closed one is None)
        self.name = name
        self.errors: Any = errors or self  # not sys.stderr, which a live view sends to standard output
        self.has_failed = False

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError as error:
            self._report(error)
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self._report(error)

    def _report(self, error: OSError) -> None:
        if not self.has_failed:
            self.has_failed = True
            say(
                msg(
                    "warning: {name} cannot be written ({reason}); continuing without it",
                    name=self.name,
                    reason=first_line(error),
                ),
                file=self.errors,
            )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def output_may_fail() -> Iterator[None]:
    """Let a full disk, a closed pipe or a terminal that is gone stop nothing that runs in the block.

    Inside, writing to standard output or error never raises, `deliver` excepted. Each write is tried, so a disk with
    space again gets the rest.
    """
    err = _Forgiving(sys.stderr, msg("standard error"))
    out = _Forgiving(sys.stdout, msg("standard output"), err)
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        finally:
            for stream in (out.stream, err.stream):
                try:
                    stream.flush()
                except OSError:  # Python would fail at its end, over what is left to write
                    with suppress(io.UnsupportedOperation):
                        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(*lines: str, file: IO[str] | None = None) -> None:
    """Print lines to standard output (or ``file``) at once, terminal or not, in the user's language."""
    put("\n".join(map(translated, lines)), file=file)


def deliver(text: str, end: str = "\n") -> None:
    """Print what a command was called for to standard output.

    Raises `OSError` if it cannot be written, also inside `output_may_fail`.
    """
    with output_must_succeed():
        put(text, end)


@contextmanager
def output_must_succeed() -> Iterator[None]:
    """Let a failed write to standard output raise `OSError` in the block, also inside `output_may_fail`."""
    with redirect_stdout(_strict(sys.stdout)) as out:
        try:
            yield
        finally:
            out.flush()


def _strict(stream: Any) -> Any:
    """Return the stream in which a failed write raises."""
    while isinstance(stream, _Forgiving):
        stream = stream.stream
    return stream


def is_terminal() -> bool:
    """Return whether standard output is a terminal that can redraw a line."""
    return sys.stdout.isatty()


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns, the first in the user's language and padded, the second as it is."""
    names = headings(*(name for name, _ in rows))
    width = max(map(n_cells, names))
    return "\n".join(f"  {pad(name, width)}  {value}" for name, (_, value) in zip(names, rows, strict=True))


def n_cells(text: str) -> int:
    """Return how wide a terminal draws a text: most Japanese characters take two cells."""
    from rich.cells import cell_len

    return cell_len(text)


def pad(text: str, width: int) -> str:
    """Return a text with spaces after it, to fill ``width`` cells of a terminal."""
    return text + " " * (width - n_cells(text))


def _pad_left(text: str, width: int) -> str:
    return " " * (width - n_cells(text)) + text


def headings(*names: str) -> list[str]:
    """Names of rows or columns of a table, in the user's language."""
    return [translated(name) for name in names]


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a header and rows of as many cells: the first column to the left, the others to the right."""
    table = [header, *rows]
    widths = [max(map(n_cells, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join((_pad_left if i else pad)(cell, widths[i]) for i, cell in enumerate(row)) for row in table)
    return "\n".join(f"  {line.rstrip()}" for line in lines)


def duration(seconds: float) -> str:
    """Seconds as a person says them, in the user's language: 40 s, 12 min, 3.5 h, 2.1 days."""
    if seconds >= 2 * 86_400:
        return translated(msg("{n:.1f} days", n=seconds / 86_400))
    if seconds >= 2 * 3_600:
        return translated(msg("{n:.1f} h", n=seconds / 3_600))
    return translated(msg("{n:.0f} min", n=seconds / 60) if seconds >= 120 else msg("{seconds:.0f} s", seconds=seconds))


def show_stream(prompt: str, pieces: Iterable[str]) -> None:
    """Print a prompt and its continuation as it is made. Raises `OSError` if they cannot be written."""
    deliver(prompt, end="")
    for piece in pieces:
        deliver(piece, end="")
    deliver("")


class Answer(Protocol):
    """What `answering` yields."""

    def __call__(self, facts: Mapping[str, Any], *lines: str) -> None:
        """Print the result of a command, as facts or as lines."""


@contextmanager
def answering(as_json: bool, is_product: bool = False) -> Iterator[Answer]:
    """Yield a function that prints the lines it is given; with ``as_json``, the facts as one line of JSON instead.

    With ``as_json`` whatever else is said meanwhile goes to standard error, so that standard output is JSON only.
    ``is_product`` is for commands that make nothing else: the function raises `OSError` if it cannot write.
    """
    out = _strict(sys.stdout) if is_product else sys.stdout
    if not as_json:
        yield lambda _facts, *lines: say(*lines, file=out)
        return
    with redirect_stdout(sys.stderr):
        yield lambda facts, *_lines: put(json.dumps(facts, ensure_ascii=False, default=str), file=out)


@contextmanager
def busy(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """In a terminal, show what a long step does and for how long; yields a function that takes how far it has come.

    With a ``total`` there is a bar. Elsewhere nothing is shown.
    """
    if not is_terminal():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    kinds = [BarColumn(), TimeRemainingColumn(compact=True)] if total else [TimeElapsedColumn()]
    bar = Progress(
        SpinnerColumn("line"), TextColumn("{task.description} {task.fields[count]}"), *kinds, transient=True,
        console=Console(file=sys.stdout),
    )  # fmt: skip
    with bar:
        task = bar.add_task(visible(translated(what)), total=total, count="")
        of = f"/{total:,}" if total else ""
        yield lambda done: bar.update(task, completed=done, count=f"{done:,}{of}")


def counted(items: Iterable[T], show: Callable[[int], None], every: int = 100) -> Iterator[T]:
    """Yield items as they come, and show how many there were, as `busy` takes it."""
    for i, item in enumerate(items):
        if i % every == 0:
            show(i)
        yield item
