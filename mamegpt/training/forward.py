"""One forward pass of training, in the number format that was chosen.

Weights, their updates and every sum stay in float32. "bf16" takes the matrix products in bfloat16: on processors and
GPUs that have it in hardware they are two to three times as fast, and a model of this size learns just as well
(docs/log.md). "fp16", for GPUs without bfloat16, needs `mamegpt.training.loss_scaling`. ``torch.compile`` joins what
lies between the products; it takes half a minute or more before the first step, so only long runs gain by it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mamegpt.config import Precision, TrainConfig
from mamegpt.errors import ConfigError
from mamegpt.models.base import LanguageModel, blocks
from mamegpt.models.dropout import use_fast_dropout
from mamegpt.models.loss import linear_cross_entropy
from mamegpt.native.block import Blocks
from mamegpt.native.library import BF16_WIDTH_UNIT, WIDTH_UNIT, Native
from mamegpt.native.pointwise import Pointwise

__all__ = [
    "SummedLoss",
    "checkpoint_activations",
    "compute_dtype",
    "compute_with",
    "engine_of_head",
    "micro_batch",
    "refuse_wrong_results",
]

MICRO_BATCH_TOKENS = {"cpu": 4096, "mps": 16384}
"""Tokens in one forward pass of a kind of device, if nothing else is asked for; elsewhere all. What a CPU makes still
fits into its caches; MPS may compute sums over more than 32,768 wrongly (pytorch#193487).
"""


def compute_dtype(precision: Precision) -> torch.dtype | None:
    """Return what matrix products are taken in; None for the type of the weights."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


class SummedLoss(nn.Module):
    """Ids and targets (B, T) to the sum of their losses, in nats: the piece of work that is done in parallel.

    The model's dropout layers are replaced by those of `dropout`. ``native``, if it is given, computes head and loss
    and, of a model that is not compiled, what `compute_with` names.
    """

    def __init__(
        self, model: LanguageModel, precision: Precision, *, compiled: bool = False, native: Native | None = None
    ) -> None:
        super().__init__()
        self.model = model
        use_fast_dropout(model)
        self.compute_dtype = compute_dtype(precision)
        self.native = native
        self.in_layers = None if compiled else native
        self.hidden = torch.compile(model.hidden, dynamic=False) if compiled else model.hidden

    def forward(
        self,
        ids: Tensor,
        targets: Tensor,
        soft_targets: Tensor | None = None,
        true_share: float = 1.0,
        learned: Tensor | None = None,
        of_rows: Tensor | None = None,  # noqa: ARG002  (other losses ask)
    ) -> Tensor:
        """(B, T), (B, T) -> scalar; soft targets are (B, T, K), as in `linear_cross_entropy`.

        With ``learned`` positions (N,) of all B T there are targets (N,) for these alone, and no logits elsewhere.
        Only other losses ask for something ``of_rows`` (B,).
        """
        return linear_cross_entropy(
            self.states(ids, learned),
            self.model.out_head.weight,
            targets,
            self.compute_dtype,
            soft_targets=soft_targets,
            true_share=true_share,
            native=engine_of_head(self.native, self.compute_dtype, self.model),
        )

    def states(self, ids: Tensor, learned: Tensor | None) -> Tensor:
        """Return the final hidden states (B, T, C) of ids (B, T), or (N, C) of the ``learned`` positions."""
        compute_with(self.in_layers, self.model, self.compute_dtype)
        with torch.autocast(ids.device.type, self.compute_dtype, enabled=self.compute_dtype is not None):
            hidden = self.hidden(ids)  # (B, T, C)
        if learned is not None:
            hidden = hidden.flatten(0, 1).index_select(0, learned)  # (N, C)
        return hidden


def engine_of_head(native: Native | None, compute_dtype: torch.dtype | None, model: LanguageModel) -> Native | None:
    """Return the native engine, if it computes the head of a model in this type (None: that of the weights)."""
    if compute_dtype is None:
        return native
    fits = compute_dtype == torch.bfloat16 and model.out_head.weight.shape[1] % BF16_WIDTH_UNIT == 0
    return native if fits else None


def compute_with(native: Native | None, model: LanguageModel, compute_dtype: torch.dtype | None = None) -> None:
    """Let the native engine compute in a model, where it can; None: PyTorch does.

    In float32 these are attention, norms, rotations and SwiGLU, in bfloat16 whole blocks. This holds until the next
    call: a backward pass may run blocks again.
    """
    functions: dict[str, Callable[..., Tensor]] = {}
    if native and compute_dtype is None:
        pointwise = Pointwise(native)
        functions = {
            "attend": native.attention,
            "normalize": pointwise.normalize,
            "rotate": pointwise.rotate,
            "swiglu": pointwise.swiglu,
        }
    elif native and compute_dtype == torch.bfloat16:
        functions = {"native": Blocks(native).compute}
    for module in model.modules():
        for name in ("attend", "normalize", "rotate", "swiglu", "native"):
            if not hasattr(type(module), name):
                continue
            module.__dict__.pop(name, None)  # as its class has it
            if name in functions and _fits(module, name):
                setattr(module, name, functions[name])


def _fits(module: Any, name: str) -> bool:
    """Return whether the native engine computes a function of a module of these sizes."""
    if name == "native":
        return Blocks.fits(module)
    if name == "normalize":
        return len(module.weight) % (WIDTH_UNIT // 2) == 0
    return name == "swiglu" or module.head_dim % WIDTH_UNIT == 0


def checkpoint_activations(model: LanguageModel) -> None:
    """Let each block keep nothing but its input, and run again in the backward pass, with the same dropout.

    Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
    """
    for block in blocks(model):
        block.forward = functools.partial(_recomputed, block.forward)


def _recomputed(forward: Callable[..., Tensor], *args: Any) -> Tensor:
    """Return what ``forward`` gives; where a gradient is wanted, nothing inside it is kept for that."""
    if not torch.is_grad_enabled():
        return forward(*args)
    return cast(Tensor, checkpoint(forward, *args, use_reentrant=False))


def refuse_wrong_results(config: TrainConfig, device: torch.device) -> None:
    """Raise `ConfigError` for settings with which a device is known to compute something else."""
    if device.type != "mps":
        return
    if config.precision == "bf16":  # causal attention sees the future before PyTorch 2.14 (pytorch#195910)
        raise ConfigError("--precision bf16 gives wrong results on MPS; use --precision fp16 or fp32")
    if config.activation_checkpointing and config.drop_rate > 0:  # its random state is not restored
        raise ConfigError(
            "--activation-checkpointing with --drop-rate gives wrong gradients on MPS; leave one of them out"
        )


def micro_batch(config: TrainConfig, share: int, device: torch.device, n_tokens: int = 0) -> int:
    """Rows in one forward pass (the last may have fewer), of the ``share`` of a step that falls to this process.

    A row has ``n_tokens`` at most (0: the context length).
    """
    if config.micro_batch_size:
        return config.micro_batch_size
    if device.type not in MICRO_BATCH_TOKENS:
        return share
    n_passes = math.ceil(share / max(1, MICRO_BATCH_TOKENS[device.type] // (n_tokens or config.context_length)))
    return math.ceil(share / n_passes)
