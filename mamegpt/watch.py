"""What a training tells while it runs, and how it is heard: events, and the watchers that take them.

A watcher is opened with `Started` when the loop begins and closed when it ends, however that is; in between it hears
every event. Terminal, loggers and the live report are watchers; the trainer knows none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mamegpt.config import TrainConfig
from mamegpt.evaluate import Quality
from mamegpt.models import LanguageModel
from mamegpt.tokenizer import Tokenizer

__all__ = ["EpochEnded", "Event", "Listener", "Saved", "Started", "Stepped", "Validated", "Watcher", "watching"]


@dataclass(frozen=True)
class Started:
    """A run begins, or goes on after ``step`` steps of ``n_steps``.

    ``model`` is the one that is trained, for whoever wants to see it write; None where it is not in one process.
    """

    run: Path
    config: TrainConfig
    tokenizer: Tokenizer
    model: LanguageModel | None
    step: int
    n_steps: int


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
class Validated:
    """The quality after a step was measured."""

    step: int
    n_steps: int
    quality: Quality


@dataclass(frozen=True)
class Saved:
    """A checkpoint is complete."""

    step: int
    path: Path


Event = Stepped | EpochEnded | Validated | Saved
Listener = Callable[[Event], None]
Watcher = Callable[[Started], AbstractContextManager[Listener]]


@contextmanager
def watching(watchers: Iterable[Watcher], started: Started) -> Iterator[Listener]:
    """Open all watchers; what is told to the one listener that is yielded, each of them hears in turn."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(watcher(started)) for watcher in watchers]

        def tell(event: Event) -> None:
            for listener in listeners:
                listener(event)

        yield tell
