"""The initial weights of the book's GPT."""

from __future__ import annotations

from torch import nn

from mamegpt.models.base import blocks

__all__ = ["init_weights"]


def init_weights(model: nn.Module) -> None:
    """Set GPT-2's initial weights (Radford et al. 2019, section 2.3): N(0, 0.02), narrower where residual branches end.

    PyTorch's default embeddings, N(0, 1), cost a tenth of the loss in a short run (docs/log.md).
    """
    n_layers = len(blocks(model))
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            adds_up = name.endswith(("att.proj.weight", "ff.layers.2.weight"))
            nn.init.normal_(parameter, std=0.02 / (2 * n_layers) ** 0.5 if adds_up else 0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
