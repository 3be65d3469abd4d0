"""Output of commands: lines and tables, JSON, and live counters during long steps."""

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
from mamegpt.errors import ConfigError, first_line
from mamegpt.messages import msg
from mamegpt.text.display import visible

__all__ = [
    "INTERRUPTED",
    "Answer",
    "answering",
    "asked",
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
]

T = TypeVar("T")

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended, as in shells."""


class _Forgiving:
    """A stream whose failed writes raise nothing; the first failure is reported on ``errors``, by default on this
    stream.
    """

    def __init__(self, stream: IO[str] | None, name: str, errors: Any = None) -> None:
        self.stream = stream or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (a closed one is None)
        self.name = name
        self.errors: Any = errors or self  # not sys.stderr: a live view redirects it to standard output
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
    """Let the block continue if the output fails: a full disk, a closed pipe, or a terminal that is gone.

    Inside, writing to standard output or error never raises, except in `deliver`. Each write is tried, so the rest is
    written if the disk has space again.
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
                except OSError:  # else Python would fail when it flushes at exit
                    with suppress(io.UnsupportedOperation):
                        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(*lines: str, file: IO[str] | None = None) -> None:
    """Print lines to standard output (or ``file``) at once, terminal or not, in the user's language."""
    put("\n".join(map(translated, lines)), file=file)


def deliver(text: str, end: str = "\n") -> None:
    """Print the result that a command was called for to standard output.

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
    """Return the stream whose failed writes raise."""
    while isinstance(stream, _Forgiving):
        stream = stream.stream
    return stream


def is_terminal() -> bool:
    """Return whether standard output is a terminal that can redraw a line."""
    return sys.stdout.isatty()


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Return rows as two columns: the first in the user's language and padded, the second as it is."""
    names = headings(*(name for name, _ in rows))
    width = max(map(n_cells, names))
    return "\n".join(f"  {pad(name, width)}  {value}" for name, (_, value) in zip(names, rows, strict=True))


def n_cells(text: str) -> int:
    """Return the width of a text in terminal cells; most Japanese characters take two."""
    from rich.cells import cell_len

    return cell_len(text)


def pad(text: str, width: int) -> str:
    """Return a text padded with spaces to ``width`` cells of a terminal."""
    return text + " " * (width - n_cells(text))


def _pad_left(text: str, width: int) -> str:
    return " " * (width - n_cells(text)) + text


def headings(*names: str) -> list[str]:
    """Return names of rows or columns in the user's language."""
    return [translated(name) for name in names]


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a header and rows as a table: the first column left-aligned, the others right-aligned."""
    table = [header, *rows]
    widths = [max(map(n_cells, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join((_pad_left if i else pad)(cell, widths[i]) for i, cell in enumerate(row)) for row in table)
    return "\n".join(f"  {line.rstrip()}" for line in lines)


def duration(seconds: float) -> str:
    """Return a duration for people, in the user's language: 40 s, 12 min, 3.5 h, 2.1 days."""
    if seconds >= 2 * 86_400:
        return translated(msg("{n:.1f} days", n=seconds / 86_400))
    if seconds >= 2 * 3_600:
        return translated(msg("{n:.1f} h", n=seconds / 3_600))
    return translated(msg("{n:.0f} min", n=seconds / 60) if seconds >= 120 else msg("{seconds:.0f} s", seconds=seconds))


def show_stream(prompt: str, pieces: Iterable[str]) -> str:
    """Print a prompt and its continuation while it is generated; return the continuation.

    Raises `OSError` if they cannot be written.
    """
    deliver(prompt, end="")
    written = ""
    for piece in pieces:
        deliver(piece, end="")
        written += piece
    deliver("")
    return written


def asked() -> Iterator[str]:
    """Yield the lines that are typed, or that come through a pipe, until their end; empty ones are left out."""
    while True:
        try:
            line = input("> " if is_terminal() and sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        except UnicodeDecodeError:
            raise ConfigError("standard input is not UTF-8; type or send UTF-8") from None
        if line:
            yield line


class Answer(Protocol):
    """The function that `answering` yields."""

    def __call__(self, facts: Mapping[str, Any], *lines: str) -> None:
        """Print the result of a command, as facts (JSON) or as lines."""


@contextmanager
def answering(as_json: bool, is_product: bool = False) -> Iterator[Answer]:
    """Yield a function that prints lines, or with ``as_json`` the facts as one line of JSON.

    With ``as_json`` all other output goes to standard error, so standard output is JSON only. ``is_product`` is for
    commands whose only result is this output: the function raises `OSError` if it cannot write.
    """
    out = _strict(sys.stdout) if is_product else sys.stdout
    if not as_json:
        yield lambda _facts, *lines: say(*lines, file=out)
        return
    with redirect_stdout(sys.stderr):
        yield lambda facts, *_lines: put(json.dumps(facts, ensure_ascii=False, default=str), file=out)


@contextmanager
def busy(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show the progress of a long step in a terminal; yield a function that takes the number of finished items.

    With a ``total`` there is a progress bar. Without a terminal nothing is shown.
    """
    if not is_terminal():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    kinds = [BarColumn(), TimeRemainingColumn(compact=True)] if total else [TimeElapsedColumn()]
    bar = Progress(
        SpinnerColumn("line"),
        TextColumn("{task.description} {task.fields[count]}"),
        *kinds,
        transient=True,
        console=Console(file=sys.stdout),
    )
    with bar:
        task = bar.add_task(visible(translated(what)), total=total, count="")
        of = f"/{total:,}" if total else ""
        yield lambda done: bar.update(task, completed=done, count=f"{done:,}{of}")


def counted(items: Iterable[T], show: Callable[[int], None], every: int = 100) -> Iterator[T]:
    """Yield items, and show their number so far with a function from `busy`."""
    for i, item in enumerate(items):
        if i % every == 0:
            show(i)
        yield item
