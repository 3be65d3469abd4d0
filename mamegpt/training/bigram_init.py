"""Initial weights from counts: a model that knows at step 0 which token follows which.

Where all blocks begin as the identity, embedding, last norm and head are a model of bigrams. Fitting it to the counts
of the training text takes seconds, a small part of what the first steps would take to learn the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mamegpt.config import TrainConfig
from mamegpt.models.base import LanguageModel, token_embedding
from mamegpt.models.registry import architecture
from mamegpt.training.ngram_targets import counted
from mamegpt.training.optim import lr_factor

__all__ = ["can_fit_bigrams", "fit_bigrams", "fit_operations"]

N_STEPS = 160
N_ROWS = 512
"""Tokens whose continuations one step fits, drawn by the square root of how often they occur."""
HEAD_LR = 3e-2
EMBEDDING_LR = 3 * HEAD_LR
WARMUP, COOLDOWN = 0.03, 0.6


def can_fit_bigrams(config: TrainConfig) -> bool:
    """Return whether a new model is one of bigrams, each of whose matrices is its own and whole in every process."""
    is_whole = config.sharding == "none" and not config.tie_embeddings
    return is_whole and not config.init_from and architecture(config.architecture).hidden_of_tokens is not None


def fit_operations(config: TrainConfig, vocab_size: int) -> int:
    """Return the floating-point operations of `fit_bigrams`: three products of rows, head and hidden states a step."""
    return 6 * N_STEPS * N_ROWS * vocab_size * config.emb_dim


def fit_bigrams(
    model: LanguageModel,
    hidden: Callable[[Tensor], Tensor],
    tokens: npt.NDArray[Any],
    seed: int,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Tensor:
    """Fit embedding and head of a model, in place, to what follows each token in ``tokens`` (or in a sample of them).

    ``hidden`` makes final hidden states (N, C) of ids (N,) without any block. The loss is the cross-entropy of the
    bigram counts, each token weighted by how often it occurs. ``on_progress`` is called with the share that is done.
    Returns the mean of the hidden states over the text, (C,).
    """
    embedding, head = token_embedding(model).weight, model.out_head.weight
    V, device = head.shape[0], head.device
    optimizer = torch.optim.Adam(
        [{"params": [embedding], "peak_lr": EMBEDDING_LR}, {"params": [head], "peak_lr": HEAD_LR}],
        betas=(0.9, 0.95),
        fused=True,
    )
    text = counted(tokens)
    bigrams, n = np.unique(text[:-1] * V + text[1:], return_counts=True)
    begins = np.searchsorted(bigrams, np.arange(V + 1) * V)
    frequency = np.bincount(text[:-1], minlength=V) / (len(text) - 1)
    chance = np.sqrt(frequency) / np.sqrt(frequency).sum()
    up_to, share = chance.cumsum(), n / (len(text) - 1)
    random = np.random.default_rng(seed)
    for step in range(N_STEPS):
        factor = lr_factor(step, N_STEPS, WARMUP, COOLDOWN)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        places = (np.arange(N_ROWS) + random.random()) / N_ROWS
        rows, times = np.unique(np.minimum(np.searchsorted(up_to, places), V - 1), return_counts=True)
        found = np.concatenate([np.arange(begins[row], begins[row + 1]) for row in rows])
        row = np.repeat(np.arange(len(rows)), begins[rows + 1] - begins[rows])
        # A token is drawn chance * N_ROWS times on average, so its weights are on average its share of the text.
        weight = times / (chance[rows] * N_ROWS)
        of_token, of_bigram = (
            torch.from_numpy(w.astype(np.float32)).to(device)
            for w in (frequency[rows] * weight, share[found] * weight[row])
        )
        h = hidden(torch.from_numpy(rows).to(device))  # (rows, C)
        with torch.no_grad():  # d loss / d logits = softmax(logits) - what follows, both with their weights
            grad = model.out_head(h).softmax(-1).mul_(of_token[:, None])  # (rows, V)
            grad[torch.from_numpy(row), torch.from_numpy(bigrams[found] % V)] -= of_bigram
            head.grad, grad_h = grad.T @ h, grad @ head
        (embedding.grad,) = torch.autograd.grad(h, embedding, grad_h)
        optimizer.step()
        on_progress((step + 1) / N_STEPS)
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        every = hidden(torch.arange(V, device=device))  # (V, C)
        return torch.from_numpy(frequency.astype(np.float32)).to(device) @ every
