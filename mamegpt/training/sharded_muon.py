"""Muon for weights that are sharded: each matrix has one owner process, which has its update whole for a moment.

`torch.optim.Muon` works on shards as well, but every product of its iteration communicates. Here each process sends its
rows of a momentum to the owner and gets its rows of the result back, both in the type of the products: in bfloat16 less
than 4 bytes a parameter, over all processes together. A process owns every n-th matrix, so that the products are
distributed too.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mamegpt.training.muon import Muon, orthogonalize

__all__ = ["ShardedMuon"]


class ShardedMuon(Muon):
    """`Muon`, bit for bit, on matrices whose rows are sharded (FSDP2)."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002  (no caller has one)
        """Update every matrix that has a gradient; all processes call it together."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            n = dist.get_world_size()
            for i in range(0, len(parameters), n):
                self._step_together(parameters[i : i + n], group)

    def _step_together(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Update as many matrices as there are processes, or fewer: the r-th is process r's."""
        rank, size = dist.get_rank(), dist.get_world_size()
        updates = [self._averaged_gradient(parameter, group).to(self.compute_dtype) for parameter in parameters]
        sent = [update.numel() for update in updates] + [0] * (size - len(updates))
        got, owns = [0] * size, rank < len(parameters)
        if owns:
            n_rows, n_columns = parameters[rank].shape
            most = -(-n_rows // size)  # as torch.chunk shards them
            got = [n_columns * max(0, min(most, n_rows - r * most)) for r in range(size)]
        whole = _exchanged(torch.cat([update.flatten() for update in updates]), sent, got)  # shards are rows in order
        if owns:
            matrix = whole.view(n_rows, n_columns)
            is_tall = n_rows > n_columns
            matrix = orthogonalize(matrix.mT if is_tall else matrix, group, self.compute_dtype)
            whole = (matrix.mT if is_tall else matrix).flatten()
        mine = torch.split(_exchanged(whole, got, sent), sent)
        for parameter, result, update in zip(parameters, mine, updates, strict=False):  # there may be more processes
            self._apply(parameter, result.view_as(update), group)


def _exchanged(values: Tensor, sent: list[int], got: list[int]) -> Tensor:
    """Send the r-th of the stretches of ``values``, ``sent`` long, to process r; return what this one gets."""
    received = values.new_empty(sum(got))
    dist.all_to_all_single(received, values, got, sent)
    return received
