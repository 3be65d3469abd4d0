"""What a bad loss is, what is said about it, and the way back to before it.

A loss is bad if it is not a finite number, or if it is the fifth in a row that stands more than `SPIKE_NATS` and more
than `SPIKE_SPREADS` spreads above the median of the hundred losses before those five. One hard batch is no spike, and
none is seen in the first hundred steps.

The way back is that of PaLM (Chowdhery et al. 2022, section 5.1): go on from the newest checkpoint and pass over the
batches since then. How many were passed over is written into that checkpoint, so going on from it later sees the same.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mamegpt import checkpoint, distributed
from mamegpt.distributed import World
from mamegpt.errors import TrainingError

__all__ = ["RolledBack", "bad_loss", "roll_back", "weights_not_finite"]

N_HIGH = 5
N_BEFORE = 100
SPIKE_NATS = 1.0
SPIKE_SPREADS = 10.0
SPREAD = 1.4826
"""A median of distances to the median, times this, is the standard deviation of a normal distribution."""
MAX_ROLLBACKS = 3
"""Ways back to one checkpoint; after these the text is not what is wrong."""


class RolledBack(Exception):
    """The newest checkpoint was told what to pass over; going on from it is next."""


def bad_loss(losses: Sequence[float], n_new: int, n_untold: int = 0) -> str | None:
    """What is wrong with the first bad one of the last ``n_new`` losses (nats per token, one a step).

    ``n_untold`` steps came before them.
    """
    for i in range(len(losses) - n_new, len(losses)):
        if not math.isfinite(losses[i]):
            before = next((f"; the last number was {x:.4f}" for x in reversed(losses[:i]) if math.isfinite(x)), "")
            return f"the loss is {losses[i]} at step {n_untold + i + 1}{before}"
        begin = i + 1 - N_HIGH
        lowest = min(losses[max(0, begin) : i + 1])
        before_it = losses[max(0, begin - N_BEFORE) : max(0, begin)]
        if len(before_it) < N_BEFORE or lowest <= min(before_it) + SPIKE_NATS:
            continue
        middle = statistics.median(before_it)
        spread = SPREAD * statistics.median(abs(x - middle) for x in before_it)
        if lowest > middle + max(SPIKE_NATS, SPIKE_SPREADS * spread):
            return (
                f"the loss is {losses[i]:.4f} at step {n_untold + i + 1}, the {N_HIGH}th in a row far above "
                f"{middle:.4f}, the median of the {N_BEFORE} before"
            )
    return None


def weights_not_finite(model: nn.Module, step: int) -> str | None:
    """Whether weights are not finite numbers after a step, in any process: what must never be saved as good."""
    names = [name for name, weight in model.named_parameters() if not bool(torch.isfinite(_here(weight)).all())]
    if not distributed.any_process(bool(names), next(model.parameters()).device):
        return None
    return f"weights are not finite after step {step}" + (f", {names[0]} first" if names else "")


def _here(weight: Tensor) -> Tensor:
    """The share of a weight that is in this process."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def roll_back(folder: Path, step: int, elapsed_s: float, why: str, world: World) -> str:
    """Let the newest checkpoint under ``folder`` pass over the batches until ``step``; returns what was done.

    Raises `TrainingError` if there is no checkpoint, or if it was gone back to `MAX_ROLLBACKS` times already.
    """
    distributed.barrier()  # the main process may have been writing it
    path = checkpoint.latest(folder)
    if path is None:
        raise TrainingError(f"{why}; there is no checkpoint to go back to: train again with a lower --lr")
    state = checkpoint.read_state(path)
    if state.rollbacks == MAX_ROLLBACKS:
        raise TrainingError(
            f"{why}; {path} was gone back to {MAX_ROLLBACKS} times, each time with other text, so the text is not the "
            "reason: train again with a lower --lr"
        )
    distributed.barrier()  # all have read it
    if world.is_main:
        checkpoint.pass_over(path, step - state.step, elapsed_s)
    distributed.barrier()
    return f"{why}; going back to step {state.step} and passing over {step - state.step} batches"
