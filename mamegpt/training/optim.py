"""Parameter groups, optimizers and the learning-rate schedule.

An optimizer is a function from a model, a `TrainConfig` and the native engine, if there is one, to a
`torch.optim.Optimizer`; adding one is a function and a line in `OPTIMIZERS`. Each parameter group carries ``peak_lr``;
the trainer multiplies it by `lr_factor`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mamegpt.config import TrainConfig
from mamegpt.distributed.sharding import is_sharded
from mamegpt.errors import ConfigError
from mamegpt.models.base import LanguageModel, token_embedding
from mamegpt.native.library import Native
from mamegpt.training.forward import compute_dtype
from mamegpt.training.muon import Muon
from mamegpt.training.sharded_muon import ShardedMuon

__all__ = [
    "OPTIMIZERS",
    "ChainedOptimizer",
    "Optimizer",
    "build_optimizer",
    "fitted_lr_factor",
    "lr_factor",
    "mark_fitted",
]

FINAL_LR_FACTOR = 0.01
"""Where the cool-down ends, as a share of the peak."""

LEAST_FITTED_LR, MOST_FITTED_LR, FITTED_LR_STEPS = 0.1, 0.4, 3_000
"""Learning rates of AdamW where embedding and head begin as a fit to bigrams, as shares of those without: the lowest
and the highest, and the steps of a run that would have all (docs/log.md)."""


def lr_factor(step: int, max_steps: int, warmup_fraction: float, cooldown_fraction: float) -> float:
    """Return the share of the peak learning rate at a step, in (0, 1]: a linear rise, a plateau, a linear fall.

    The trapezoid of Zhai et al. 2022 ("Scaling Vision Transformers", section 2.5). Step 0 is never at zero.
    """
    warmup_steps = warmup_fraction * max_steps
    cooldown_steps = cooldown_fraction * max_steps
    rise = (step + 1) / warmup_steps if warmup_steps else 1.0
    left = (max_steps - step) / cooldown_steps if cooldown_steps else 1.0
    return min(1.0, rise, FINAL_LR_FACTOR + (1 - FINAL_LR_FACTOR) * left)


def adamw(model: LanguageModel, config: TrainConfig, _native: Native | None) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019), one fused kernel; weight decay on matrices only, and beside adapters not on
    the embedding and the head, most of whose rows must stay as they are.
    """
    kept = {id(p) for p in (*token_embedding(model).parameters(), model.out_head.weight)} if config.lora else set()
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim >= 2 and id(p) not in kept]
    taken = {id(p) for p in decayed}
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if id(p) not in taken], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), fused=True)
    for group in optimizer.param_groups:
        group["peak_lr"] = config.lr
    return optimizer


def muon(model: LanguageModel, config: TrainConfig, native: Native | None) -> Optimizer:
    """Muon (Jordan et al. 2024) on the matrices inside the blocks, AdamW on embeddings, head and vectors.

    Muon orthogonalises each matrix's momentum (Newton-Schulz), so all its directions are learnt at one speed. Measured
    here, it reaches a quarter of AdamW's loss on the built-in stories in the same number of tokens. A row of the
    embedding has a gradient only when its piece occurs, so it takes far larger steps (both in docs/log.md).
    """
    head = model.out_head.weight
    embeddings = [p for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()]
    learned = [p for p in model.parameters() if p.requires_grad]
    outer = {id(p) for p in [*embeddings, head]}
    table_ids = {id(p) for p in token_embedding(model).parameters() if p is not head}  # a tied one learns as a head
    tables = [p for p in learned if id(p) in table_ids]
    inside = [p for p in learned if p.ndim == 2 and id(p) not in outer]
    taken = {id(p) for p in [*tables, *inside]}
    others = [p for p in learned if id(p) not in taken]
    groups = [{"params": tables, "lr": config.emb_lr}, {"params": others, "lr": config.lr}]
    kind = ShardedMuon if any(map(is_sharded, inside)) else Muon
    products = compute_dtype(config.precision) or torch.float32
    parts = (
        kind(inside, lr=config.muon_lr, weight_decay=config.weight_decay, compute_dtype=products, native=native),
        torch.optim.AdamW(
            [group for group in groups if group["params"]], betas=(0.9, config.beta2), weight_decay=0.0, fused=True
        ),
    )
    for part in parts:
        for group in part.param_groups:
            group["peak_lr"] = group["lr"]
    return ChainedOptimizer(parts)


class ChainedOptimizer:
    """Several optimizers, each with parameters of its own, as one."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts, in their order."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[Tensor, Any]:
        """The state of all parts, by parameter."""
        return {parameter: state for part in self.parts for parameter, state in part.state.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the state dicts of all parts as one; parameters are numbered through."""
        states: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        for part in self.parts:
            first = sum(len(group["params"]) for group in groups)
            own = part.state_dict()
            states |= {first + i: state for i, state in own["state"].items()}
            groups += [{**group, "params": [first + i for i in group["params"]]} for group in own["param_groups"]]
        return {"state": states, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned: each part takes its own groups and parameters."""
        states, groups = state_dict["state"], iter(state_dict["param_groups"])
        first = 0
        for part in self.parts:
            own = [next(groups) for _ in part.param_groups]
            n = sum(len(group["params"]) for group in own)
            part.load_state_dict(
                {
                    "state": {i: states[first + i] for i in range(n) if first + i in states},
                    "param_groups": [{**group, "params": [i - first for i in group["params"]]} for group in own],
                }
            )
            first += n

    def step(self) -> None:
        """One step of each part."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none)


Optimizer = torch.optim.Optimizer | ChainedOptimizer

OPTIMIZERS: dict[str, Callable[[LanguageModel, TrainConfig, Native | None], Optimizer]] = {
    "adamw": adamw,
    "muon": muon,
}


def mark_fitted(optimizer: Optimizer) -> None:
    """Let what AdamW updates beside Muon, above all embedding and head, learn at the rates of `fitted_lr_factor`.

    AdamW alone has one rate for all weights, which stays.
    """
    if isinstance(optimizer, ChainedOptimizer):
        for group in optimizer.parts[-1].param_groups:
            group["fitted"] = True


def fitted_lr_factor(n_steps: int) -> float:
    """Return the share of its learning rates that AdamW has in a run of so many steps that begins as a fit.

    High rates destroy the fit; a longer run has the time to learn more than it.
    """
    return min(MOST_FITTED_LR, max(LEAST_FITTED_LR, n_steps / FITTED_LR_STEPS))


def build_optimizer(model: LanguageModel, config: TrainConfig, native: Native | None = None) -> Optimizer:
    """Return the optimizer a run asks for, computed by the native engine where it can, if that is given.

    Raises `ConfigError` for an unknown name.
    """
    if config.optimizer not in OPTIMIZERS:
        raise ConfigError(
            "--optimizer must be one of {names} (got {optimizer})",
            optimizer=config.optimizer,
            names=", ".join(OPTIMIZERS),
        )
    return OPTIMIZERS[config.optimizer](model, config, native)
