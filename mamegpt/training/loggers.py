"""The figures of a training, also for TensorBoard, trackio or Weights & Biases: a watcher each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from mamegpt.config import Logger
from mamegpt.errors import require_packages
from mamegpt.training.events import Ended, Event, Started, StepEvent, Validated, Watcher

__all__ = ["logger"]

PROJECT = "mamegpt"

BITS: Sequence[str] = ("bits_per_byte", "bits_per_character")
FURTHER: Sequence[str] = ("accuracy", "margin", "reward", "kl", "answer_tokens", "distinct")
"""What is measured on labels, pairs of answers and rewards instead of bits."""

Write = Callable[[Mapping[str, float], int], None]
"""Takes figures by name, and the step they are of."""


def logger(name: Logger) -> Watcher:
    """Return the watcher that writes every step and validation to a logger; the library of the same name does the rest.

    TensorBoard's files lie in ``tensorboard`` in the run, wandb's in ``wandb`` there (offline unless WANDB_MODE says
    otherwise), trackio's where TRACKIO_DIR says. Raises `errors.ConfigError` if the library is not installed.
    """
    require_packages(f"--log {name}", [name], name)
    open_ = {"tensorboard": _tensorboard, "trackio": _trackio, "wandb": _wandb}[name]

    stack = ExitStack()
    write: Write | None = None

    def on_event(event: Event) -> None:
        nonlocal write
        if isinstance(event, Started):
            write = stack.enter_context(open_(event))
        elif isinstance(event, Ended):
            error = event.error
            stack.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
        elif write is not None:
            _send(event, write)

    return on_event


def _send(event: Event, write: Write) -> None:
    if isinstance(event, StepEvent):
        for record in event.records:
            names: Sequence[str] = ("loss", "lr", "grad_norm", "tokens", "reward", "answer_tokens")
            found = {f"train/{name}": record[name] for name in names if name in record}
            write({name: value for name, value in found.items() if value is not None}, record["step"])
        write({"speed/tokens_per_s": event.tokens_per_s, "speed/memory_bytes": event.memory_bytes}, record["step"])
    elif isinstance(event, Validated):
        curve, quality = "result" if event.is_result else "validation", event.quality
        names = BITS if quality.has_bits else FURTHER
        found = {f"{curve}/{name}": getattr(quality, name) for name in ("loss", *names)}
        write({name: value for name, value in found.items() if value is not None}, event.step)


@contextmanager
def _tensorboard(started: Started) -> Iterator[Write]:
    from torch.utils.tensorboard import SummaryWriter

    # What an interrupted run wrote past its last checkpoint comes again: TensorBoard is to forget it.
    with SummaryWriter(str(started.run / "tensorboard"), purge_step=started.step + 1) as writer:

        def write(figures: Mapping[str, float], step: int) -> None:
            for name, value in figures.items():
                writer.add_scalar(name, value, step)

        yield write


@contextmanager
def _trackio(started: Started) -> Iterator[Write]:
    import trackio

    trackio.init(project=PROJECT, name=started.run.name, resume="allow", config=started.config.to_dict())
    try:
        yield lambda figures, step: trackio.log(dict(figures), step=step)
    finally:
        trackio.finish()


@contextmanager
def _wandb(started: Started) -> Iterator[Write]:
    import wandb

    mode: Any = os.environ.get("WANDB_MODE", "offline")
    with wandb.init(
        project=PROJECT, name=started.run.name, dir=started.run, config=started.config.to_dict(), mode=mode
    ) as run:
        yield lambda figures, step: run.log(dict(figures), step=step)
