"""Loss spikes: what a bad loss is, its message, and the rollback to a checkpoint before it.

A loss is bad if it is not a finite number, or if it is the fifth in a row that stands more than `SPIKE_NATS` and more
than `SPIKE_SPREADS` spreads above the median of the hundred losses before those five. One hard batch is no spike, and
none is seen in the first hundred steps.

The way back is that of PaLM (Chowdhery et al. 2022, section 5.1): go on from the newest sound checkpoint and pass over
the batches since then. How many were passed over is written into that checkpoint, so going on from it later sees the
same. A checkpoint is sound if the losses after it were good (`is_sound`): one saved inside a spike is bad, and that is
known only some steps later.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from mamegpt.distributed import processes
from mamegpt.distributed.processes import World
from mamegpt.distributed.sharding import local
from mamegpt.errors import TrainingError
from mamegpt.messages import Message, msg
from mamegpt.models.base import not_finite
from mamegpt.run import checkpoint
from mamegpt.run.run import checkpoints
from mamegpt.training.events import RolledBack

__all__ = ["find_spike", "is_proven", "is_sound", "roll_back", "weights_not_finite"]

N_HIGH = 5
N_BEFORE = 100
SPIKE_NATS = 1.0
SPIKE_SPREADS = 10.0
SPREAD = 1.4826
"""A median of distances to the median, times this, is the standard deviation of a normal distribution."""
MAX_ROLLBACKS = 3
"""Ways back to one checkpoint; after these the text is not what is wrong."""


def find_spike(losses: Sequence[float], n_new: int, offset: int = 0) -> Message | None:
    """Return what is wrong with the first bad one of the last ``n_new`` losses (nats per token, one a step).

    ``offset`` steps came before them.
    """
    for i in range(len(losses) - n_new, len(losses)):
        if not math.isfinite(losses[i]):
            step, before = offset + i + 1, [x for x in losses[:i] if math.isfinite(x)]
            if not before:
                return msg("loss is {loss} at step {step}", loss=losses[i], step=step)
            return msg(
                "loss is {loss} at step {step} (last finite value {last:.4f})",
                loss=losses[i],
                step=step,
                last=before[-1],
            )
        begin = max(0, i + 1 - N_HIGH)
        middle, limit = _limit(losses, begin, min(losses[begin : i + 1]))
        if min(losses[begin : i + 1]) > limit:
            return msg(
                "loss rose to {loss:.4f} at step {step}: {n} steps in a row far above {median:.4f}, the median of the "
                "{n_before} steps before",
                loss=losses[i],
                step=offset + i + 1,
                n=N_HIGH,
                median=middle,
                n_before=N_BEFORE,
            )
    return None


def _limit(losses: Sequence[float], i: int, x: float) -> tuple[float, float]:
    """Return the median of the `N_BEFORE` losses before ``losses[i]``, and the limit for what is far above it."""
    before_it = losses[max(0, i - N_BEFORE) : i]
    if len(before_it) < N_BEFORE or x <= min(before_it) + SPIKE_NATS:
        return math.nan, math.inf
    middle = statistics.median(before_it)
    spread = SPREAD * statistics.median(abs(x - middle) for x in before_it)
    return middle, middle + max(SPIKE_NATS, SPIKE_SPREADS * spread)


def is_sound(step: int, losses: Sequence[float], offset: int = 0) -> bool:
    """Return whether the weights after ``step`` were good: the next loss is a number, and none soon after is high.

    ``losses`` are nats per token, one a step, after ``offset`` steps.
    """
    i = step - offset
    after = losses[i : i + N_HIGH] if i >= 0 else []
    highest = max((x for x in after if not math.isnan(x)), default=math.nan)
    return bool(after) and math.isfinite(after[0]) and not highest > _limit(losses, i, highest)[1]


def is_proven(step: int, losses: Sequence[float], offset: int = 0) -> bool:
    """Return whether a checkpoint is sound for good: so many losses came after it that a spike would have been seen."""
    return len(losses) + offset >= step + N_HIGH and is_sound(step, losses, offset)


def weights_not_finite(model: nn.Module, step: int, world: World) -> Message | None:
    """Return whether weights are not finite numbers after a step, in any process: what must never be saved as good."""
    names = not_finite((name, local(weight)) for name, weight in model.named_parameters())
    if not processes.any_process(bool(names), world.host_group):
        return None
    if not names:
        return msg("weights are not finite after step {step}", step=step)
    return msg("weights are not finite after step {step}, {name} first", step=step, name=names[0])


def roll_back(
    folder: Path, losses: Sequence[float], step: int, n_seen: int, elapsed_s: float, problem: str, world: World
) -> RolledBack:
    """Make the newest sound checkpoint under ``folder`` the newest; let it pass over all ``n_seen`` batches until now.

    ``losses`` are those of the last steps until ``step``. Newer checkpoints are removed. Raises `TrainingError` if
    there is no sound checkpoint, or if it was gone back to `MAX_ROLLBACKS` times already.
    """
    processes.barrier(world)  # the main process may have been writing one
    states = {path: checkpoint.read_state(path) for _, path in reversed(checkpoints(folder))}
    # One that was gone back to was sound then; what came after it since is why it is gone back to again.
    sound = (p for p, s in states.items() if s.rollbacks or is_sound(s.step, losses, step - len(losses)))
    path = next(sound, None)
    if path is None:
        raise TrainingError(
            "{problem}; there is no checkpoint to roll back to: train again with a lower --lr", problem=problem
        )
    state = states[path]
    if state.rollbacks == MAX_ROLLBACKS:
        raise TrainingError(
            "{problem}; rolled back to {path} {n} times, each time with other data, so the data is "
            "not the cause: train again with a lower --lr",
            problem=problem,
            path=path,
            n=MAX_ROLLBACKS,
        )
    n_skipped = n_seen - state.step - state.skipped
    processes.barrier(world)  # all have read them
    if world.is_main:
        checkpoint.remove(newer for newer, of in states.items() if of.step > state.step)
        checkpoint.skip_batches(path, n_skipped, elapsed_s)
    processes.barrier(world)
    return RolledBack(problem, state.step, n_skipped)
