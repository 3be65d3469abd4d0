"""One forward pass of training, in the number format that was chosen, and how long a whole step takes here.

Weights, their updates and every sum stay in float32. "bf16" takes the matrix products in bfloat16: on processors and
GPUs that have it in hardware they are two to three times as fast, and a model of this size learns just as well
(docs/log.md). ``torch.compile`` joins what lies between the products; it takes half a minute or more before the first
step, so only long runs gain by it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mamegpt.config import Precision, TrainConfig
from mamegpt.models.base import LanguageModel, blocks
from mamegpt.models.dropout import use_fast_dropout
from mamegpt.models.loss import linear_cross_entropy
from mamegpt.models.registry import build_model
from mamegpt.training.optim import build_optimizer

__all__ = ["Kind", "SummedLoss", "micro_batch", "product_dtype", "recompute_blocks", "seconds_per_step"]

MICRO_BATCH_TOKENS = 4096
"""Tokens in one forward pass on a CPU, if nothing else is asked for: what it makes still fits into the caches."""

PROBE_ROUNDS = 3

Kind = tuple[Precision, bool]
"""A number format, and whether to compile."""


def product_dtype(precision: Precision) -> torch.dtype | None:
    """What matrix products are taken in; None for the type of the weights."""
    return torch.bfloat16 if precision == "bf16" else None


class SummedLoss(nn.Module):
    """Ids and targets (B, T) to the sum of their losses, in nats: the piece of work that is done in parallel.

    The model's dropout layers are replaced by those of `dropout`.
    """

    def __init__(self, model: LanguageModel, precision: Precision, *, compiled: bool = False) -> None:
        super().__init__()
        self.model = model
        use_fast_dropout(model)
        self.product_dtype = product_dtype(precision)
        self.hidden = torch.compile(model.hidden, dynamic=False) if compiled else model.hidden

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """(B, T), (B, T) -> scalar."""
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self.product_dtype is not None):
            hidden = self.hidden(ids)  # (B, T, C)
        return linear_cross_entropy(hidden, self.model.out_head.weight, targets, self.product_dtype)


def recompute_blocks(model: LanguageModel) -> None:
    """Let each block keep nothing but its input, and run again in the backward pass, with the same dropout.

    Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
    """
    for block in blocks(model):
        block.forward = functools.partial(_recomputed, block.forward)


def _recomputed(forward: Callable[..., Tensor], *args: Any) -> Tensor:
    """What ``forward`` gives; where a gradient is wanted, nothing inside it is kept for that."""
    if not torch.is_grad_enabled():
        return forward(*args)
    return cast(Tensor, checkpoint(forward, *args, use_reentrant=False))


def micro_batch(config: TrainConfig, share: int, device: torch.device) -> int:
    """Windows in one forward pass (the last may have fewer), of the ``share`` of a step that falls to this process."""
    if config.micro_batch_size:
        return config.micro_batch_size
    if device.type != "cpu":
        return share
    n_passes = math.ceil(share / max(1, MICRO_BATCH_TOKENS // config.context_length))
    return math.ceil(share / n_passes)


def seconds_per_step(
    config: TrainConfig, vocab_size: int, device: torch.device, kinds: Sequence[Kind], world_size: int = 1
) -> list[float]:
    """Measure, for each kind of forward pass, how long one optimizer step of a run takes on this device.

    A model that is then thrown away sees random tokens, in turns, and the fastest of a few rounds counts: another
    program's work can only make a round slower. The random state is put back. Forward passes are as large as those of
    the run, so that it finds compiled ones in PyTorch's cache.
    """
    random_state = torch.get_rng_state()
    model = build_model(config.architecture, config.model(vocab_size)).to(device)
    optimizers = {p: build_optimizer(model, dataclasses.replace(config, precision=p)) for p, _ in kinds}
    share = config.batch_size // world_size
    windows = micro_batch(config, share, device)
    ids = torch.randint(vocab_size, (windows, config.context_length), device=device)
    if config.activation_checkpointing:
        recompute_blocks(model)
    losses = [SummedLoss(model, precision, compiled=compiled) for precision, compiled in kinds]
    passes: list[list[float]] = [[] for _ in kinds]
    updates: list[list[float]] = [[] for _ in kinds]
    for round_ in range(PROBE_ROUNDS + 1):
        for (precision, _), summed_loss, times, update in zip(kinds, losses, passes, updates, strict=True):
            begin = _now(device)
            torch.autograd.backward(summed_loss(ids, ids))
            middle = _now(device)
            optimizers[precision].step()
            optimizers[precision].zero_grad(set_to_none=True)
            if round_:  # the first one warms up
                times.append(middle - begin)
                update.append(_now(device) - middle)
    torch.set_rng_state(random_state)
    return [min(times) * share / windows + min(update) for times, update in zip(passes, updates, strict=True)]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
