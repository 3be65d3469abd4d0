"""How good a model is: loss, and bits per byte and per character of the text itself.

Nats per token depend on the tokenizer; bits per byte and per character do not, so they compare any two models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mamegpt.distributed import World, sum_over_processes
from mamegpt.errors import DataError
from mamegpt.loss import linear_cross_entropy
from mamegpt.models import LanguageModel
from mamegpt.tokenizer import Tokenizer

__all__ = ["Quality", "TokenLengths", "evaluate"]


@dataclass(frozen=True)
class Quality:
    """``loss`` in nats per token; the bits are of all tokens, end-of-text included, over the text's own length."""

    loss: float
    bits_per_byte: float
    bits_per_character: float
    n_tokens: int
    n_characters: int
    n_bytes: int


class TokenLengths:
    """How many bytes and characters of text each token stands for, as two arrays (V,)."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        raw = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
        self.n_bytes = np.array([len(b) for b in raw])
        # A character's first byte is any byte but 10xxxxxx, so pieces of one character add up to one.
        self.n_characters = np.array([sum(byte & 0xC0 != 0x80 for byte in b) for b in raw])


def evaluate(
    model: LanguageModel,
    tokens: npt.NDArray[Any],
    lengths: TokenLengths,
    *,
    context_length: int,
    start_id: int | None,
    world: World,
    max_tokens: int = 0,
    batch_size: int = 32,
    product_dtype: torch.dtype | None = None,
) -> Quality:
    """Predict each of ``tokens`` (N,) once, in windows of ``context_length`` that do not overlap.

    The first token is predicted after ``start_id``; without one it is not counted.
    ``max_tokens`` takes only the beginning. Processes share the windows. Matrix products are taken in
    ``product_dtype`` (default: that of the weights). Raises `DataError` for fewer than two tokens.
    """
    stream = tokens[: max_tokens or None].astype(np.int64)
    if start_id is not None:
        stream = np.concatenate(([start_id], stream))
    if len(stream) < 2:
        raise DataError("there is nothing to evaluate: the text holds less than two tokens")
    n_targets = len(stream) - 1
    device = world.device
    total = 0.0  # a number of Python's, as not every device has double precision
    was_training = model.training
    model.eval()
    with torch.no_grad():
        n_full = n_targets // context_length
        whole = n_full * context_length
        x, y = (torch.from_numpy(stream[i : i + whole]).view(n_full, context_length) for i in (0, 1))
        batches = [(x[i : i + batch_size], y[i : i + batch_size]) for i in range(0, n_full, batch_size)]
        if whole < n_targets:  # a last window, shorter than the others
            tail = torch.from_numpy(stream[whole:])[None]
            batches.append((tail[:, :-1], tail[:, 1:]))
        # Processes that share a model's weights make equally many passes: the last ones may be for nothing.
        for i in range(world.rank, world.size * math.ceil(len(batches) / world.size), world.size):
            x, y = batches[min(i, len(batches) - 1)]
            with torch.autocast(device.type, product_dtype, enabled=product_dtype is not None):
                hidden = model.hidden(x.to(device))
            nats = linear_cross_entropy(hidden, model.out_head.weight, y.to(device), product_dtype)
            total += nats.item() if i < len(batches) else 0.0
    model.train(was_training)
    all_nats = total
    if world.size > 1:
        all_nats = sum_over_processes(torch.tensor(total, dtype=torch.float64, device=device)).item()
    counted = stream[1:]
    n_bytes = int(lengths.n_bytes[counted].sum())
    n_characters = int(lengths.n_characters[counted].sum())
    bits = all_nats / math.log(2)
    return Quality(
        loss=all_nats / n_targets,
        bits_per_byte=bits / max(1, n_bytes),
        bits_per_character=bits / max(1, n_characters),
        n_tokens=n_targets,
        n_characters=n_characters,
        n_bytes=n_bytes,
    )
