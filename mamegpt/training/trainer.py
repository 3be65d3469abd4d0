"""Train a model: named set-up steps, then one loop, read from top to bottom.

A run is a folder; `run_files` says what is in it.

**Exact resume.** Weights after step n depend on the settings, the tokens, n and the number of processes and threads,
and on nothing else: data order and dropout are functions of (seed, step), so a run that is killed at any moment and
goes on from its last checkpoint ends with bitwise the weights of one that never stopped. (``--minutes`` follows the
clock; a run told to roll back also depends on which checkpoint was the newest when its loss went bad.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import math
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from mamegpt.config import TrainConfig
from mamegpt.data.shards import Split
from mamegpt.data.window_order import WindowOrder
from mamegpt.distributed import processes
from mamegpt.distributed.processes import World
from mamegpt.distributed.sharding import ByShares, birthplace, no_sync, spread, whole, whole_tensor
from mamegpt.errors import ConfigError, TrainingError
from mamegpt.models.base import LanguageModel
from mamegpt.models.registry import build_model, init_weights
from mamegpt.run import checkpoint
from mamegpt.run.checkpoint import Saver, State
from mamegpt.run.metrics import Quality
from mamegpt.run.run import Extension, Run
from mamegpt.system.console import output_may_fail, say
from mamegpt.system.files import write_json
from mamegpt.system.hardware import arithmetic, hardware, peak_memory, summary
from mamegpt.system.run_files import CHECKPOINTS, MACHINE_FILE
from mamegpt.system.shell import command
from mamegpt.training.autotune import Pace, extend
from mamegpt.training.events import EpochEnded, Saved, Started, Stepped, Validated, Validating, Watcher, watching
from mamegpt.training.forward import SummedLoss, micro_batch, product_dtype, recompute_blocks
from mamegpt.training.init_from import start_from
from mamegpt.training.loss_spikes import RolledBack, bad_loss, is_proven, roll_back, weights_not_finite
from mamegpt.training.metrics import Metrics
from mamegpt.training.optim import Optimizer, build_optimizer
from mamegpt.training.progress import terminal
from mamegpt.training.setup import (
    as_begun,
    is_of_this_job,
    keep_settings,
    own_folder,
    run_tokenizer,
    run_tokens,
    settled,
)
from mamegpt.training.validation import evaluate

__all__ = ["TrainResult", "train"]

PROBE_WINDOWS = 32
"""Windows of the validation text with which its time is measured."""
_ADVICE = "go on past it with --resume and --on-bad-loss rollback, or train again with a lower --lr"


@dataclass(frozen=True)
class TrainResult:
    """How a call of `train` ended. ``losses`` has a value, nats per token, for every step in ``metrics.jsonl``.

    ``is_main`` is true in the one process that is to speak of it.
    """

    out: Path
    step: int
    losses: list[float]
    quality: Quality | None
    n_parameters: int
    n_tokens: int
    elapsed_s: float
    interrupted: bool
    is_main: bool


def train(
    config: TrainConfig, *, resume: bool = False, intact: bool = False, more_steps: int = 0, more_minutes: float = 0.0,
    watchers: Sequence[Watcher] = (terminal,),
) -> TrainResult:  # fmt: skip
    """Train a model into the folder ``config.out``; with ``resume``, go on with the run that is there.

    With ``resume``, a finished run is trained for ``more_steps`` steps or ``more_minutes`` minutes more, in which the
    learning rate rises and falls once more; the run records that, so an interrupted extension resumes like any run.
    With ``intact``, checkpoints that are newer than the newest intact one are set aside first. What ``torchrun`` starts
    again after a process died goes on by itself. Ctrl-C (or SIGTERM, SIGHUP) finishes the step, saves and returns with
    ``interrupted`` set. ``watchers`` hear of its progress, in the main process.

    Raises `ConfigError` for settings that cannot work, `OutputError` if the folder exists (or, with ``resume``, is
    in use), `DataError` for text that is missing or too short, `CheckpointError` if the run was made with other
    settings, data or tokenizer or is damaged, and `TrainingError` for a bad loss (see `loss_spikes`). Also
    `TokenizerError` or `ModelError` for ``config.tokenizer`` or ``config.init_from`` that cannot be used, `OutputError`
    or `OSError` for a checkpoint that cannot be written, and `KeyboardInterrupt` if Ctrl-C and a way back coincide.
    """
    resume = resume or (processes.started_again() and is_of_this_job(Path(config.out)))
    with output_may_fail():
        while True:
            with contextlib.suppress(RolledBack):
                return _train(config, resume, intact, more_steps, more_minutes, watchers)
            resume = True  # for the checkpoint now says what to pass over
            more_steps, more_minutes = 0, 0.0  # it is extended by now


def _train(
    config: TrainConfig, resume: bool, intact: bool, more_steps: int, more_minutes: float, watchers: Sequence[Watcher]
) -> TrainResult:
    """One way from a start, or from a checkpoint, to the end of the run, to a signal, or to a bad loss."""
    called_s = time.perf_counter()  # what is done before the first step counts
    with (
        processes.join(config.device) as world,
        own_folder(config, resume, world) as run,
        as_begun(run, world),
    ):
        tokenizer = run_tokenizer(config, run, world)
        meta, splits = run_tokens(config, tokenizer, run, world)
        order = WindowOrder(
            len(splits["train"].tokens), config.context_length, config.batch_size, config.seed, config.samples_per_epoch
        )
        config = settled(config, run, tokenizer.vocab_size, world)

        torch.manual_seed(config.seed)
        with birthplace(config.sharding, world) as place:
            model = build_model(config.architecture, config.model(tokenizer.vocab_size))
        if place.type != "meta":
            model.to(world.device)
        if config.activation_checkpointing:
            recompute_blocks(model)
        summed_loss: nn.Module = SummedLoss(model, config.precision, compiled=config.compile == "true")
        n_parameters = sum(p.numel() for p in model.parameters())
        summed_loss = spread(summed_loss, model, config.sharding, world)
        starts_from = bool(config.init_from) and Run(run).latest() is None
        with ByShares():  # type: ignore[no-untyped-call]
            if place.type == "meta":
                init_weights(config.architecture, model)
            if starts_from:
                start_from(model, config.init_from)
        optimizer = build_optimizer(model, config)
        fresh = State(0, 0.0, config.fingerprint(), meta.fingerprint(), tokenizer.fingerprint)
        checkpoint.refuse_other(
            run / CHECKPOINTS, settings=fresh.settings, tokens=fresh.tokens, tokenizer=fresh.tokenizer
        )
        processes.barrier()  # all have looked for a checkpoint
        saver = functools.partial(Saver, run / CHECKPOINTS, config.keep_checkpoints, config.sharding == "full", world)
        with saver() as checkpoints:
            if starts_from:
                checkpoints.save(model, optimizer, fresh)  # the first checkpoint is what was given
        processes.barrier()
        if intact and world.is_main:
            for damage in checkpoint.set_damaged_aside(run / CHECKPOINTS):
                say(f"{damage}; set aside")
        processes.barrier()
        first = _restore(run, model, optimizer, fresh)
        keep_settings(config, run, world)
        first_step, begin = first.step, called_s - first.elapsed_s
        extensions = _extensions(run, config, first, more_steps, more_minutes, world)
        is_over = _is_over(config, first, extensions)
        metrics = Metrics(run, first_step, write=world.is_main, digest=first.metrics)
        val = splits.get("val")
        measure = functools.partial(
            evaluate, model, val.tokens, n_characters=val.meta.n_characters, n_bytes=val.meta.n_bytes,
            start_id=tokenizer.start_id, context_length=config.context_length, world=world,
        ) if val else None  # fmt: skip
        has_time = not is_over and bool(extensions[-1].minutes if extensions else config.minutes)
        reserve_s = _validation_s(measure, config, len(val.tokens)) if has_time and measure and val else 0.0
        pace = Pace(
            config, tokenizer.vocab_size, first_step, time.perf_counter() - begin, world, extensions, is_over, reserve_s
        )
        if world.is_main:
            if first_step == 0:
                facts = arithmetic(world.device, world.size) | dict(hardware())
                write_json(run / MACHINE_FILE, {"machine": summary(world.device)} | facts)
            _describe(config, order, n_parameters, splits, world, first_step, pace)
            if is_over:
                longer = command("train", "--resume", run, "--more-minutes", 10)
                say(f"{run} is finished; to train it for longer: {longer}")
        share = config.batch_size // world.size
        n_micro = math.ceil(share / micro_batch(config, share, world.device))
        targets_per_step = config.batch_size * config.context_length
        train_tokens = splits["train"].tokens
        step, stopping = first_step, False
        quality = metrics.quality
        model.train()
        mark = time.perf_counter()
        seconds_left = pace.seconds_left(step, mark - begin, 0.0)

        with (
            _stop_on_signal() as stop,
            watching(
                watchers if world.is_main else (),
                Started(
                    run,
                    config,
                    tokenizer,
                    model if world.size == 1 else None,
                    first_step,
                    pace.n_steps,
                    pace.budget_s,
                    seconds_left,
                ),
            ) as tell,
            saver(lambda step, path: tell(Saved(step, path))) as checkpoints,
        ):
            while step < pace.n_steps and not stopping:
                # The learning rate of this step.
                factor = pace.lr_factor(step)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak_lr"] * factor

                # Loss and gradient: a sum over targets, divided by how many there are in all processes together.
                x, y = order.batch(train_tokens, step + first.skipped, world.rank, world.size)
                inputs, targets = (  # n_micro x (n, context_length) each
                    torch.from_numpy(a).to(world.device).chunk(n_micro) for a in (x, y)
                )
                step_loss = torch.zeros((), device=world.device)
                for micro in range(n_micro):
                    _seed_dropout(config.seed, step, world.rank, micro)
                    with no_sync(summed_loss, micro < n_micro - 1):
                        loss = summed_loss(inputs[micro], targets[micro]) / targets_per_step
                        (loss * world.size).backward()  # DDP and FSDP take a mean; we want the sum
                    step_loss += loss.detach()

                # The update.
                grad_norm = _clipped(model, config.grad_clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                step += 1
                metrics.step(step, step_loss, factor * config.lr, grad_norm)

                # Most steps end here.
                stopping = processes.any_process(stop.asked, world.device)
                pace.update(step, time.perf_counter() - begin)
                is_last = step >= pace.n_steps
                logging = step % config.log_every_steps == 0 or step == first_step + 1
                validating = measure is not None and (step % config.eval_every_steps == 0 or is_last)
                saving = step % config.save_every_steps == 0 or is_last or stopping
                seen = step + first.skipped
                epoch_ends = order.epochs(seen) > order.epochs(seen - 1)
                if not (logging or validating or saving or epoch_ends):
                    continue

                # What happened since the last time.
                checkpoints.poll()
                now = time.perf_counter()
                n_new = metrics.n_unread
                tokens_per_s = n_new * targets_per_step / (now - mark)
                records = metrics.flush(targets_per_step, now - begin)
                bad = bad_loss(metrics.losses, n_new, step - len(metrics.losses))
                if bad := bad or (weights_not_finite(model, step) if saving else None):
                    told = f"{bad} of {run}, at {factor:.2f} of the peak learning rates"
                    if config.on_bad_loss == "stop":
                        raise TrainingError(f"{told}; {_ADVICE} (it was {config.lr:g})")
                    checkpoints.wait()
                    way_back = roll_back(run / CHECKPOINTS, metrics.losses, step, seen, now - begin, told, world)
                    if world.is_main:
                        say(way_back)
                    raise KeyboardInterrupt if stopping else RolledBack
                seconds_left = pace.seconds_left(step, now - begin, (now - mark) / n_new)
                tell(Stepped(records, pace.n_steps, tokens_per_s, seconds_left, peak_memory(world.device)))
                if epoch_ends and order.steps_per_epoch >= config.log_every_steps:
                    mean = statistics.fmean(metrics.losses[-order.steps_per_epoch :])
                    tell(EpochEnded(order.epochs(seen), step, mean))

                # How good the model is by now, on a sample; after the last step also on the whole split and in float32.
                if validating and val and measure:
                    look = functools.partial(measure, step=step, on_progress=lambda share: tell(Validating(share)))
                    with whole(summed_loss):
                        found = [look(max_tokens=config.val_tokens, product_dtype=product_dtype(config.precision))]
                        if is_last and (found[0].n_characters < val.meta.n_characters or config.precision != "fp32"):
                            found.append(look())
                    for quality in found:
                        metrics.validation(quality)
                        tell(Validated(step, pace.n_steps, quality, is_result=quality is not found[0]))

                if saving:
                    state = dataclasses.replace(
                        first, step=step, elapsed_s=time.perf_counter() - begin, metrics=metrics.sync(), rollbacks=0,
                        finished=is_last,
                    )  # fmt: skip
                    proven = functools.partial(is_proven, losses=metrics.losses, n_untold=step - len(metrics.losses))
                    metrics.save_blocked_s = checkpoints.save(model, optimizer, state, proven)
                mark = time.perf_counter()

        processes.barrier()
        return TrainResult(
            run, step, metrics.losses, quality, n_parameters, step * targets_per_step,
            time.perf_counter() - begin, interrupted=step < pace.n_steps,
            is_main=world.is_main,
        )  # fmt: skip


def _restore(run: Path, model: LanguageModel, optimizer: Optimizer, fresh: State) -> State:
    """Load the newest checkpoint, if there is one, and return its state; ``fresh`` is that of a run without one."""
    newest = Run(run).latest()
    return checkpoint.load(newest.path, model, optimizer) if newest else fresh


def _is_over(config: TrainConfig, first: State, extensions: Sequence[Extension]) -> bool:
    """Whether nothing is left to do of a run that is at ``first``, its extensions included."""
    if any(one.from_step >= first.step for one in extensions):
        return False
    part = extensions[-1] if extensions else Extension(0, 0.0, config.max_steps, config.minutes)
    if first.finished or not part.minutes:
        return first.finished or first.step >= part.from_step + part.steps
    return first.elapsed_s >= part.from_s + part.minutes * 60  # a run of before checkpoints knew that they are the last


def _extensions(
    run: Path, config: TrainConfig, first: State, more_steps: int, more_minutes: float, world: World
) -> list[Extension]:
    """How the run was extended, with what is asked for now. Raises `ConfigError` if it cannot be."""
    found = Run(run).extensions
    processes.barrier()  # all have read it
    is_recorded = bool(found) and found[-1].job == processes.job()
    if not (more_steps or more_minutes) or (processes.started_again() and is_recorded):
        return found
    if more_minutes and config.sharding == "full":
        raise ConfigError(
            f"{run} has --sharding full, with which --more-minutes cannot be had: it wants the whole model in one "
            "process; say --more-steps"
        )
    if _is_over(config, first, found):
        found.append(Extension(first.step, first.elapsed_s, more_steps, more_minutes, processes.job()))
        if world.is_main:
            extend(run, found[-1])
    elif not processes.started_again():
        raise ConfigError(
            f"{run} is not finished (step {first.step:,}); first resume it: {command('train', '--resume', run)}"
        )
    return found


def _validation_s(measure: Callable[..., Quality], config: TrainConfig, n_tokens: int) -> float:
    """Seconds that the last validation will take, of a sample and of all ``n_tokens``, measured on a part of them."""
    n = min(n_tokens, PROBE_WINDOWS * config.context_length)
    seconds = []
    for _ in range(2):  # the first one warms up
        begin = time.perf_counter()
        measure(max_tokens=n)
        seconds.append(time.perf_counter() - begin)
    return min(seconds) * (n_tokens + min(config.val_tokens or n_tokens, n_tokens)) / n


def _describe(
    config: TrainConfig, order: WindowOrder, n_parameters: int, splits: dict[str, Split], world: World, first_step: int,
    pace: Pace,
) -> None:  # fmt: skip
    """Say what is about to happen."""
    n_all = f"about {pace.n_steps:,}" if pace.budget_s else f"{pace.n_steps:,}"
    kind = f"{config.precision}, compiled" if config.compile == "true" else config.precision
    held_out = f"{len(splits['val'].tokens):,} tokens" if "val" in splits else "none"
    say(
        f"device: {world.device}, {kind}, {world.size} process(es), {torch.get_num_threads()} threads",
        f"model: {n_parameters:,} parameters, {config.n_layers} layers, {config.emb_dim} wide",
        f"text: {order.n_tokens:,} tokens, an epoch is {order.epoch_size:,} windows; validation: {held_out}",
        f"steps: {first_step:,} done of {n_all}, {config.batch_size} windows each",
    )
    if pace.reserve_s >= 1:
        say(f"time: {pace.budget_s / 60:g} minutes, about {pace.reserve_s:.0f} s of them for the last validation")


def _clipped(model: LanguageModel, grad_clip: float) -> torch.Tensor:
    """Scale the gradient down to a norm of ``grad_clip`` (0: leave it); returns the norm it had, not yet read."""
    if grad_clip:
        return whole_tensor(nn.utils.clip_grad_norm_(model.parameters(), grad_clip))
    return whole_tensor(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))


def _seed_dropout(seed: int, step: int, rank: int, micro: int) -> None:
    """Make the random numbers of one forward pass a function of where it stands, so that no state is carried."""
    digest = hashlib.blake2b(f"{seed}:{step}:{rank}:{micro}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little") >> 1)


class _Stop:
    """Whether a signal asked the run to end after the current step."""

    asked = False


HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""The signal of a terminal that is closed; Windows has none."""


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[_Stop]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a request to stop; the second one acts as without this.

    Of SIGHUP, shells send two for one terminal that is closed: no number of them acts otherwise. Where it is ignored
    (``nohup``), it stays so.
    """
    stop = _Stop()
    before: dict[int, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        if number != HANGUP:
            signal.signal(number, before[number])
        if stop.asked:
            return
        stop.asked = True
        # It may come in the middle of another line, whose end a thread waits for.
        threading.Thread(target=lambda: say("", "stopping after this step (once more to stop at once)")).start()

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
            before[HANGUP] = signal.getsignal(HANGUP)
    try:
        for number in before:
            signal.signal(number, ask)
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
