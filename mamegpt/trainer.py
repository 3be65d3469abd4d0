"""Train a model: named set-up steps, then one loop, read from top to bottom.

A run is a folder; `run_files` says what is in it.

**Exact resume.** Weights after step n depend on the settings, the tokens and n, and on nothing else: data order and
dropout are functions of (seed, step), so a run that is killed at any moment and goes on from its last checkpoint
ends with bitwise the weights of one that never stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import signal
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mamegpt import checkpoint, distributed
from mamegpt.config import TrainConfig
from mamegpt.console import say
from mamegpt.distributed import World
from mamegpt.errors import CheckpointError, TrainingError
from mamegpt.evaluate import Quality, TokenLengths, evaluate
from mamegpt.files import write_json
from mamegpt.initial import start_from
from mamegpt.machine import hardware, peak_memory, summary
from mamegpt.metrics import Metrics
from mamegpt.models import LanguageModel, build_model
from mamegpt.optim import Optimizer, build_optimizer, lr_factor
from mamegpt.pace import Pace
from mamegpt.run_files import CHECKPOINTS, MACHINE_FILE
from mamegpt.run_folder import own_folder, run_tokenizer, run_tokens, settled
from mamegpt.shards import Split, WindowOrder
from mamegpt.step import SummedLoss, micro_batch
from mamegpt.terminal import terminal
from mamegpt.watch import EpochEnded, Saved, Started, Stepped, Validated, Watcher, watching

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True)
class TrainResult:
    """How a call of `train` ended. ``losses`` has one value, nats per token, for every step of the run so far.

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


def train(config: TrainConfig, *, resume: bool = False, watchers: Sequence[Watcher] = (terminal,)) -> TrainResult:
    """Train a model into the folder ``config.out``; with ``resume``, go on with the run that is there.

    ``watchers`` hear of its progress, in the main process.

    Ctrl-C (or SIGTERM) finishes the step, saves and returns with ``interrupted`` set.

    Raises `ConfigError` for settings that cannot work, `OutputError` if the folder exists (or, with ``resume``, is
    in use), `DataError` for text that is missing or too short, `CheckpointError` if the run was made with other
    settings, data or tokenizer or is damaged, and `TrainingError` if the loss stops being a number.
    """
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
        optimizer = build_optimizer(model, config)
        fingerprints = {
            "settings": config.fingerprint(), "tokens": meta.fingerprint(), "tokenizer": tokenizer.fingerprint,
        }  # fmt: skip
        if config.init_from:
            if world.is_main and checkpoint.latest(run / CHECKPOINTS) is None:  # the first one is what was given
                start_from(model, config.init_from)
                checkpoint.save(
                    run / CHECKPOINTS, model, optimizer, step=0, keep=config.keep_checkpoints, elapsed_s=0.0,
                    **fingerprints,
                )  # fmt: skip
            distributed.barrier()
        first_step, elapsed_s = _restore(run, model, optimizer, fingerprints)
        metrics = Metrics(run, first_step, write=world.is_main)
        pace = Pace(config, tokenizer.vocab_size, first_step, elapsed_s, world)
        summed_loss: nn.Module = SummedLoss(model, config.precision, compiled=config.compile == "true")
        if world.size > 1:
            summed_loss = DistributedDataParallel(summed_loss)

        n_parameters = sum(p.numel() for p in model.parameters())
        if world.is_main:
            if first_step == 0:
                write_json(
                    run / MACHINE_FILE, {"machine": summary(world.device), "processes": world.size} | dict(hardware())
                )
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
            watching(
                watchers if world.is_main else (),
                Started(run, config, tokenizer, model if world.size == 1 else None, first_step, pace.n_steps),
            ) as tell,
        ):
            while step < pace.n_steps and not stopping:
                # The learning rate of this step.
                factor = lr_factor(step, pace.n_steps, config.warmup_fraction, config.cooldown_fraction)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak_lr"] * factor

                # Loss and gradient: a sum over targets, divided by how many there are in all processes together.
                x, y = order.batch(train_tokens, step, world.rank, world.size)  # 2 x (share, context_length)
                inputs, targets = (torch.from_numpy(a).to(world.device).chunk(n_micro) for a in (x, y))
                step_loss = torch.zeros((), device=world.device)
                for micro in range(n_micro):
                    _seed_dropout(config.seed, step, world.rank, micro)
                    with _no_sync(summed_loss, micro < n_micro - 1):
                        loss = summed_loss(inputs[micro], targets[micro]) / targets_per_step
                        (loss * world.size).backward()  # DistributedDataParallel takes a mean; we want the sum
                    step_loss += loss.detach()

                # The update.
                grad_norm = _clipped(model, config.grad_clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                step += 1
                metrics.step(step, step_loss, factor * config.lr, grad_norm)

                # Most steps end here.
                stopping = distributed.any_process(stop.asked, world.device)
                pace.update(step, time.perf_counter() - begin)
                is_last = step >= pace.n_steps
                logging = step % config.log_every_steps == 0
                validating = "val" in splits and (step % config.eval_every_steps == 0 or is_last)
                saving = step % config.save_every_steps == 0 or is_last or stopping
                epoch_ends = order.epochs(step) > order.epochs(step - 1)
                if not (logging or validating or saving or epoch_ends):
                    continue

                # What happened since the last time.
                now = time.perf_counter()
                tokens_per_s = metrics.n_unread * targets_per_step / (now - mark)
                records = metrics.flush(targets_per_step, now - begin)
                if not math.isfinite(metrics.losses[-1]):
                    raise TrainingError(
                        f"the loss is {metrics.losses[-1]} at step {step} of {run}; "
                        f"train again with a lower --lr (it was {config.lr:g})"
                    )
                seconds_left = (pace.n_steps - step) * targets_per_step / tokens_per_s
                tell(Stepped(records, pace.n_steps, tokens_per_s, seconds_left, peak_memory(world.device)))
                if epoch_ends and order.steps_per_epoch >= config.log_every_steps:
                    mean = statistics.fmean(metrics.losses[-order.steps_per_epoch :])
                    tell(EpochEnded(order.epochs(step), step, mean))

                # How good the model is by now; after the last step, over the whole validation split.
                if validating:
                    quality = evaluate(
                        model, splits["val"].tokens, lengths, context_length=config.context_length,
                        eos_id=tokenizer.eos_id, world=world, max_tokens=0 if is_last else config.val_tokens,
                    )  # fmt: skip
                    metrics.validation(step, quality)
                    tell(Validated(step, pace.n_steps, quality))

                if saving and world.is_main:
                    path = checkpoint.save(
                        run / CHECKPOINTS, model, optimizer, step=step, keep=config.keep_checkpoints,
                        elapsed_s=time.perf_counter() - begin, **fingerprints,
                    )  # fmt: skip
                    tell(Saved(step, path))
                mark = time.perf_counter()

        distributed.barrier()
        return TrainResult(
            run, step, metrics.losses, quality, n_parameters, step * targets_per_step,
            time.perf_counter() - begin, interrupted=step < pace.n_steps,
            is_main=world.is_main,
        )  # fmt: skip


def _restore(run: Path, model: LanguageModel, optimizer: Optimizer, fingerprints: dict[str, str]) -> tuple[int, float]:
    """Load the newest checkpoint, if there is one: finished steps and the seconds they took."""
    path = checkpoint.latest(run / CHECKPOINTS)
    if path is None:
        return 0, 0.0
    state = checkpoint.read_state(path)
    for what, fingerprint in fingerprints.items():
        if getattr(state, what) != fingerprint:
            raise CheckpointError(f"{path} was made with other {what} than the run has now; nothing was changed")
    checkpoint.load(path, model, optimizer)
    return state.step, state.elapsed_s


def _describe(
    config: TrainConfig, order: WindowOrder, n_parameters: int, splits: dict[str, Split], world: World, first_step: int,
    n_steps: int,
) -> None:  # fmt: skip
    """Say what is about to happen."""
    n_all = f"about {n_steps:,}" if config.minutes else f"{n_steps:,}"
    kind = f"{config.precision}, compiled" if config.compile == "true" else config.precision
    held_out = f"{len(splits['val'].tokens):,} tokens" if "val" in splits else "none"
    say(
        f"device: {world.device}, {kind}, {world.size} process(es), {torch.get_num_threads()} threads",
        f"model: {n_parameters:,} parameters, {config.n_layers} layers, {config.emb_dim} wide",
        f"text: {order.n_tokens:,} tokens, an epoch is {order.epoch_size:,} windows; validation: {held_out}",
        f"steps: {first_step:,} done of {n_all}, {config.batch_size} windows each",
    )


def _clipped(model: LanguageModel, grad_clip: float) -> torch.Tensor:
    """Scale the gradient down to a norm of ``grad_clip`` (0: leave it); returns the norm it had, not yet read."""
    if grad_clip:
        return nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    return nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


def _seed_dropout(seed: int, step: int, rank: int, micro: int) -> None:
    """Make the random numbers of one forward pass a function of where it stands, so that no state is carried."""
    digest = hashlib.blake2b(f"{seed}:{step}:{rank}:{micro}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little") >> 1)


def _no_sync(module: nn.Module, more_follow: bool) -> contextlib.AbstractContextManager[Any]:
    """Gradients of all but the last micro-batch stay in their process."""
    if more_follow and isinstance(module, DistributedDataParallel):
        return module.no_sync()
    return contextlib.nullcontext()


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
