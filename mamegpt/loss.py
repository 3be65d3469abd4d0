"""The output head and its cross-entropy, without ever holding all logits.

With a small model the head is most of the work and its logits are most of the memory: 8,192 tokens times 16,000
pieces are half a gigabyte, read and written several times. Here they exist one chunk of tokens at a time, and the
chunk's gradient is taken while it is still in cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["linear_cross_entropy"]

CHUNK_BYTES = 8 << 20
"""Logits held at once. About half of a desktop processor's last-level cache; measured in docs/log.md."""


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Sum over all targets of -log softmax(hidden @ weight.T)[target], in nats; a float32 scalar.

    ``hidden`` (..., C), ``weight`` (V, C), ``targets`` (...) int64. Equal to
    ``F.cross_entropy(hidden @ weight.T, targets, reduction="sum")`` up to rounding, gradients too.
    """
    loss: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden.reshape(-1, hidden.shape[-1]), weight, targets.reshape(-1)
    )
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes both gradients in the forward pass; the backward pass only scales them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """(N, C), (V, C), (N,) -> scalar."""
        needs_gradient = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        n_chunk = max(1, CHUNK_BYTES // (weight.shape[0] * 4))
        loss = hidden.new_zeros((), dtype=torch.float32)
        grad_hidden = torch.empty_like(hidden) if needs_gradient else None
        grad_weight = torch.zeros_like(weight) if needs_gradient else None
        for begin in range(0, hidden.shape[0], n_chunk):
            h, t = hidden[begin : begin + n_chunk], targets[begin : begin + n_chunk, None]
            logits = (h @ weight.T).float()  # (n, V)
            log_z = logits.logsumexp(-1, keepdim=True)  # (n, 1)
            loss += (log_z - logits.gather(-1, t)).sum()
            if grad_hidden is not None and grad_weight is not None:
                # d loss / d logits = softmax(logits) - onehot(target), written over the logits
                grad = logits.sub_(log_z).exp_().scatter_add_(-1, t, logits.new_full((), -1.0).expand(t.shape))
                grad = grad.to(weight.dtype)
                torch.mm(grad, weight, out=grad_hidden[begin : begin + n_chunk])
                grad_weight.addmm_(grad.T, h)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        """Scale the gradients that the forward pass left."""
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad_outputs[0], grad_weight * grad_outputs[0], None
