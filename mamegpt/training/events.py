"""What a training tells while it runs, and how it is heard: events, and the watchers that take them.

A watcher is opened with `Started` when the loop begins and closed when it ends, however that is; in between it hears
every event. Terminal, loggers and the live report are watchers; the trainer knows none of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mamegpt.config import TrainConfig
from mamegpt.errors import first_line
from mamegpt.models.base import LanguageModel
from mamegpt.run.metrics import Quality
from mamegpt.system.console import say
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = [
    "EpochEnded",
    "Event",
    "Listener",
    "Saved",
    "Started",
    "Stepped",
    "Validated",
    "Validating",
    "Watcher",
    "watching",
]


@dataclass(frozen=True)
class Started:
    """A run begins, or goes on after ``step`` steps of ``n_steps``.

    ``model`` is the one that is trained, for whoever wants to see it write; None where it is not in one process. Of a
    run that has a time instead of steps, this is ``budget_s`` (else 0), with ``seconds_left`` of it.
    """

    run: Path
    config: TrainConfig
    tokenizer: Tokenizer
    model: LanguageModel | None
    step: int
    n_steps: int
    budget_s: float = 0.0
    seconds_left: float = 0.0


@dataclass(frozen=True)
class Stepped:
    """Some steps were made: their ``records`` as in ``metrics.jsonl``, and what is known after the last of them.

    ``memory_bytes`` is the most that this process has held up to now.
    """

    records: Sequence[Mapping[str, Any]]
    n_steps: int
    tokens_per_s: float
    seconds_left: float
    memory_bytes: int


@dataclass(frozen=True)
class EpochEnded:
    """All windows were seen once more; ``loss`` is the mean of that epoch's steps."""

    epoch: int
    step: int
    loss: float


@dataclass(frozen=True)
class Validating:
    """A validation has come so far, a share of 1."""

    share: float


@dataclass(frozen=True)
class Validated:
    """The quality after a step was measured; ``is_result`` if on the whole text in float32, after the last step."""

    step: int
    n_steps: int
    quality: Quality
    is_result: bool = False


@dataclass(frozen=True)
class Saved:
    """A checkpoint is complete."""

    step: int
    path: Path


Event = Stepped | EpochEnded | Validating | Validated | Saved
Listener = Callable[[Event], None]
Watcher = Callable[[Started], AbstractContextManager[Listener]]


@contextmanager
def watching(watchers: Iterable[Watcher], started: Started) -> Iterator[Listener]:
    """Open all watchers; each of them hears every event that the yielded listener is given.

    A watcher that cannot write (`OSError`) is reported and hears no more; the training continues.
    """
    with ExitStack() as stack:
        listeners = [stack.enter_context(_dispensable(watcher(started))) for watcher in watchers]

        def tell(event: Event) -> None:
            for listener in listeners:
                listener(event)

        yield tell


@contextmanager
def _dispensable(opened: AbstractContextManager[Listener]) -> Iterator[Listener]:
    """A watcher that a failed write ends, and nothing else with it."""
    listener = opened.__enter__()
    works = True

    def listen(event: Event) -> None:
        nonlocal works
        try:
            if works:
                listener(event)
        except OSError as error:
            works = False
            _report(error)

    try:
        yield listen
    finally:
        try:
            opened.__exit__(*sys.exc_info())
        except OSError as error:
            _report(error)


def _report(error: OSError) -> None:
    place = error.filename or "the output of a watcher"
    say(f"warning: {place} cannot be written ({first_line(error)}); continuing without it")
