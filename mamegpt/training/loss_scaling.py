"""Loss scaling, without which small gradients are zero in float16.

The loss is multiplied by a scale before the backward pass, and the gradients are divided by it (Micikevicius et al.
2018, "Mixed Precision Training", section 3.2). If one of them is then not finite, the scale was too large: the step
leaves the weights as they are, and the scale is halved; after many steps without that it is doubled. All of that is
PyTorch's `GradScaler`, which passes everything through in other formats. A step that is skipped counts like any other,
so data order and learning rate remain functions of the step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.amp import GradScaler

from mamegpt.config import TrainConfig
from mamegpt.run.checkpoint import State

__all__ = ["loss_scaler", "restore_scale", "scale_of"]

INITIAL_SCALE = 2.0**16


def loss_scaler(config: TrainConfig, device: torch.device) -> GradScaler:
    """Return the scaler of a run, which does nothing unless its products are in float16."""
    return GradScaler(device.type, init_scale=INITIAL_SCALE, enabled=config.precision == "fp16")


def scale_of(scaler: GradScaler) -> dict[str, Any]:
    """Return what a checkpoint's `State` holds of a scaler."""
    found = scaler.state_dict()
    return {"loss_scale": found["scale"], "loss_scale_age": found["_growth_tracker"]} if found else {}


def restore_scale(scaler: GradScaler, state: State) -> None:
    """Let a scaler go on from a checkpoint, if that has a scale."""
    if state.loss_scale and scaler.is_enabled():
        found = {"scale": state.loss_scale, "_growth_tracker": state.loss_scale_age}
        scaler.load_state_dict(scaler.state_dict() | found)
