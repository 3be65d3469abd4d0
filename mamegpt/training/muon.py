"""Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"), in batches of equal matrices.

`torch.optim.Muon` updates one matrix after another and always multiplies in bfloat16, which a processor without
bfloat16 instructions emulates twenty times as slowly (docs/log.md). `Muon` here takes the products in the type that
the run computes in, and stacks all matrices of one shape into one product.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mamegpt.distributed.sharding import local
from mamegpt.native.library import Native
from mamegpt.native.muon import fits, muon_step

__all__ = ["Muon", "orthogonalize"]

BATCH_BYTES = 32 << 20
"""Bytes of matrices in one batch; more would need memory and gain nothing."""


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` with its defaults, except that products are taken in ``compute_dtype`` and in batches.

    ``parameters`` are matrices; the state holds a ``momentum_buffer`` for each, as PyTorch's does. ``native``, if it is
    given, updates in bfloat16 the matrices that it can.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        weight_decay: float,
        compute_dtype: torch.dtype,
        native: Native | None = None,
    ) -> None:
        super().__init__(parameters, lr=lr, weight_decay=weight_decay)
        self.compute_dtype = compute_dtype
        self.native = native if compute_dtype == torch.bfloat16 else None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002  (no caller has one)
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[nn.Parameter]] = {}
            by_engine: list[nn.Parameter] = []
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if self.native and fits(parameter) and fits(parameter.grad):
                    by_engine.append(parameter)
                else:
                    alike.setdefault(tuple(sorted(parameter.shape)), []).append(parameter)
            if self.native and by_engine:
                gradients = [parameter.grad for parameter in by_engine if parameter.grad is not None]
                muon_step(self.native, by_engine, gradients, [self._momentum(one) for one in by_engine], group)
            for (rows, columns), parameters in alike.items():
                size = max(1, BATCH_BYTES // (rows * columns * 4))
                for begin in range(0, len(parameters), size):
                    self._step_together(parameters[begin : begin + size], group)

    def _step_together(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Update matrices that have one shape, or that shape transposed."""
        updates = torch.stack([_wide(self._averaged_gradient(parameter, group)) for parameter in parameters])
        for parameter, update in zip(parameters, orthogonalize(updates, group, self.compute_dtype), strict=True):
            self._apply(parameter, update if update.shape == parameter.shape else update.mT, group)

    def _averaged_gradient(self, parameter: nn.Parameter, group: dict[str, Any]) -> Tensor:
        """Advance the momentum of a matrix, and return what is to be orthogonalized (Nesterov); local rows only."""
        assert parameter.grad is not None
        momentum, gradient = local(self._momentum(parameter)), local(parameter.grad)
        momentum.lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(momentum, group["momentum"])

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        """Return the momentum of a matrix, zeros at first."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum_buffer"]
        return momentum

    def _apply(self, parameter: nn.Parameter, update: Tensor, group: dict[str, Any]) -> None:
        """Decay a matrix and add its orthogonalized update; ``update`` has the local rows."""
        rows, columns = parameter.shape
        weights = local(parameter)
        weights.mul_(1 - group["lr"] * group["weight_decay"])
        weights.add_(update, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def orthogonalize(matrices: Tensor, group: dict[str, Any], compute_dtype: torch.dtype) -> Tensor:
    """Map matrices (..., m, n), m <= n, to ones whose singular values are all near 1, by Newton-Schulz iteration.

    Each step is X <- a X + (b A + c A A) X with A = X X^T and (a, b, c) = ``group["ns_coefficients"]``, from
    X = G / |G| (Jordan et al. 2024). The result is in ``compute_dtype``.
    """
    a, b, c = group["ns_coefficients"]
    if compute_dtype == torch.float16:  # whose range does not hold gradients
        matrices = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=torch.finfo(matrices.dtype).tiny)
    x = (
        matrices.to(compute_dtype).reshape(-1, *matrices.shape[-2:]).contiguous()
    )  # (N, m, n); in one layout, one rounding
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.view(matrices.shape)


def _wide(matrix: Tensor) -> Tensor:
    """Return a matrix, transposed if it has more rows than columns."""
    return matrix.mT if matrix.size(0) > matrix.size(1) else matrix
