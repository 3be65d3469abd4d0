"""Events of a training run, and the watchers that receive them.

A watcher is a function of one event, called in the main process: the terminal view, loggers and the live report are
watchers, and so is ``print``. `train` itself prints nothing. Events of the set-up come first, then `Started`, then
those of the loop; `Ended` is always the last. A run that is rolled back has all of that once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mamegpt.config import TrainConfig
from mamegpt.errors import first_line
from mamegpt.models.base import LanguageModel
from mamegpt.run.metrics import Quality
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = [
    "BuildingEngine",
    "CompileFailed",
    "CompileMeasured",
    "Compiling",
    "ConversationsRead",
    "DeviceNotice",
    "EarlyStop",
    "Emit",
    "Ended",
    "EngineMeasured",
    "EpochEnded",
    "Event",
    "FittingBigrams",
    "LabelledTextsRead",
    "MachineChanged",
    "MicroBatchHalved",
    "NgramsLeftOut",
    "NoEngine",
    "PrecisionMeasured",
    "Quarantined",
    "RolledBack",
    "Saved",
    "Started",
    "StepEvent",
    "StopRequested",
    "ThreadsRestored",
    "Tokenized",
    "Tokenizing",
    "UnknownTokens",
    "Validated",
    "Validating",
    "Watcher",
    "WatcherFailed",
    "watching",
]


class Event:
    """Something that happened in a training run."""


@dataclass(frozen=True)
class MachineChanged(Event):
    """The facts about the machine that changed since the run began; the last bits of its weights will differ."""

    before: Mapping[str, Any]
    now: Mapping[str, Any]


@dataclass(frozen=True)
class DeviceNotice(Event):
    """A device of this machine is not used; ``text`` says which, and why."""

    text: str


@dataclass(frozen=True)
class ThreadsRestored(Event):
    """A resumed run computes on as many threads as it began with, instead of the ``n_default`` of this process."""

    n_threads: int
    n_default: int


@dataclass(frozen=True)
class Tokenizing(Event):
    """The text ``data`` is being tokenized; ``n_documents`` were read so far."""

    data: str
    n_documents: int


@dataclass(frozen=True)
class Tokenized(Event):
    """The text was tokenized in ``elapsed_s`` seconds; the counts are of its training split."""

    n_tokens: int
    n_documents: int
    n_characters: int
    elapsed_s: float


@dataclass(frozen=True)
class ConversationsRead(Event):
    """Conversations were read from ``columns``, or pairs of them, that differ in the last answer.

    The numbers, of conversations or pairs, are by split, ``dropped`` rows by reason. Beside them a run reads
    ``n_text_tokens`` of text.
    """

    columns: Sequence[str]
    n_rows: Mapping[str, int]
    are_pairs: bool
    dropped: Mapping[str, int]
    n_text_tokens: int


@dataclass(frozen=True)
class LabelledTextsRead(Event):
    """Texts with labels were read: their numbers by label and by split, ``dropped`` rows by reason.

    ``n_cut`` of them were cut to the context of the model.
    """

    labels: Mapping[str, int]
    n_texts: Mapping[str, int]
    dropped: Mapping[str, int]
    n_cut: int


@dataclass(frozen=True)
class EarlyStop(Event):
    """The validations after ``best_step`` were no better: the run ends at ``step`` with the model of ``best_step``."""

    step: int
    best_step: int


@dataclass(frozen=True)
class FittingBigrams(Event):
    """The initial weights are being fitted to the bigram counts of the text; ``share`` of that is done."""

    share: float


@dataclass(frozen=True)
class NgramsLeftOut(Event):
    """The model does not learn from n-gram counts: they predict this regular text with ``loss`` nats per token.

    0 stands for a text too short to measure that.
    """

    loss: float


@dataclass(frozen=True)
class UnknownTokens(Event):
    """A share of all tokens stands for characters that the tokenizer lacks, so the model cannot write them."""

    share: float


@dataclass(frozen=True)
class BuildingEngine(Event):
    """The native engine is being compiled by ``compiler``, once for this version of it."""

    compiler: str


@dataclass(frozen=True)
class NoEngine(Event):
    """The native engine cannot be used here, for a ``reason``; PyTorch computes instead."""

    reason: str


@dataclass(frozen=True)
class EngineMeasured(Event):
    """``engine`` was chosen because it is ``speedup`` times as fast as the other."""

    engine: str
    precision: str
    speedup: float


@dataclass(frozen=True)
class PrecisionMeasured(Event):
    """``precision`` was chosen because it is ``speedup`` times as fast as the other."""

    precision: str
    speedup: float


@dataclass(frozen=True)
class MicroBatchHalved(Event):
    """The memory does not suffice for ``rows`` sequences in a forward pass, so that there are ``fewer``."""

    rows: int
    fewer: int


@dataclass(frozen=True)
class Compiling(Event):
    """The model is being compiled, to measure whether that pays."""


@dataclass(frozen=True)
class CompileFailed(Event):
    """The compiler does not work here; the run continues without it."""

    reason: str


@dataclass(frozen=True)
class CompileMeasured(Event):
    """Whether the model is compiled ("true" or "false"): a step takes ``time_ratio`` of the time of an eager one."""

    compile: str
    time_ratio: float


@dataclass(frozen=True)
class Quarantined(Event):
    """A damaged checkpoint was renamed; ``problem`` says what is wrong with it."""

    problem: str


@dataclass(frozen=True)
class Started(Event):
    """The loop begins, or continues after ``step`` steps of ``n_steps``; ``is_finished`` if no step is left to do.

    ``model`` is the one that is trained, for a watcher that generates from it; None if it is not in one process, or
    generates no text. A run with a time budget has ``budget_s`` seconds (else 0), ``seconds_left`` of them, and keeps
    ``reserve_s`` for the last validation. ``n_val_tokens`` is None without validation text.
    """

    run: Path
    config: TrainConfig
    tokenizer: Tokenizer
    model: LanguageModel | None
    step: int
    n_steps: int
    budget_s: float
    reserve_s: float
    seconds_left: float
    is_finished: bool
    device: str
    n_processes: int
    n_threads: int
    n_parameters: int
    n_train_tokens: int
    n_val_tokens: int | None
    windows_per_epoch: int


@dataclass(frozen=True)
class StepEvent(Event):
    """Some steps were made: their ``records`` as in ``metrics.jsonl``, and the state after the last of them.

    ``memory_bytes`` is the most that this process has held up to now.
    """

    records: Sequence[Mapping[str, Any]]
    n_steps: int
    tokens_per_s: float
    seconds_left: float
    memory_bytes: int


@dataclass(frozen=True)
class EpochEnded(Event):
    """All windows were seen once more; ``loss`` is the mean of that epoch's steps."""

    epoch: int
    step: int
    loss: float


@dataclass(frozen=True)
class Validating(Event):
    """A validation is done to a share of 1."""

    share: float


@dataclass(frozen=True)
class Validated(Event):
    """The quality after a step was measured; ``is_result`` if in float32 on all that there was time for, after the last
    step.
    """

    step: int
    n_steps: int
    quality: Quality
    is_result: bool = False


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint is complete; that of step 0 holds the model that a run starts from."""

    step: int
    path: Path


@dataclass(frozen=True)
class StopRequested(Event):
    """A signal asked the run to stop after the current step."""


@dataclass(frozen=True)
class RolledBack(Event):
    """The run went back to the checkpoint of ``step`` because of a ``problem``, and skips ``n_skipped`` batches."""

    problem: str
    step: int
    n_skipped: int


@dataclass(frozen=True)
class WatcherFailed(Event):
    """A watcher could not write to ``place`` ("" if unknown) and receives no more events; the training continues."""

    place: str
    reason: str


@dataclass(frozen=True)
class Ended(Event):
    """No more events come; ``error`` is what ended the run, if anything did."""

    error: BaseException | None = None


Watcher = Callable[[Event], object]
Emit = Callable[[Event], None]


@contextmanager
def watching(watchers: Sequence[Watcher]) -> Iterator[Emit]:
    """Yield a function that hands an event to every watcher; each gets `Ended` at the end.

    A watcher that raises `OSError` gets no event but `Ended` from then on; the others are handed `WatcherFailed`.
    Ctrl-C at `Ended`, as in the last upload of a logger, ends that watcher and nothing else: the run is saved by then.
    """
    failed: set[int] = set()

    def emit(event: Event) -> None:
        for i, watcher in enumerate(watchers):
            if i not in failed or isinstance(event, Ended):
                try:
                    watcher(event)
                except OSError as error:
                    failed.add(i)
                    emit(WatcherFailed(str(error.filename or ""), first_line(error)))
                except KeyboardInterrupt:
                    if not isinstance(event, Ended):
                        raise

    try:
        yield emit
    except BaseException as error:
        emit(Ended(error))
        raise
    emit(Ended())
