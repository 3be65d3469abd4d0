"""Train a model: named set-up steps, then one loop, read from top to bottom.

A run is a folder; `run_files` says what is in it.

**Exact resume.** Weights after step n depend on the settings, the tokens and n, and on nothing else: data order and
dropout are functions of (seed, step), so a run that is killed at any moment and goes on from its last checkpoint
ends with bitwise the weights of one that never stopped. (A run told to roll back also depends on which checkpoint was
the newest when its loss went bad.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from mamegpt import checkpoint, distributed
from mamegpt.checkpoint import Saver, State
from mamegpt.config import TrainConfig
from mamegpt.console import StepProgress, say
from mamegpt.distributed import World
from mamegpt.errors import CheckpointError, TrainingError
from mamegpt.evaluate import Quality, TokenLengths, evaluate
from mamegpt.files import write_json
from mamegpt.initial import start_from
from mamegpt.machine import summary
from mamegpt.metrics import Metrics
from mamegpt.models import LanguageModel, build_model
from mamegpt.optim import Optimizer, build_optimizer, lr_factor
from mamegpt.pace import Pace
from mamegpt.rollback import RolledBack, bad_loss, roll_back, weights_not_finite
from mamegpt.run_files import CHECKPOINTS, CONFIG_FILE, MACHINE_FILE
from mamegpt.run_folder import own_folder, run_tokenizer, run_tokens, settled
from mamegpt.shards import Split, WindowOrder
from mamegpt.spread import no_sync, spread, whole
from mamegpt.step import SummedLoss, micro_batch

__all__ = ["TrainResult", "train"]

_ADVICE = "go on past it with --resume and --on-bad-loss rollback, or train again with a lower --lr"


@dataclass(frozen=True)
class TrainResult:
    """How a call of `train` ended. ``losses`` has one value, nats per token, for every step of the run so far."""

    out: Path
    step: int
    losses: list[float]
    quality: Quality | None
    n_parameters: int
    n_tokens: int
    elapsed_s: float
    interrupted: bool


def train(config: TrainConfig, *, resume: bool = False, intact: bool = False) -> TrainResult:
    """Train a model into the folder ``config.out``; with ``resume``, go on with the run that is there.

    With ``intact``, checkpoints that are newer than the newest intact one are set aside first. What ``torchrun`` starts
    again after a process died goes on by itself. Ctrl-C (or SIGTERM) finishes the step, saves and returns with
    ``interrupted`` set.

    Raises `ConfigError` for settings that cannot work, `OutputError` if the folder exists (or, with ``resume``, is
    in use), `DataError` for text that is missing or too short, `CheckpointError` if the run was made with other
    settings, data or tokenizer or is damaged, and `TrainingError` for a bad loss (see `mamegpt.rollback`).
    """
    resume = resume or (distributed.started_again() and (Path(config.out) / CONFIG_FILE).exists())
    while True:
        with contextlib.suppress(RolledBack):
            return _train(config, resume, intact)
        resume = True  # for the checkpoint now says what to pass over


def _train(config: TrainConfig, resume: bool, intact: bool) -> TrainResult:
    """One way from a start, or from a checkpoint, to the end of the run, to a signal, or to a bad loss."""
    with distributed.join(config.device) as world, own_folder(config, resume, world) as run:
        tokenizer = run_tokenizer(config, run, world)
        meta, splits = run_tokens(config, tokenizer, run, world)
        order = WindowOrder(
            len(splits["train"].tokens), config.context_length, config.batch_size, config.seed, config.samples_per_epoch
        )
        lengths = TokenLengths(tokenizer)
        config = settled(run, tokenizer.vocab_size, world)

        torch.manual_seed(config.seed)
        model = build_model(config.architecture, config.model(tokenizer.vocab_size)).to(world.device)
        starts_from = bool(config.init_from) and checkpoint.latest(run / CHECKPOINTS) is None
        if starts_from:
            start_from(model, config.init_from)
        summed_loss: nn.Module = SummedLoss(model, config.precision, compiled=config.compile == "true")
        n_parameters = sum(p.numel() for p in model.parameters())
        summed_loss = spread(summed_loss, model, config.n_layers, config.sharding, world)
        optimizer = build_optimizer(model, config)
        fresh = State(0, 0.0, config.fingerprint(), meta.fingerprint(), tokenizer.fingerprint)
        distributed.barrier()  # all have looked for a checkpoint
        with Saver(run / CHECKPOINTS, config.keep_checkpoints, config.sharding == "full", world) as saver:
            if starts_from:
                saver.save(model, optimizer, fresh)  # the first checkpoint is what was given
        distributed.barrier()
        if intact and world.is_main:
            for damage in checkpoint.set_damaged_aside(run / CHECKPOINTS):
                say(f"{damage}; set aside")
        distributed.barrier()
        first = _restore(run, model, optimizer, fresh)
        first_step, elapsed_s = first.step, first.elapsed_s
        metrics = Metrics(run, first_step, write=world.is_main, digest=first.metrics)
        pace = Pace(config, tokenizer.vocab_size, first_step, elapsed_s, world)
        if world.is_main:
            if first_step == 0:
                write_json(run / MACHINE_FILE, {"machine": summary(world.device), "processes": world.size})
            _describe(config, order, n_parameters, splits, world, first_step, pace.n_steps)
        share = config.batch_size // world.size
        n_micro = math.ceil(share / micro_batch(config, share, world.device))
        targets_per_step = config.batch_size * config.context_length
        train_tokens = splits["train"].tokens
        step, stopping = first_step, False
        quality = metrics.quality
        model.train()
        mark = time.perf_counter()
        begin = mark - elapsed_s

        with (
            _stop_on_signal() as stop,
            Saver(run / CHECKPOINTS, config.keep_checkpoints, config.sharding == "full", world) as saver,
            StepProgress(pace.n_steps, first_step, config.log_every_steps, quiet=not world.is_main) as progress,
        ):
            while step < pace.n_steps and not stopping:
                # The learning rate of this step.
                factor = lr_factor(step, pace.n_steps, config.warmup_fraction, config.cooldown_fraction)
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
                if config.grad_clip:
                    nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                step += 1
                metrics.step(step, step_loss, factor * config.lr)

                # Most steps end here.
                stopping = distributed.any_process(stop.asked, world.device)
                pace.update(step, time.perf_counter() - begin)
                is_last = step >= pace.n_steps
                logging = step % config.log_every_steps == 0
                validating = "val" in splits and (step % config.eval_every_steps == 0 or is_last)
                saving = step % config.save_every_steps == 0 or is_last or stopping
                seen = step + first.skipped
                epoch_ends = order.epochs(seen) > order.epochs(seen - 1)
                if not (logging or validating or saving or epoch_ends):
                    continue

                # What happened since the last time.
                now = time.perf_counter()
                n_new = metrics.n_unread
                tokens_per_s = n_new * targets_per_step / (now - mark)
                metrics.flush(targets_per_step, now - begin)
                if bad := bad_loss(metrics.losses, n_new) or (weights_not_finite(model, step) if saving else None):
                    told = f"{bad} of {run}, at {factor:.2f} of the peak learning rates"
                    if config.on_bad_loss == "stop":
                        raise TrainingError(f"{told}; {_ADVICE} (it was {config.lr:g})")
                    saver.wait()
                    progress.line(roll_back(run / CHECKPOINTS, step, now - begin, told, world))
                    raise KeyboardInterrupt if stopping else RolledBack
                seconds_left = (pace.n_steps - step) * targets_per_step / tokens_per_s
                progress.update(step, pace.n_steps, metrics.losses[-1], tokens_per_s, seconds_left)
                if epoch_ends and order.steps_per_epoch >= config.log_every_steps:
                    mean = statistics.fmean(metrics.losses[-order.steps_per_epoch :])
                    progress.line(f"epoch {order.epochs(seen)} ends at step {step} - mean loss {mean:.4f}")

                # How good the model is by now; after the last step, over the whole validation split.
                if validating:
                    with whole(summed_loss):
                        quality = evaluate(
                            model, splits["val"].tokens, lengths, context_length=config.context_length,
                            eos_id=tokenizer.eos_id, world=world, max_tokens=0 if is_last else config.val_tokens,
                        )  # fmt: skip
                    metrics.validation(step, quality)
                    progress.line(
                        f"step {step}/{pace.n_steps} - validation loss {quality.loss:.4f} - "
                        f"{quality.bits_per_byte:.4f} bits/byte - {quality.bits_per_character:.4f} bits/character"
                    )

                if saving:
                    state = dataclasses.replace(
                        first, step=step, elapsed_s=time.perf_counter() - begin, metrics=metrics.sync(), rollbacks=0
                    )
                    metrics.save_blocked_s = saver.save(model, optimizer, state)
                mark = time.perf_counter()

        distributed.barrier()
        return TrainResult(
            run, step, metrics.losses, quality, n_parameters, step * targets_per_step,
            time.perf_counter() - begin, interrupted=step < pace.n_steps,
        )  # fmt: skip


def _restore(run: Path, model: LanguageModel, optimizer: Optimizer, fresh: State) -> State:
    """Load the newest checkpoint, if there is one, and return its state; ``fresh`` is that of a run without one."""
    path = checkpoint.latest(run / CHECKPOINTS)
    if path is None:
        return fresh
    state = checkpoint.read_state(path)
    for what in ("settings", "tokens", "tokenizer"):
        if getattr(state, what) != getattr(fresh, what):
            raise CheckpointError(f"{path} was made with other {what} than the run has now; nothing was changed")
    return checkpoint.load(path, model, optimizer)


def _describe(
    config: TrainConfig, order: WindowOrder, n_parameters: int, splits: dict[str, Split], world: World, first_step: int,
    n_steps: int,
) -> None:  # fmt: skip
    """Say what is about to happen."""
    about = "about " if config.minutes else ""
    kind = f"{config.precision}, compiled" if config.compile == "true" else config.precision
    held_out = f"{len(splits['val'].tokens):,} tokens" if "val" in splits else "none"
    say(
        f"device: {world.device}, {kind}, {world.size} process(es), {torch.get_num_threads()} threads",
        f"model: {n_parameters:,} parameters, {config.n_layers} layers, {config.emb_dim} wide",
        f"text: {order.n_tokens:,} tokens, an epoch is {order.epoch_size:,} windows; validation: {held_out}",
        f"steps: {first_step:,} done of {about}{n_steps:,}, {config.batch_size} windows each",
    )


def _seed_dropout(seed: int, step: int, rank: int, micro: int) -> None:
    """Make the random numbers of one forward pass a function of where it stands, so that no state is carried."""
    digest = hashlib.blake2b(f"{seed}:{step}:{rank}:{micro}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little") >> 1)


class _Stop:
    """Whether a signal asked the run to end after the current step."""

    asked = False


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[_Stop]:
    """Turn the first Ctrl-C or SIGTERM into a request; the second one acts as ever."""
    stop = _Stop()
    before: dict[int, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked = True
        with contextlib.suppress(RuntimeError):  # it may come in the middle of another line
            say("", "stopping after this step (once more to stop at once)")
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
