"""Train a model: `setup` makes what is needed, then one loop, read from top to bottom.

A run is a folder; `run_files` says what is in it.

**Exact resume.** Weights after step n depend on the settings, the tokens, n and the number of processes and threads,
and on nothing else: data order and dropout are functions of (seed, step), so a run that is killed at any moment and
goes on from its last checkpoint ends with bitwise the weights of one that never stopped. On a GPU that needs the same
card, and operations that have a reproducible version; PyTorch warns of others. (``--minutes`` follows the clock; a run
told to roll back also depends on which checkpoint was the newest when its loss went bad.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import hashlib
import math
import signal
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import torch
from torch import nn

from mamegpt.arguments import AtLeast, checked
from mamegpt.config import TrainConfig, TuneConfig
from mamegpt.distributed import processes
from mamegpt.distributed.sharding import full_tensor, no_sync, unsharded
from mamegpt.errors import ConfigError, TrainingError
from mamegpt.messages import msg
from mamegpt.models.base import LanguageModel
from mamegpt.run import checkpoint
from mamegpt.run.metrics import Quality
from mamegpt.run.run import Checkpoint, Run
from mamegpt.system.devices import described, deterministic, on_device, synchronize
from mamegpt.system.hardware import peak_memory
from mamegpt.system.run_files import CHECKPOINTS
from mamegpt.training.batches import Pass
from mamegpt.training.events import (
    DeviceNotice,
    EarlyStop,
    Emit,
    EpochEnded,
    Started,
    StepEvent,
    StopRequested,
    Validated,
    Validating,
    Watcher,
    watching,
)
from mamegpt.training.forward import compute_dtype
from mamegpt.training.loss_scaling import scale_of
from mamegpt.training.loss_spikes import find_spike, is_proven, roll_back, weights_not_finite
from mamegpt.training.ngram_targets import true_share
from mamegpt.training.optim import fitted_lr_factor
from mamegpt.training.rewards import Reward
from mamegpt.training.setup import Training, as_begun, is_of_this_job, own_folder, setup

__all__ = ["Outcome", "TrainResult", "train"]

OUTGROWN_EVERY_STEPS = 50
"""Steps between two comparisons of their mean loss with that of the n-gram model. Single batches differ so much that
one of the first hundred would seem to be predicted better (docs/log.md)."""

_ADVICE = msg("to skip these batches, add --on-bad-loss rollback to --resume; or train again with a lower --lr")


class Outcome(enum.Enum):
    """How a training ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    """By a signal, after a step that was saved."""
    ROLLED_BACK = "rolled back"
    """The newest checkpoint says which batches to skip; the run is to be resumed from it."""


@dataclass(frozen=True)
class TrainResult:
    """How a call of `train` ended, in the folder ``out``.

    ``losses`` has a value, nats per token, for every step in ``metrics.jsonl`` up to ``step``; ``quality`` is that of
    the newest validation, None if there was none. ``is_main`` is true in the one process that is to speak of it.
    """

    out: Path
    outcome: Outcome
    step: int
    losses: list[float] = field(repr=False)
    quality: Quality | None
    n_parameters: int
    n_tokens: int
    elapsed_s: float
    is_main: bool

    @property
    def run(self) -> Run:
        """Return what is in the folder of the run."""
        return Run(self.out)

    @property
    def interrupted(self) -> bool:
        """Whether a signal stopped the run before it was finished."""
        return self.outcome is Outcome.STOPPED


@checked
def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    skip_damaged: bool = False,
    more_steps: Annotated[int, AtLeast(1)] = 0,
    more_minutes: float = 0.0,
    reward: Reward | None = None,
    watchers: Sequence[Watcher] = (),
) -> TrainResult:
    """Train a model into the folder ``config.out``; with ``resume``, go on with the run that is there.

    With ``resume``, a finished run is trained for ``more_steps`` steps or ``more_minutes`` minutes more, in which the
    learning rate rises and falls once more; the run records that, so an interrupted extension resumes like any run.
    ``reward`` is the function whose name ``config.reward`` is, if it is the caller's own.
    With ``skip_damaged``, checkpoints that are newer than the newest intact one are set aside first. What ``torchrun``
    starts again after a process died goes on by itself. Ctrl-C (or SIGTERM, SIGHUP) finishes the step, saves and
    returns with ``interrupted`` set. Nothing is printed: ``watchers`` receive the events of
    `mamegpt.training.events`, in the main process.

    Raises `ConfigError` for settings that cannot work, `OutputError` if the folder exists (or, with ``resume``, is
    in use), `DataError` for text that is missing or too short, `CheckpointError` if the run was made with other
    settings, data or tokenizer or is damaged, and `TrainingError` for a bad loss (see `loss_spikes`). Also
    `TokenizerError` or `ModelError` for ``config.tokenizer`` or ``config.init_from`` that cannot be used, and
    `OutputError` or `OSError` for a checkpoint that cannot be written.
    """
    config.check_types()
    _check_call(resume, skip_damaged, more_steps, more_minutes)
    resume = resume or (processes.started_again() and is_of_this_job(Path(config.out)))
    while True:
        result = _train(config, resume, skip_damaged, more_steps, more_minutes, reward, watchers)
        if result.outcome is not Outcome.ROLLED_BACK:
            return result
        resume = True
        more_steps, more_minutes = 0, 0.0  # it is extended by now


def _check_call(resume: bool, skip_damaged: bool, more_steps: int, more_minutes: float) -> None:
    """Raise `ConfigError` for arguments of `train` that cannot be meant, before anything is written."""
    if skip_damaged and not resume:
        raise ConfigError("--resume-intact works only with --resume RUN; give both")
    if (more_steps or more_minutes) and not resume:
        raise ConfigError("--more-steps and --more-minutes extend a finished run; give it with --resume RUN")
    if more_steps and more_minutes:
        raise ConfigError("--more-steps and --more-minutes both set the length; give one of them")
    if not 0 <= more_minutes < math.inf:
        raise ConfigError("--more-minutes must be above 0 (got {more_minutes:g})", more_minutes=more_minutes)


def _train(
    config: TrainConfig,
    resume: bool,
    skip_damaged: bool,
    more_steps: int,
    more_minutes: float,
    reward: Reward | None,
    watchers: Sequence[Watcher],
) -> TrainResult:
    """Train from step 0 or the newest checkpoint until the run ends, a signal arrives, or the loss goes bad."""
    called_s = time.perf_counter()  # what is done before the first step counts
    run = Path(config.out)
    with (
        processes.join(config.device) as world,
        own_folder(run, config, resume, world) as kept,
        watching(watchers if world.is_main else ()) as emit,
        as_begun(run, world, emit),
        deterministic(world.device),
    ):
        for notice in world.notices:
            emit(DeviceNotice(notice))
        training = setup(
            run,
            config,
            kept,
            world,
            emit,
            called_s=called_s,
            skip_damaged=skip_damaged,
            more_steps=more_steps,
            more_minutes=more_minutes,
            own_reward=reward,
        )
        return _loop(training, emit)


def _loop(t: Training, emit: Emit) -> TrainResult:
    """Make the steps of a training."""
    config, world, model, batches, budget, metrics = t.config, t.world, t.model, t.batches, t.budget, t.metrics
    step, stopping, outgrown = t.state.step, False, t.state.ngrams_outgrown
    model.train()
    interval_start = time.perf_counter()

    with _stop_on_signal(emit) as stop, t.saver:
        emit(_started(t))
        while step < budget.n_steps and not stopping:
            # The learning rate of this step.
            factor, of_fit = budget.lr_factor(step), fitted_lr_factor(budget.n_first_steps)
            for group in t.optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor * (of_fit if group.get("fitted") else 1.0)

            # The batch; while counts still have a share in what is learned, also what else followed elsewhere.
            passes = batches.passes(step + t.state.skipped, world.rank, world.size)
            share = 1.0 if t.ngram_targets is None or outgrown else true_share(budget.progress(step), step)

            # Loss and gradient: a sum over targets, divided by how many there are in all processes together.
            step_loss = torch.zeros((), device=world.device)
            for micro, rows in enumerate(passes):
                if config.drop_rate > 0:
                    _seed_dropout(config.seed, step, world.rank, micro)
                inputs, targets = (on_device(ids, world.device) for ids in (rows.inputs, rows.targets))
                learned, of_rows = (
                    None if numbers is None else on_device(numbers, world.device)
                    for numbers in (rows.learned, rows.of_rows)
                )
                with no_sync(t.summed_loss, micro < len(passes) - 1):
                    soft_targets = _soft_targets(t, rows, step) if share < 1 else None
                    loss = t.summed_loss(inputs, targets, soft_targets, share, learned, of_rows) / rows.divisor
                    t.scaler.scale(loss * world.size).backward()  # DDP and FSDP take a mean; we want the sum
                step_loss += loss.detach()

            # The update; in float16 a step whose gradient is not finite is left out.
            t.scaler.unscale_(t.optimizer)  # type: ignore[arg-type]  # several chained have all it needs
            grad_norm = _clipped(model, config.grad_clip)
            t.scaler.step(t.optimizer)  # type: ignore[arg-type]
            t.scaler.update()
            t.optimizer.zero_grad(set_to_none=True)
            step += 1
            metrics.step(step, step_loss, factor * config.lr, grad_norm, passes[0].figures)

            # Counts can teach nothing more to a model that predicts better than they do.
            if t.ngram_targets and share < 1 and step % OUTGROWN_EVERY_STEPS == 0:
                recent = metrics.mean_loss(OUTGROWN_EVERY_STEPS)
                outgrown = processes.from_main(recent < t.ngram_targets.loss, world)  # which has all losses of the run

            # Most steps end here.
            stopping = processes.any_process(stop.asked, world.host_group)
            budget.update(step, t.elapsed_s)
            is_last = step >= budget.n_steps
            logging = step % config.log_every_steps == 0 or step == t.state.step + 1
            validating = t.validate is not None and (step % config.eval_every_steps == 0 or is_last)
            saving = step % config.save_every_steps == 0 or is_last or stopping
            n_seen = step + t.state.skipped
            epoch_ends = batches.order.epochs(n_seen) > batches.order.epochs(n_seen - 1)
            if not (logging or validating or saving or epoch_ends):
                continue

            # What happened since the last time.
            t.saver.poll()
            synchronize(world.device)
            elapsed_s, interval_s = t.elapsed_s, time.perf_counter() - interval_start
            n_new = metrics.n_unread
            records = metrics.flush(batches.n_tokens_after, elapsed_s)
            offset = step - len(metrics.losses)
            problem = find_spike(metrics.losses, n_new, offset)
            if saving and not problem:
                problem = weights_not_finite(model, step, world)
            if problem:
                problem = msg(
                    "{run}: {problem} (learning rates at {share:.0%} of their peak)",
                    run=t.run,
                    problem=problem,
                    share=factor,
                )
                if config.on_bad_loss == "stop":
                    raise TrainingError(
                        "{problem}; {advice} (--lr is {lr:g})", problem=problem, advice=_ADVICE, lr=config.lr
                    )
                t.saver.wait()
                way_back = roll_back(t.run / CHECKPOINTS, metrics.losses, step, n_seen, elapsed_s, problem, world)
                emit(way_back)
                del metrics.losses[max(0, way_back.step - offset) :]  # of the steps that come again
                return _result(t, way_back.step, Outcome.STOPPED if stopping else Outcome.ROLLED_BACK)
            seconds_left = budget.seconds_left(step, elapsed_s, interval_s / n_new)
            tokens_per_s = (batches.n_tokens_after(step) - batches.n_tokens_after(step - n_new)) / interval_s
            emit(StepEvent(records, budget.n_steps, tokens_per_s, seconds_left, peak_memory(world.device)))
            if epoch_ends and batches.order.steps_per_epoch >= config.log_every_steps:
                mean = statistics.fmean(metrics.losses[-batches.order.steps_per_epoch :])
                emit(EpochEnded(batches.order.epochs(n_seen), step, mean))

            # How good the model is by now, on a sample; after the last step also on all that there is time for, in
            # float32.
            if validating and t.validate:
                measure = functools.partial(t.validate, step=step, on_progress=lambda share: emit(Validating(share)))
                with unsharded(t.summed_loss):
                    found = [measure(max_tokens=config.val_tokens, compute_dtype=compute_dtype(config.precision))]
                    metrics.validation(found[0])
                    best_step = metrics.best_step if isinstance(config, TuneConfig) and config.patience else None
                    saving = saving or step == best_step
                    if best_step is not None and not is_last and _is_exhausted(t, best_step):
                        _go_back(t, best_step)
                        emit(EarlyStop(step, best_step))
                        budget.end(step)
                        is_last = saving = True
                    if is_last and t.last_val_tokens is not None:
                        found.append(measure(max_tokens=t.last_val_tokens))
                        metrics.validation(found[1])
                for quality in found:
                    emit(Validated(step, budget.n_steps, quality, is_result=quality is not found[0]))

            if saving:
                state = dataclasses.replace(
                    t.state,
                    step=step,
                    elapsed_s=t.elapsed_s,
                    metrics=metrics.sync(),
                    rollbacks=0,
                    finished=is_last,
                    ngrams_outgrown=outgrown,
                    **scale_of(t.scaler),
                )
                proven = functools.partial(_is_to_keep, t, losses=metrics.losses, offset=offset)
                metrics.save_blocked_s = t.saver.save(model, t.optimizer, state, proven)
            interval_start = time.perf_counter()

    processes.barrier(world)
    return _result(t, step, Outcome.FINISHED if step >= budget.n_steps else Outcome.STOPPED)


def _is_exhausted(t: Training, best_step: int) -> bool:
    """Return whether enough validations after the best one were no better."""
    assert isinstance(t.config, TuneConfig), "others have no patience"
    return sum(step > best_step for step in t.metrics.validations) >= t.config.patience


def _go_back(t: Training, best_step: int) -> None:
    """Load the checkpoint of the best validation."""
    t.saver.wait()
    processes.barrier(t.world)  # the main process may have been writing it
    checkpoint.load(Checkpoint.at(t.run / CHECKPOINTS, best_step).path, t.model, t.optimizer)


def _is_to_keep(t: Training, step: int, losses: Sequence[float], offset: int) -> bool:
    """Return whether a checkpoint is kept beside the newest: the best one, or one that later losses proved good."""
    if isinstance(t.config, TuneConfig) and t.config.patience and t.validate:
        return step == t.metrics.best_step
    return is_proven(step, losses, offset)


def _started(t: Training) -> Started:
    return Started(
        run=t.run,
        config=t.config,
        tokenizer=t.tokenizer,
        model=t.model if t.world.size == 1 and t.config.task != "classify" else None,
        step=t.state.step,
        n_steps=t.budget.n_steps,
        budget_s=t.budget.budget_s,
        reserve_s=t.budget.reserve_s,
        seconds_left=t.budget.seconds_left(t.state.step, t.elapsed_s, 0.0),
        is_finished=t.is_finished,
        device=described(t.world.device),
        n_processes=t.world.size,
        n_threads=torch.get_num_threads(),
        n_parameters=t.n_parameters,
        n_train_tokens=t.batches.n_tokens,
        n_val_tokens=t.n_val_tokens,
        windows_per_epoch=t.batches.order.epoch_size,
    )


def _result(t: Training, step: int, outcome: Outcome) -> TrainResult:
    return TrainResult(
        out=t.run,
        outcome=outcome,
        step=step,
        losses=t.metrics.losses,
        quality=t.metrics.quality,
        n_parameters=t.n_parameters,
        n_tokens=t.batches.n_tokens_after(step),
        elapsed_s=t.elapsed_s,
        is_main=t.world.is_main,
    )


def _soft_targets(t: Training, rows: Pass, step: int) -> torch.Tensor:
    """Return continuations (B, T, K) of what a forward pass reads, drawn from the n-gram counts."""
    assert t.ngram_targets is not None, "their share is not 0"
    drawn = t.ngram_targets.draw(rows.inputs, step + t.state.skipped, first=rows.first_row)
    return on_device(drawn, t.world.device)


def _clipped(model: LanguageModel, grad_clip: float) -> torch.Tensor:
    """Scale the gradient down to a norm of ``grad_clip`` (0: leave it); returns the norm it had, not yet read."""
    if grad_clip:
        return full_tensor(nn.utils.clip_grad_norm_(model.parameters(), grad_clip))
    return full_tensor(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))


def _seed_dropout(seed: int, step: int, rank: int, micro: int) -> None:
    """Make the random numbers of one forward pass a function of where it stands, so that no state is carried."""
    digest = hashlib.blake2b(f"{seed}:{step}:{rank}:{micro}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little") >> 1)


class _Stop:
    """Whether a signal asked the run to end after the current step."""

    asked = False


HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""The signal of a terminal that is closed; Windows has none."""
BREAK: int | None = getattr(signal, "SIGBREAK", None)
"""The signal of Ctrl-Break and of a console that is closed, on Windows alone."""


@contextlib.contextmanager
def _stop_on_signal(emit: Emit) -> Iterator[_Stop]:
    """Turn the first Ctrl-C, Ctrl-Break, SIGTERM or SIGHUP into a request to stop; the second one acts as without this.

    Of SIGHUP, shells send two for one terminal that is closed: no number of them acts otherwise. Where it is ignored
    (``nohup``), it stays so.
    """
    stop = _Stop()
    before: dict[int, Any] = {}

    def ask(number: int, _frame: FrameType | None) -> None:
        if number != HANGUP:
            signal.signal(number, before[number])
        if stop.asked:
            return
        stop.asked = True
        # It may come in the middle of another line, whose end a thread waits for.
        threading.Thread(target=emit, args=[StopRequested()]).start()

    if threading.current_thread() is threading.main_thread():
        asking = [signal.SIGINT, signal.SIGTERM, *([] if BREAK is None else [BREAK])]
        before = {number: signal.getsignal(number) for number in asking}
        if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
            before[HANGUP] = signal.getsignal(HANGUP)
    try:
        for number in before:
            signal.signal(number, ask)
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
