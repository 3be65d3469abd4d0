"""Parameter groups, optimizers and the learning-rate schedule.

An optimizer is a function from a model and a `TrainConfig` to a `torch.optim.Optimizer`; adding one is a function
and a line in `OPTIMIZERS`. Each parameter group carries ``peak_lr``; the trainer multiplies it by `lr_factor`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from mamegpt.config import TrainConfig
from mamegpt.errors import ConfigError

__all__ = ["OPTIMIZERS", "build_optimizer", "lr_factor"]

FINAL_LR_FACTOR = 0.01
"""Where the cool-down ends, as a share of the peak."""


def lr_factor(step: int, max_steps: int, warmup_fraction: float, cooldown_fraction: float) -> float:
    """The share of the peak learning rate at a step, in (0, 1]: a linear rise, a plateau, a linear fall.

    The trapezoid of Zhai et al. 2022 ("Scaling Vision Transformers", section 2.5). Step 0 is never at zero.
    """
    warmup_steps = warmup_fraction * max_steps
    cooldown_steps = cooldown_fraction * max_steps
    rise = (step + 1) / warmup_steps if warmup_steps else 1.0
    left = (max_steps - step) / cooldown_steps if cooldown_steps else 1.0
    return min(1.0, rise, FINAL_LR_FACTOR + (1 - FINAL_LR_FACTOR) * left)


def adamw(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019), one fused kernel; weight decay on matrices only."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = all(p.device.type in ("cpu", "cuda", "mps") for p in parameters)
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), fused=fused)
    for group in optimizer.param_groups:
        group["peak_lr"] = config.lr
    return optimizer


OPTIMIZERS: dict[str, Callable[[nn.Module, TrainConfig], torch.optim.Optimizer]] = {
    "adamw": adamw,
}


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer a run asks for. Raises `ConfigError` for an unknown name."""
    if config.optimizer not in OPTIMIZERS:
        raise ConfigError(f"--optimizer {config.optimizer} is not known; choose from {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[config.optimizer](model, config)
