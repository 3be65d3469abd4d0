"""The output head and its cross-entropy, without all logits in memory at once.

In a small model the head is most of the work, and its logits are most of the memory: 8,192 tokens times a vocabulary
size of 16,000 are half a gigabyte, read and written several times. Here the logits of one chunk of tokens exist at a
time, and the gradient of the chunk is computed immediately.

Each chunk needs one matrix product for the logits, one softmax (a single pass of PyTorch's kernel, which reads and
writes bfloat16 and computes in float32), and two matrix products for the gradients. Nothing else reads all logits.
The native engine (`mamegpt.native`) computes the same on a CPU, without a pass over the logits in between.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mamegpt.native.library import Native

__all__ = ["chunk_tokens", "linear_cross_entropy"]

SMALLEST = 1e-30
"""Probability below which the logarithm is computed from the logits: the exponent of a float32 ends at 1e-38."""

HEADROOM = 64
"""By which states are divided in float16 before a sum over tokens, a power of two, which rounds nothing."""


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    compute_dtype: torch.dtype | None = None,
    *,
    soft_targets: Tensor | None = None,
    true_share: float = 1.0,
    native: Native | None = None,
) -> Tensor:
    """Return the sum over all targets of -log softmax(hidden @ weight.T)[target], in nats; a float32 scalar.

    ``hidden`` (..., C), ``weight`` (V, C), ``targets`` (...) int64. The three matrix products are computed in
    ``compute_dtype`` (default: that of ``weight``); sums over chunks, and the returned gradients, have the dtypes of
    the inputs. Equal to ``F.cross_entropy(hidden @ weight.T, targets, reduction="sum")`` up to rounding, gradients too:
    in bfloat16 the loss to about 1e-4 and the gradients to 1 % of their norm.

    With ``soft_targets`` (..., K) int64 the gradients, and only they, are those of a loss with a mixed target:
    ``targets`` with the weight ``true_share``, and each of the K with an equal part of the rest.

    With ``native`` that engine computes, on a CPU, with ``compute_dtype`` float32 or bfloat16 and float32 inputs.
    """
    # Asked here, because inside an autograd function gradients always appear to be disabled.
    needs_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    loss: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden.reshape(-1, hidden.shape[-1]),
        weight,
        targets.reshape(-1),
        compute_dtype or weight.dtype,
        needs_gradient,
        None if soft_targets is None else soft_targets.flatten(0, -2),
        true_share,
        native,
    )
    return loss


def chunk_tokens(vocab_size: int, dtype: torch.dtype, device: torch.device) -> int:
    """Return how many tokens' logits are computed at once: enough for fast products, few enough for the cache.

    With a small vocabulary, these are as many as fill 2 MB (measured in docs/log.md). Other devices than the CPU have
    thousands of units to keep busy, and start each operation for all of them: 256 MB (not measured).
    """
    size = 2 << 20 if device.type == "cpu" else 256 << 20
    return max(256, size // (vocab_size * dtype.itemsize))


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes both gradients in the forward pass; the backward pass only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        dtype: torch.dtype,
        needs_gradient: bool,
        soft_targets: Tensor | None,
        true_share: float,
        native: Native | None,
    ) -> Tensor:
        """Compute the loss and, if needed, both gradients: (N, C), (V, C), (N,), (N, K) -> scalar."""
        if native is None:
            found = _in_chunks(hidden, weight, targets, dtype, needs_gradient, soft_targets, true_share)
        else:
            found = native.head(hidden, weight, targets, soft_targets, true_share, needs_gradient, dtype)
        loss, *gradients = found
        ctx.save_for_backward(*gradients)
        ctx.hidden_dtype = hidden.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients of the forward pass."""
        grad_hidden, grad_weight = ctx.saved_tensors
        scaled = grad_hidden.to(ctx.hidden_dtype) * grad_outputs[0], grad_weight * grad_outputs[0]
        return *scaled, None, None, None, None, None, None


def _in_chunks(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    dtype: torch.dtype,
    needs_gradient: bool,
    soft_targets: Tensor | None,
    true_share: float,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the loss and, if needed, both gradients: (N, C), (V, C), (N,), (N, K) -> scalar, (N, C), (V, C)."""
    all_h, w = hidden.to(dtype), weight.to(dtype)
    on_cpu = hidden.device.type == "cpu"
    n_chunk = chunk_tokens(weight.shape[0], dtype, hidden.device)
    loss = hidden.new_zeros((), dtype=torch.float32)
    grad_hidden = torch.empty_like(all_h) if needs_gradient else None
    grad_weight = torch.zeros_like(weight) if needs_gradient else None
    for begin in range(0, hidden.shape[0], n_chunk):
        h, t = all_h[begin : begin + n_chunk], targets[begin : begin + n_chunk, None]
        logits = h @ w.T  # (n, V)
        p = logits.softmax(-1)  # (n, V)
        p_target = p.gather(-1, t)  # (n, 1)
        # Off the CPU, asking would wait for the device.
        if not on_cpu or dtype == torch.float16 or bool((p_target < SMALLEST).any()):
            logits = logits.float()
            loss -= (logits.gather(-1, t) - logits.logsumexp(-1, keepdim=True)).sum()
        else:
            loss -= p_target.float().log().sum()
        if grad_hidden is None or grad_weight is None:
            continue
        # d loss / d logits = softmax(logits) - target distribution, written over the probabilities
        rows = torch.arange(len(t), device=t.device)[:, None]
        grad = p.index_put_((rows, t), p_target - true_share)  # scatter_ would copy all of p
        if soft_targets is not None:
            soft = soft_targets[begin : begin + n_chunk]
            share = torch.full((), (true_share - 1) / soft.shape[-1], dtype=dtype, device=p.device)
            grad.scatter_add_(-1, soft, share.expand(soft.shape))
        if on_cpu:
            torch.mm(grad, w, out=grad_hidden[begin : begin + n_chunk])
        else:  # MPS of macOS 14 never writes an out= that is a slice (pytorch#193385)
            grad_hidden[begin : begin + n_chunk] = grad @ w
        if dtype == weight.dtype:
            grad_weight.addmm_(grad.T, h)
        elif dtype == torch.float16:  # a sum over many tokens would pass the end of its range
            grad_weight.add_(grad.T @ (h / HEADROOM), alpha=HEADROOM)
        else:
            grad_weight += grad.T @ h
    return loss, grad_hidden, grad_weight
