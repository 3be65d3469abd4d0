"""How good a model is: loss, and bits per byte and per character of the text itself.

Nats per token depend on the tokenizer; bits per byte and per character do not, so they compare any two models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from mamegpt.data.conversation_order import Examples, LabelledTexts
from mamegpt.distributed.processes import World, sum_over_processes
from mamegpt.errors import DataError
from mamegpt.models.base import LanguageModel
from mamegpt.models.loss import linear_cross_entropy
from mamegpt.native.library import Native
from mamegpt.run.metrics import Quality
from mamegpt.system.devices import on_device, total_memory
from mamegpt.text.subsample import subsample
from mamegpt.training.forward import compute_with, engine_of_head

__all__ = ["evaluate", "evaluate_examples", "rows_in_pass"]

PASS_TOKENS = {"cpu": 8192, "mps": 16384}
"""Tokens in one pass of a kind of device; MPS may compute products of more wrongly (pytorch#193487)."""
MOST_PASS_TOKENS = 65536
"""Tokens in one pass of any other: more would keep it no busier."""
MEMORY_SHARE = 8
"""A pass may need one part in so many of a device's memory."""
BYTES_PER_WIDTH = 128
"""Bytes of a token in one layer, for each of its hidden size: 32 numbers, of attention and feed-forward layer."""


def evaluate(
    model: LanguageModel,
    tokens: npt.NDArray[Any],
    *,
    n_characters: int,
    n_bytes: int,
    start_id: int | None,
    context_length: int,
    world: World,
    max_tokens: int = 0,
    batch_size: int = 0,
    compute_dtype: torch.dtype | None = None,
    native: Native | None = None,
    step: int | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Quality:
    """Predict each of ``tokens`` (N,) once, in windows of ``context_length`` that do not overlap.

    The first token is predicted after ``start_id``; without one it is not counted.
    ``max_tokens`` measures a `subsample` of the windows (0: all). ``n_characters`` and ``n_bytes`` are those of the
    text that the tokens were made from, some of which a tokenizer may have lost; a sample has its share of them.
    Processes share the windows, of which ``batch_size`` are in a pass (0: as many as suit the device). Matrix products
    are taken in ``compute_dtype`` (default: that of the weights); ``native`` computes what it does in training, to
    other last bits. Raises `DataError` for fewer than two tokens.
    ``on_progress`` is called with the share that is done.
    """
    lead = [] if start_id is None else [start_id]
    n_targets = len(tokens) + len(lead) - 1
    if n_targets < 1:
        raise DataError("there is nothing to evaluate: the text holds less than two tokens")

    def n_targets_of(window: int) -> int:
        return min(context_length, n_targets - window * context_length)

    def tokens_of(window: int) -> npt.NDArray[np.int64]:
        """Return the inputs of a window and one token more: it begins with the last target of the window before."""
        begin = window * context_length - len(lead)
        part = tokens[max(0, begin) : begin + context_length + 1].astype(np.int64)
        return part if begin >= 0 else np.concatenate((lead, part))

    windows = subsample(range(math.ceil(n_targets / context_length)), max_tokens or None, n_targets_of)
    full = [window for window in windows if n_targets_of(window) == context_length]
    batch_size = batch_size or rows_in_pass(context_length, model.out_head.in_features, world.device)
    batches = [full[i : i + batch_size] for i in range(0, len(full), batch_size)]
    if len(full) < len(windows):  # a last window, shorter than the others
        batches.append(windows[-1:])

    def rows_of(batch: Sequence[int]) -> Rows:
        some = np.stack([tokens_of(window) for window in batch])
        return some[:, :-1], some[:, 1:], None

    measure = _loss_of(model, compute_dtype, native)
    (all_nats,) = _sums(model, batches, rows_of, world, compute_dtype, native, on_progress, measure)
    n_measured = sum(map(n_targets_of, windows))
    dtype = compute_dtype or model.out_head.weight.dtype
    return _quality(all_nats, n_measured, n_measured / n_targets, n_characters, n_bytes, dtype, step)


def evaluate_examples(
    model: LanguageModel,
    examples: Examples,
    *,
    n_characters: int,
    n_bytes: int,
    world: World,
    max_tokens: int = 0,
    batch_size: int = 0,
    compute_dtype: torch.dtype | None = None,
    native: Native | None = None,
    step: int | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Quality:
    """Predict each token of the answers in conversations, or the labels of texts, once; otherwise as `evaluate`.

    ``n_characters`` and ``n_bytes`` are those of all answers or texts. ``max_tokens`` measures a `subsample` of them.
    The loss is in nats per token, or per label; of labels the accuracy is measured too.
    """
    are_labelled = isinstance(examples, LabelledTexts)
    measure = _labels_measure(model) if are_labelled else _loss_of(model, compute_dtype, native)
    chosen, batches = _chosen(examples, max_tokens, batch_size, model, world.device)
    nats, *n_right = _sums(model, batches, _rows_of(examples), world, compute_dtype, native, on_progress, measure)
    n_measured = int(examples.n_targets[chosen].sum())
    share = n_measured / int(examples.n_targets.sum())
    dtype = compute_dtype or model.out_head.weight.dtype
    found = _quality(nats, n_measured, share, n_characters, n_bytes, dtype, step)
    return replace(found, accuracy=n_right[0] / n_measured) if are_labelled else found


def rows_in_pass(n_tokens: int, width: int, device: torch.device) -> int:
    """Return how many rows of at most ``n_tokens`` a pass without gradients reads, in a model of a hidden size.

    They depend on the device, not on what of it is free just now, so that the same run has the same bits.
    """
    most = PASS_TOKENS.get(device.type, MOST_PASS_TOKENS)
    if device.type != "cpu":
        most = min(most, total_memory(device) // MEMORY_SHARE // (width * BYTES_PER_WIDTH))
    return max(1, most // n_tokens)


def _chosen(
    examples: Examples, max_tokens: int, batch_size: int, model: LanguageModel, device: torch.device
) -> tuple[list[int], list[list[int]]]:
    """Return a `subsample` of at most ``max_tokens`` tokens, those of similar length together, and its batches."""
    chosen = subsample(range(len(examples)), max_tokens or None, lambda i: int(examples.lengths[i]))
    chosen.sort(key=lambda i: int(examples.lengths[i]))
    longest = int(examples.lengths[chosen[-1]]) if chosen else 1
    batch_size = batch_size or rows_in_pass(longest, model.out_head.in_features, device)
    return chosen, [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]


def _quality(
    nats: float, n_tokens: int, share: float, n_characters: int, n_bytes: int, dtype: torch.dtype, step: int | None
) -> Quality:
    """Return the quality from the losses of a ``share`` of a text of so many characters and bytes."""
    return Quality.from_nats(
        nats,
        n_tokens,
        share * n_characters,
        share * n_bytes,
        of_n_characters=n_characters,
        dtype=str(dtype).removeprefix("torch."),
        step=step,
    )


Rows = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64] | None]
"""Inputs (B, T), and targets (B, T), or (N,) with their positions."""


def _rows_of(examples: Examples) -> Callable[[Sequence[int]], Rows]:
    return lambda batch: examples.rows(np.array(batch))


def _loss_of(
    model: LanguageModel, compute_dtype: torch.dtype | None, native: Native | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a measure (1,) of hidden states (..., C) and targets (...): the sum of their losses, in nats."""
    native = engine_of_head(native, compute_dtype, model)
    return lambda hidden, targets: linear_cross_entropy(
        hidden, model.out_head.weight, targets, compute_dtype, native=native
    ).reshape(1)


def _labels_measure(model: LanguageModel) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a measure (2,) of hidden states (B, C) and labels (B,): the sum of losses, and how many are right."""

    def measure(hidden: Tensor, labels: Tensor) -> Tensor:
        logits = hidden.float() @ model.out_head.weight.float().T  # (B, n_labels)
        nats = F.cross_entropy(logits, labels, reduction="sum")
        return torch.stack((nats, (logits.argmax(-1) == labels).sum().float()))

    return measure


@torch.no_grad()
def _sums(
    model: LanguageModel,
    batches: Sequence[Sequence[int]],
    rows_of: Callable[[Sequence[int]], Rows],
    world: World,
    compute_dtype: torch.dtype | None,
    native: Native | None,
    on_progress: Callable[[float], None],
    measure: Callable[[Tensor, Tensor], Tensor],
) -> list[float]:
    """Return the sums over all batches, which the processes share, of what is measured on hidden states and targets.

    A measure returns (k,) float32.
    """
    device = world.device
    measured: list[Tensor] = []  # read at the end, so that nothing waits for the device
    was_training = model.training
    model.eval()
    compute_with(native, model, compute_dtype)
    # Processes that share a model's weights make equally many passes: the last ones may be for nothing.
    for i in range(world.rank, world.size * math.ceil(len(batches) / world.size), world.size):
        inputs, targets, learned = rows_of(batches[min(i, len(batches) - 1)])
        with torch.autocast(device.type, compute_dtype, enabled=compute_dtype is not None):
            hidden = model.hidden(on_device(inputs, device))
        if learned is not None:
            hidden = hidden.flatten(0, 1).index_select(0, on_device(learned, device))
        found = measure(hidden, on_device(targets, device))
        measured.append(found if i < len(batches) else torch.zeros_like(found))
        on_progress(min(1.0, (i + world.size) / len(batches)))
    model.train(was_training)
    # Numbers of Python's, as not every device has double precision.
    totals = [sum(column, start=0.0) for column in zip(*torch.stack(measured).tolist(), strict=True)]
    if world.size > 1:
        return list(sum_over_processes(torch.tensor(totals, dtype=torch.float64), world.host_group).tolist())
    return totals
