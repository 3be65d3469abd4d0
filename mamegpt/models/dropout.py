"""Fast dropout on a CPU.

PyTorch draws a random number of 32 bits or more per activation, which on a CPU takes longer than all matrix products of
a small model (docs/log.md). Sixteen bits are enough: a rate of 0.1 becomes 6554 / 65536 = 0.100006. They come from a
generator of 64-bit numbers that is seeded from PyTorch's generator, so that PyTorch's seed determines every mask.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FastDropout", "use_fast_dropout"]

LEVELS = 1 << 16


class FastDropout(nn.Module):
    """`nn.Dropout` (Srivastava et al. 2014); on a CPU its rate is rounded to sixteen bits."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.threshold = round(p * LEVELS)

    def forward(self, x: Tensor) -> Tensor:
        """Drop values, (...) -> (...): in training, a share ``p`` becomes zero, the others are scaled by 1 / (1 -
        p).
        """
        if x.device.type != "cpu":
            return F.dropout(x, self.p, self.training)
        if not self.training or self.threshold == 0:
            return x
        return x.masked_fill(self._dropped(x.shape), 0.0) * (LEVELS / (LEVELS - self.threshold))

    def _dropped(self, shape: torch.Size) -> Tensor:
        """Return a mask of this shape, true with probability ``p``."""
        seed = int(torch.randint(1 << 62, ()).item())
        n = shape.numel()
        words = np.random.Generator(np.random.SFC64(seed)).integers(1 << 64, size=-(-n // 4), dtype=np.uint64)
        bits = torch.from_numpy(words.view(np.int16)[:n])  # -32768 ... 32767
        return (bits < self.threshold - LEVELS // 2).view(shape)


def use_fast_dropout(model: nn.Module) -> None:
    """Replace each `nn.Dropout` inside a model by a `FastDropout`."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, FastDropout(child.p))
