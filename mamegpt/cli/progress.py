"""Progress of training: a live view in a terminal, plain lines elsewhere, or JSON."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from rich.cells import set_cell_size
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mamegpt.cli.console import busy, duration, is_terminal, say
from mamegpt.cli.language import translated
from mamegpt.generation.settings import Sampling
from mamegpt.generation.stream import generate
from mamegpt.messages import Message, msg, tally
from mamegpt.system.shell import command
from mamegpt.text.display import sparkline, visible
from mamegpt.training.events import (
    BuildingEngine,
    CompileFailed,
    CompileMeasured,
    Compiling,
    ConversationsRead,
    DeviceNotice,
    EarlyStop,
    Ended,
    EngineMeasured,
    EpochEnded,
    Event,
    FittingBigrams,
    LabelledTextsRead,
    MachineChanged,
    MicroBatchHalved,
    NgramsLeftOut,
    NoEngine,
    PrecisionMeasured,
    Quarantined,
    RolledBack,
    Saved,
    Started,
    StepEvent,
    StopRequested,
    ThreadsRestored,
    Tokenized,
    Tokenizing,
    UnknownTokens,
    Validated,
    Validating,
    Watcher,
    WatcherFailed,
)

__all__ = ["json_lines", "show_progress"]

SAMPLE_TOKENS = 48
SAMPLING = Sampling(temperature=0.7, top_p=0.9)
REDRAWS_PER_S = 2
QUIET_S = 30.0
"""Seconds without output, outside a terminal, after which a validation reports its progress."""


def show_progress() -> Watcher:
    """Watch a training on standard output: a live view in a terminal, plain lines elsewhere."""
    notices = _notices()
    steps: Watcher | None = None

    def on_event(event: Event) -> None:
        nonlocal steps
        notices(event)
        if isinstance(event, Started):
            steps = _live(event) if is_terminal() else _plain(event)
        elif steps is not None:
            steps(event)

    return on_event


def json_lines(write: Callable[[Mapping[str, Any]], object]) -> Watcher:
    """Watch a training as JSON objects with an ``event``: step, epoch, validation or saved.

    A step has the fields of the last step's line in ``metrics.jsonl`` and those of `StepEvent`, a validation those of
    `Quality`. Other events are printed as lines, as by `show_progress`.
    """
    notices = _notices()

    def on_event(event: Event) -> None:
        notices(event)
        match event:
            case StepEvent(records):
                rest = {name: value for name, value in vars(event).items() if name != "records"}
                write({"event": "step", **records[-1], **rest})
            case EpochEnded():
                write({"event": "epoch", **asdict(event)})
            case Validated(step, n_steps, quality):
                write({"event": "validation", "step": step, "n_steps": n_steps, **quality.to_dict()})
            case Saved(step, path) if step:  # step 0 is the model that the run starts from
                write({"event": "saved", "step": step, "path": str(path)})

    return on_event


NOTICES: dict[type[Event], Message] = {
    ThreadsRestored: msg(
        "threads: {n_threads}, with which the run began, instead of {n_default}, so that its weights stay the same"
    ),
    EarlyStop: msg(
        "stopped early at step {step}, with the model of step {best_step}: later validations were no better"
    ),
    UnknownTokens: msg(
        "warning: {share:.2%} of the tokens are unknown characters, which the model cannot write, and its bits per "
        "character look better than they are; a tokenizer made with mamegpt tokenizer has no unknown characters"
    ),
    BuildingEngine: msg("building the native engine with {compiler}, once; this takes some seconds ..."),
    NoEngine: msg("engine: PyTorch, since the native one cannot be used ({reason})"),
    EngineMeasured: msg(
        "engine: {engine} in {precision}, chosen by measurement ({speedup:.2f}x as fast as the other engine)"
    ),
    PrecisionMeasured: msg("precision: {precision}, chosen by measurement ({speedup:.1f}x as fast as the alternative)"),
    MicroBatchHalved: msg(
        "the memory does not suffice for {rows} sequences in a forward pass; trying {fewer}, which gives the same "
        "gradient"
    ),
    Compiling: msg("compiling the model (worthwhile for a run of this length) ..."),
    CompileFailed: msg("warning: torch.compile does not work here ({reason}); continuing without it"),
    CompileMeasured: msg("compile: {compile} (step time {time_ratio:.2f}x)"),
    Quarantined: msg("{problem}; the checkpoint was set aside"),
    RolledBack: msg("{problem}; rolling back to step {step} and skipping {n_skipped} batches"),
}
"""Lines about events that are all in the fields of these."""


def _notices() -> Watcher:
    """Print a line for each event that happens once, and show the progress of tokenizing."""
    stack = contextlib.ExitStack()
    show: Callable[[int], None] | None = None

    def on_event(event: Event) -> None:
        nonlocal show
        if template := NOTICES.get(type(event)):
            say(msg(template, **vars(event)))
        match event:
            case MachineChanged(before, now):
                was, is_ = (", ".join(f"{name} {fact}" for name, fact in facts.items()) for facts in (before, now))
                say(
                    msg(
                        "warning: the run began with {before} and continues with {now}: its weights will differ "
                        "in the last bits",
                        before=was,
                        now=is_,
                    )
                )
            case DeviceNotice(text):
                say(text)
            case Tokenizing(data, n_documents):
                if show is None:
                    say(msg("tokenizing {data} ...", data=data))
                    show = stack.enter_context(busy(msg("tokenizing")))
                show(n_documents)
            case Tokenized(n_tokens, n_documents, n_characters, elapsed_s):
                stack.close()
                show = None
                say(
                    msg(
                        "{n_tokens:,} tokens of {n_documents:,} documents, {characters_per_token:.3f} characters "
                        "each, in {elapsed_s:.1f} s",
                        n_tokens=n_tokens,
                        n_documents=n_documents,
                        characters_per_token=n_characters / n_tokens,
                        elapsed_s=elapsed_s,
                    )
                )
            case ConversationsRead() | LabelledTextsRead():
                _describe_data(event)
            case FittingBigrams(share):
                if show is None:
                    say(msg("fitting the initial weights to the bigram counts of the text ..."))
                    show = stack.enter_context(busy(msg("fitting"), total=100))
                show(round(100 * share))
                if share == 1:
                    stack.close()
                    show = None
            case NgramsLeftOut(0):
                say(msg("n-gram counts: not used; this text is too short for them"))
            case NgramsLeftOut(loss):
                say(
                    msg(
                        "n-gram counts: not used; this text is so regular ({loss:.2f} nats per token by counts alone) "
                        "that the model learns faster without them",
                        loss=loss,
                    )
                )
            case Started():
                _describe(event)
            case StopRequested():
                say("", msg("stopping after this step (once more to stop at once)"))
            case WatcherFailed(place, reason):
                place = place or msg("the output of a watcher")
                say(
                    msg(
                        "warning: {place} cannot be written ({reason}); continuing without it",
                        place=place,
                        reason=reason,
                    )
                )
            case Ended():
                stack.close()

    return on_event


def _describe_data(read: ConversationsRead | LabelledTextsRead) -> None:
    """Print what there is to learn from."""
    if isinstance(read, ConversationsRead):
        numbers = {"n_train": read.n_rows["train"], "n_val": read.n_rows.get("val", 0)}
        columns = " / ".join(read.columns)
        if read.are_pairs:
            say(
                msg(
                    "pairs of answers: {n_train:,} to learn from, {n_val:,} held out (columns: {columns})",
                    **numbers,
                    columns=columns,
                )
            )
        else:
            say(
                msg(
                    "conversations: {n_train:,} to learn from, {n_val:,} held out (columns: {columns})",
                    **numbers,
                    columns=columns,
                )
            )
    else:
        say(
            msg(
                "texts: {n_train:,} to learn from, {n_val:,} held out; labels: {labels}",
                n_train=read.n_texts["train"],
                n_val=read.n_texts.get("val", 0),
                labels=tally(read.labels),
            )
        )
    if read.dropped:
        say(msg("rows left out: {reasons}", reasons=tally(read.dropped)))
    if isinstance(read, LabelledTextsRead):
        if read.n_cut:
            say(msg("texts cut to the context of the model: {n:,}", n=read.n_cut))
    elif read.n_text_tokens:
        say(msg("text read beside them: {n:,} tokens", n=read.n_text_tokens))
    else:
        say(msg("no text is read beside them, so that the model forgets some of what it read before"))


def _describe(started: Started) -> None:
    """Print the settings of the training that begins."""
    config, n_steps = started.config, f"{started.n_steps:,}"
    n_all = msg("about {n}", n=n_steps) if started.budget_s else n_steps
    kind = f"{config.precision}, compiled" if config.compile == "true" else config.precision
    held_out = msg("none") if started.n_val_tokens is None else msg("{n:,} tokens", n=started.n_val_tokens)
    say(
        msg(
            "device: {device}, {kind}, {n_processes} process(es), {n_threads} threads",
            device=started.device,
            kind=kind,
            n_processes=started.n_processes,
            n_threads=started.n_threads,
        ),
        msg(
            "model: {n_parameters:,} parameters, {n_layers} layers, hidden size {emb_dim}",
            n_parameters=started.n_parameters,
            n_layers=config.n_layers,
            emb_dim=config.emb_dim,
        ),
        msg(
            "training data: {n_train_tokens:,} tokens, {windows_per_epoch:,} sequences per epoch; "
            "validation data: {held_out}",
            n_train_tokens=started.n_train_tokens,
            windows_per_epoch=started.windows_per_epoch,
            held_out=held_out,
        ),
        msg(
            "steps: {step:,}/{n_all}, batch size {batch_size}",
            step=started.step,
            n_all=n_all,
            batch_size=config.batch_size,
        ),
    )
    if started.reserve_s >= 1:
        say(
            msg(
                "time: {time}, about {reserve_s:.0f} s of it for the last validation",
                time=duration(started.budget_s),
                reserve_s=started.reserve_s,
            )
        )
    if started.is_finished:
        longer = command("train", "--resume", started.run, "--more-minutes", 10)
        say(msg("{run} is finished; to train it for longer: {longer}", run=started.run, longer=longer))


def _plain(started: Started) -> Watcher:
    """Print a line every few steps, for each epoch and validation, and during a long validation."""
    every = started.config.log_every_steps
    said_s = time.monotonic()

    def on_event(event: Event) -> None:
        nonlocal said_s
        match event:
            case StepEvent():
                record = event.records[-1]
                step = record["step"]
                if not (step % every == 0 or step in (started.step + 1, event.n_steps)):
                    return
                place, left = _place(started, step, event.n_steps), _clock(event.seconds_left)
                facts = {"place": place, "tokens_per_s": event.tokens_per_s, "left": left}
                if "reward" in record:
                    say(
                        msg(
                            "step {place} - reward {reward:.3f} - {tokens_per_s:,.0f} tokens/s - {left} left",
                            reward=record["reward"],
                            **facts,
                        )
                    )
                else:
                    say(
                        msg(
                            "step {place} - loss {loss:.4f} - {tokens_per_s:,.0f} tokens/s - {left} left",
                            loss=record["loss"],
                            **facts,
                        )
                    )
            case Validating(share):
                if time.monotonic() < said_s + QUIET_S:
                    return
                say(msg("validating, {share:.0%} done", share=share))
            case EpochEnded() | Validated():
                say(_line(started, event))
            case _:
                return
        said_s = time.monotonic()

    return on_event


def _place(started: Started, step: int, n_steps: int) -> str:
    """Return the step and the number of steps, which a run with a time budget does not know before its end."""
    return f"{step}" if started.budget_s else f"{step}/{n_steps}"


def _clock(seconds: float) -> str:
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"


def _line(started: Started, event: EpochEnded | Validated) -> str:
    if isinstance(event, EpochEnded):
        return msg(
            "epoch {epoch} ends at step {step} - mean loss {loss:.4f}",
            epoch=event.epoch,
            step=event.step,
            loss=event.loss,
        )
    quality = event.quality
    if quality.reward is not None:
        return msg(
            "step {step} - validation: mean reward {reward:.3f}, KL {kl:.4f}, {answer_tokens:.1f} tokens an answer, "
            "{distinct:.0%} of {n:,} answers different",
            step=_place(started, event.step, event.n_steps),
            reward=quality.reward,
            kl=quality.kl,
            answer_tokens=quality.answer_tokens,
            distinct=quality.distinct,
            n=quality.n_tokens,
        )
    if quality.margin is not None:
        return msg(
            "step {step} - validation loss {loss:.4f} - accuracy {accuracy:.1%}, reward margin {margin:.3f} on {n:,} "
            "pairs in {dtype}",
            step=_place(started, event.step, event.n_steps),
            loss=quality.loss,
            accuracy=quality.accuracy,
            margin=quality.margin,
            n=quality.n_tokens,
            dtype=quality.dtype,
        )
    if quality.accuracy is not None:
        return msg(
            "step {step} - validation loss {loss:.4f} - accuracy {accuracy:.1%} on {n_texts:,} texts in {dtype}",
            step=_place(started, event.step, event.n_steps),
            loss=quality.loss,
            accuracy=quality.accuracy,
            n_texts=quality.n_tokens,
            dtype=quality.dtype,
        )
    return msg(
        "step {step} - validation loss {loss:.4f} - {bits_per_byte:.4f} bits/byte - "
        "{bits_per_character:.4f} bits/character on {n_characters:,} of {of_n_characters:,} "
        "characters in {dtype}",
        step=_place(started, event.step, event.n_steps),
        loss=quality.loss,
        bits_per_byte=quality.bits_per_byte,
        bits_per_character=quality.bits_per_character,
        n_characters=quality.n_characters,
        of_n_characters=quality.of_n_characters,
        dtype=quality.dtype,
    )


def _live(started: Started) -> Watcher:
    """Show a view of a few lines that is redrawn, with epochs and validations above it."""
    view = _View(started)
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    live = Live(view, console=console, refresh_per_second=REDRAWS_PER_S)
    live.start(refresh=True)

    def on_event(event: Event) -> None:
        if isinstance(event, EpochEnded | Validated):
            say(_line(started, event))
        view.on_event(event)
        if isinstance(event, Ended):
            live.stop()

    return on_event


class _View:
    """The content of the live view, as a renderable of rich."""

    def __init__(self, started: Started) -> None:
        self.started = started
        self.values: list[float] = []
        """Of each step the reward, if it has one, else the loss."""
        self.curve = ""
        self.last: StepEvent | None = None
        self.heard_s = time.monotonic()
        self.seconds_left = started.seconds_left
        self.validating: float | None = None
        self.written: tuple[int, str] | None = None

    def on_event(self, event: Event) -> None:
        """Process an event; after a validation, generate a sample, if the tokenizer has a start token."""
        if isinstance(event, StepEvent):
            self.values += [record.get("reward", record["loss"]) for record in event.records]
            self.curve = sparkline(self.values, width=40)
            self.last, self.heard_s, self.seconds_left = event, time.monotonic(), event.seconds_left
        self.validating = event.share if isinstance(event, Validating) else None
        if isinstance(event, Validated) and not event.is_result and self._can_write:
            self.written = event.step, self._sample()

    @property
    def _can_write(self) -> bool:
        return self.started.model is not None and self.started.tokenizer.start_id is not None

    def _sample(self) -> str:
        """Return the beginning of a text that the model generates."""
        model = self.started.model
        assert model is not None
        was_training = model.training
        text = generate(model, self.started.tokenizer, "", SAMPLE_TOKENS, SAMPLING)
        model.train(was_training)
        return " ".join(text.split())

    def __rich_console__(self, console: Console, options: object) -> Iterator[Group]:
        """Draw the progress bar, the latest measurements, and the newest sample, cut to the width."""
        step, n_steps, budget_s = self.started.step, self.started.n_steps, self.started.budget_s
        facts = ""
        left_s = max(0.0, self.seconds_left - (time.monotonic() - self.heard_s))
        if self.last is not None:
            record = self.last.records[-1]
            step, n_steps = record["step"], self.last.n_steps
            facts = translated(
                msg(
                    "{tokens_per_s:,.0f} tokens/s  {memory_gb:.2f} GB  gradient {grad_norm:.2f}  lr {lr:.1e}",
                    tokens_per_s=self.last.tokens_per_s,
                    memory_gb=self.last.memory_bytes / 1e9,
                    grad_norm=math.inf if record["grad_norm"] is None else record["grad_norm"],
                    lr=record["lr"],
                )
            )
        place = f"{step:,}" if budget_s else f"{step:,}/{n_steps:,}"
        left = _clock(left_s) if budget_s or self.last is not None else "-:--"
        head = Table.grid(padding=(0, 2), expand=True)
        head.add_column()
        head.add_column(ratio=1)
        head.add_column(justify="right")
        head.add_row(
            translated(msg("step {place}", place=place))
            if self.validating is None
            else translated(msg("validating, {validating:.0%} done", validating=self.validating)),
            ProgressBar(total=budget_s or n_steps, completed=budget_s - left_s if budget_s else step),
            translated(msg("{left} left", left=left)),
        )
        lines: list[Table | Text] = [head]
        if self.last is not None:
            value = msg("loss {loss:.4f}  {curve}", loss=self.values[-1], curve=self.curve)
            if "reward" in self.last.records[-1]:
                value = msg("reward {reward:.3f}  {curve}", reward=self.values[-1], curve=self.curve)
            lines += [Text(translated(value)), Text(facts)]
        if self.written is not None:
            lines.append(
                Text(
                    _cut(
                        visible(
                            translated(
                                msg("sample at step {step:,}: {text}", step=self.written[0], text=self.written[1])
                            )
                        ),
                        console.width,
                    )
                )
            )
        yield Group(*lines)


def _cut(text: str, width: int) -> str:
    """Return as much of a text as fits into a line; wide characters take two cells."""
    return set_cell_size(text, width).rstrip()
