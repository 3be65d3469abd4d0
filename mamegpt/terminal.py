"""A training as a terminal shows it: a live view, plain lines where nothing can be redrawn, or JSON for machines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import Any

from rich.cells import set_cell_size
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mamegpt.console import is_terminal, say, sparkline
from mamegpt.generation import generate
from mamegpt.messages import translated
from mamegpt.sampling import Sampling
from mamegpt.watch import EpochEnded, Event, Listener, Saved, Started, Stepped, Validated, Watcher

__all__ = ["json_lines", "terminal"]

SAMPLE_TOKENS = 48
SAMPLING = Sampling(temperature=0.7, top_p=0.9)
REDRAWS_PER_S = 2


def terminal(started: Started) -> AbstractContextManager[Listener]:
    """Watch a training on standard output: live in a terminal, plain lines elsewhere."""
    return _live(started) if is_terminal() else _plain(started)


def json_lines(write: Callable[[Mapping[str, Any]], None]) -> Watcher:
    """Watch a training as JSON objects with an ``event``: step, epoch, validation or saved.

    A step has the fields of the last step's line in ``metrics.jsonl`` and those of `Stepped`, a validation those of
    `Quality`.
    """

    @contextmanager
    def watcher(started: Started) -> Iterator[Listener]:
        def listen(event: Event) -> None:
            match event:
                case Stepped(records):
                    rest = {name: value for name, value in vars(event).items() if name != "records"}
                    write({"event": "step", **records[-1], **rest})
                case EpochEnded():
                    write({"event": "epoch", **asdict(event)})
                case Validated(step, n_steps, quality):
                    write({"event": "validation", "step": step, "n_steps": n_steps, **asdict(quality)})
                case Saved(step, path):
                    write({"event": "saved", "step": step, "path": str(path)})

        yield listen

    return watcher


@contextmanager
def _plain(started: Started) -> Iterator[Listener]:
    """A line every few steps, and one for every epoch and validation."""
    every = started.config.log_every_steps

    def listen(event: Event) -> None:
        if isinstance(event, Stepped):
            step, loss = event.records[-1]["step"], event.records[-1]["loss"]
            if step % every == 0 or step == event.n_steps:
                minutes, seconds = divmod(round(event.seconds_left), 60)
                say(
                    f"step {step}/{event.n_steps} - loss {loss:.4f} - {event.tokens_per_s:,.0f} tokens/s - "
                    f"{minutes}:{seconds:02} left"
                )
        elif not isinstance(event, Saved):
            say(_line(event))

    yield listen


def _line(event: EpochEnded | Validated) -> str:
    if isinstance(event, EpochEnded):
        return f"epoch {event.epoch} ends at step {event.step} - mean loss {event.loss:.4f}"
    quality = event.quality
    return (
        f"step {event.step}/{event.n_steps} - validation loss {quality.loss:.4f} - "
        f"{quality.bits_per_byte:.4f} bits/byte - {quality.bits_per_character:.4f} bits/character "
        f"on {quality.n_characters:,} of {quality.of_n_characters:,} characters in {quality.dtype}"
    )


@contextmanager
def _live(started: Started) -> Iterator[Listener]:
    """A view of a few lines that is drawn anew; epochs and validations stand above it."""
    view = _View(started)
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    with Live(view, console=console, refresh_per_second=REDRAWS_PER_S):

        def listen(event: Event) -> None:
            if isinstance(event, EpochEnded | Validated):
                say(_line(event))
            view.hear(event)

        yield listen


class _View:
    """What the live view shows, as a renderable of rich."""

    def __init__(self, started: Started) -> None:
        self.started = started
        self.losses: list[float] = []
        self.curve = ""
        self.last: Stepped | None = None
        self.heard_s = time.monotonic()
        self.written: tuple[int, str] | None = None

    def hear(self, event: Event) -> None:
        """Take in an event; after a validation the model writes something, if its tokenizer has a way to begin."""
        if isinstance(event, Stepped):
            self.losses += [record["loss"] for record in event.records]
            self.curve = sparkline(self.losses, width=40)
            self.last, self.heard_s = event, time.monotonic()
        elif isinstance(event, Validated) and not event.is_result and self._can_write:
            self.written = event.step, self._sample()

    @property
    def _can_write(self) -> bool:
        return self.started.model is not None and self.started.tokenizer.start_id is not None

    def _sample(self) -> str:
        """The beginning of a text of its own."""
        model = self.started.model
        assert model is not None
        was_training = model.training
        text = generate(model, self.started.tokenizer, "", SAMPLE_TOKENS, SAMPLING)
        model.train(was_training)
        return " ".join(text.split())

    def __rich_console__(self, console: Console, options: object) -> Iterator[Group]:
        """Draw: the bar, what was measured last, and the newest sample cut to the width there is."""
        step, n_steps = self.started.step, self.started.n_steps
        facts = ""
        left = "-:--"
        if self.last is not None:
            record = self.last.records[-1]
            step, n_steps = record["step"], self.last.n_steps
            seconds_left = max(0.0, self.last.seconds_left - (time.monotonic() - self.heard_s))
            minutes, seconds = divmod(round(seconds_left), 60)
            left = f"{minutes}:{seconds:02}"
            facts = translated(
                f"{self.last.tokens_per_s:,.0f} tokens/s  {self.last.memory_bytes / 1e9:.2f} GB  "
                f"gradient {record['grad_norm']:.2f}  lr {record['lr']:.1e}"
            )
        head = Table.grid(padding=(0, 2), expand=True)
        head.add_column()
        head.add_column(ratio=1)
        head.add_column(justify="right")
        head.add_row(
            translated(f"step {step:,}/{n_steps:,}", part=True),
            ProgressBar(total=n_steps, completed=step),
            translated(f"{left} left", part=True),
        )
        lines: list[Table | Text] = [head]
        if self.last is not None:
            lines += [Text(translated(f"loss {self.losses[-1]:.4f}  {self.curve}")), Text(facts)]
        if self.written is not None:
            lines.append(
                Text(_cut(translated(f"writes at step {self.written[0]:,}: {self.written[1]}"), console.width))
            )
        yield Group(*lines)


def _cut(text: str, width: int) -> str:
    """As much of a text as fits into a line, with wide characters counted as two."""
    return set_cell_size(text, width).rstrip()
