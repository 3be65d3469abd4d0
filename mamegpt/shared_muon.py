"""Muon for weights that are shared out: of each matrix one process is the owner, and has its update whole for a moment.

`torch.optim.Muon` works on shares as well, but lets every product of its iteration talk. Here each process sends its
rows of a momentum to the owner and gets its rows of the result back, both in bfloat16, in which the iteration computes
anyway: less than 4 bytes a parameter, of all processes together. A process owns every n-th matrix, so that the
products are shared out too.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

__all__ = ["SharedMuon", "orthogonalised"]


class SharedMuon(torch.optim.Muon):
    """`torch.optim.Muon` with Nesterov momentum, bit for bit, on matrices whose rows are shared out (FSDP2)."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nobody here has a closure
        """One step; all processes call it together."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            n = dist.get_world_size()
            for i in range(0, len(parameters), n):
                self._together(parameters[i : i + n], group)

    def _together(self, parameters: list[DTensor], group: dict[str, Any]) -> None:
        """One step of as many matrices as there are processes, or fewer: the r-th is process r's."""
        rank, size = dist.get_rank(), dist.get_world_size()
        updates = []
        for parameter in parameters:
            gradient = cast(DTensor, parameter.grad)
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            momentum = state["momentum_buffer"].to_local()
            momentum.lerp_(gradient.to_local(), 1 - group["momentum"])
            updates.append(gradient.to_local().lerp(momentum, group["momentum"]).bfloat16())
        sent = [update.numel() for update in updates] + [0] * (size - len(updates))
        got, owns = [0] * size, rank < len(parameters)
        if owns:
            n_rows, n_columns = parameters[rank].shape
            most = -(-n_rows // size)  # as torch.chunk shares them out
            got = [n_columns * max(0, min(most, n_rows - r * most)) for r in range(size)]
        whole = _exchanged(torch.cat([update.flatten() for update in updates]), sent, got)  # shares are rows in order
        if owns:
            whole = orthogonalised(whole.view(n_rows, n_columns), group).flatten()
        mine = torch.split(_exchanged(whole, got, sent), sent)
        for parameter, update in zip(parameters, mine, strict=False):  # there may be more processes
            n_rows, n_columns = parameter.shape
            share = parameter.to_local()
            share.mul_(1 - group["lr"] * group["weight_decay"])
            share.add_(update.view_as(share), alpha=-group["lr"] * max(1, n_rows / n_columns) ** 0.5)


def orthogonalised(matrix: Tensor, group: dict[str, Any]) -> Tensor:
    """The nearest matrix with all singular values near 1, by Newton-Schulz in bfloat16 (Jordan et al. 2024)."""
    a, b, c = group["ns_coefficients"]
    is_tall = matrix.size(0) > matrix.size(1)
    x = matrix.bfloat16().T if is_tall else matrix.bfloat16()
    x = x / x.norm().clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


def _exchanged(values: Tensor, sent: list[int], got: list[int]) -> Tensor:
    """What all processes have for this one: each sends the r-th of its stretches, ``sent`` long, to process r."""
    received = values.new_empty(sum(got))
    dist.all_to_all_single(received, values, got, sent)
    return received
