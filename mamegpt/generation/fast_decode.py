"""The next token of one sequence on a CPU, by a decoding step instead of the model's own forward pass.

The model's own ``hidden`` reads the prompt; `DecodeStep.hidden` goes on from there, and `Head` makes logits of states.
Both are computed by the native engine where its library is there, else in PyTorch, on vectors (see `models.decode`).
`stream` does without for every model that `supports_fast_decode` does not know. The tests hold all of them equal.

Letters in shape comments are those of the models: C embedding width, K heads of keys and values, D width of a head,
V vocabulary.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mamegpt.generation.settings import check_finite
from mamegpt.models.decode import Step, by_columns, one_thread
from mamegpt.models.registry import architecture_of
from mamegpt.native.decode import NativeHead, NativeStep
from mamegpt.native.library import Native, load_if_built
from mamegpt.system.hardware import cpu_capabilities

__all__ = ["MAX_ONE_THREAD", "MAX_PARAMETERS", "DecodeStep", "Head", "native_for", "supports_fast_decode"]

MAX_PARAMETERS = 1 << 25
"""Parameters above which a step in PyTorch does not pay, since arithmetic outweighs calls, and it copies the weights.
The native step then computes on all threads, else on one: waking a second one takes longer than it saves."""
MAX_PROMPT_BY_STEPS = 16
"""Tokens of a prompt up to which the native engine reads them one by one; the calls of the model take longer."""
MAX_ONE_THREAD = 1 << 29
"""Tokens times parameters up to which a prompt is read by one thread."""


class DecodeStep:
    """A model that takes one sequence, first a prompt, then one token at a time."""

    def __init__(self, model: nn.Module, native: Native | None = None) -> None:
        self._model = model
        architecture = architecture_of(model)
        assert architecture is not None, "a model that supports_fast_decode"
        self._step: Step
        if native:
            self._step = step = NativeStep(native, architecture.step_weights(model), _n_threads(_n_parameters(model)))
            self._keys, self._values = step.keys, step.values
            self._max_steps = MAX_PROMPT_BY_STEPS
        else:
            with one_thread():
                rows, self._step = architecture.decode_step(model)
            self._keys, self._values = rows.keys, rows.values
            self._max_steps = 0
        self._length = 0

    def prompt(self, ids: Sequence[int]) -> Tensor:
        """Begin with ids (T,), and return the final hidden state (C,) of the last.

        The model itself reads many at once, and this is its cache.
        """
        if len(ids) <= self._max_steps:
            return [self.hidden(token) for token in ids][-1]
        model: Any = self._model
        with one_thread() if len(ids) * _n_parameters(model) <= MAX_ONE_THREAD else contextlib.nullcontext():
            state: Tensor = model.hidden(torch.tensor([ids]), self)[0, -1]
        return state

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Take in keys and values (1, K, T, D) of a layer, as the cache of the prompt."""
        self._length = key_states.shape[2]
        self._keys[layer_idx, :, :, : self._length] = key_states
        self._values[layer_idx, :, :, : self._length] = value_states
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Return how many tokens are held."""
        return self._length

    def hidden(self, token: int) -> Tensor:
        """Append a token, and return its final hidden state (C,)."""
        with one_thread():
            state = self._step(token, self._length)
        self._length += 1
        return state


SMALLEST = 1e-30
"""Largest number of a state below which it is not rounded: 127 by it might overflow float32."""


class Head:
    """The output head (V, C), asked for one position."""

    def __init__(self, weight: Tensor, native: Native | None = None) -> None:
        self._weight = weight.detach()
        self._native = NativeHead(native, self._weight, _n_threads(weight.numel())) if native else None
        # torch 2.13 misreads matrices of one column, or with a stride of 0, in torch._int_mm.
        self._counts_fast = native is not None or (weight.shape[1] > 1 and _pytorch_counts_fast())

    def logits(self, state: Tensor) -> Tensor:
        """Return the logits (V,) of a state (C,)."""
        if self._native:
            return self._native.logits(state)
        with one_thread():
            return self._product(state)

    def most_likely(self, state: Tensor) -> int:
        """Return the id of the largest logit of a state (C,), the first of equals; `ModelError` if it is not finite.

        Where the processor is good at it, whole numbers of 8 bits say first which ids come into question: a quarter
        of the memory to read, and no risk. Let a and b be a row and the state in units of which the largest is 127,
        and A and B the same rounded. Then |a b - A B| = |(a - A) b + A (b - B)| <= (|b|_1 + |A|_1) / 2. So the row
        with the largest a b has an A B within |b|_1 + max |A|_1 of the largest; logits tell those few apart.
        """
        x = state.numpy()
        peak = float(np.abs(x).max())
        check_finite(peak)
        if not (self._counts_fast and peak > SMALLEST):
            return int(self.logits(state).numpy().argmax())
        scaled = x * (127 / peak)
        with one_thread():
            rounded, largest_row = self._rounded
            slack = int(1.001 * np.abs(scaled).sum()) + largest_row + 1  # float32 rounds a little as well
            whole = torch.from_numpy(np.rint(scaled).astype(np.int16 if self._native else np.int8))
            if self._native:
                return self._native.most_likely(state, rounded, whole, slack)
            rough = torch._int_mm(whole[None], rounded)[0].numpy()  # (V,), exact sums
            ids = np.flatnonzero(rough >= rough.max() - slack)
            few = torch.from_numpy(self._weight.numpy()[ids])  # gathered faster than PyTorch does it
            return int(ids[torch.mv(few, state).numpy().argmax()])

    @cached_property
    def _product(self) -> Callable[[Tensor], Tensor]:
        matrix = by_columns(self._weight)
        return lambda state: torch.mv(matrix, state)

    @cached_property
    def _rounded(self) -> tuple[Tensor, int]:
        """The weights as int8, (C, V), for the native engine (V, C), and the largest sum of an id's absolute values."""
        low, high = self._weight.aminmax()
        largest = torch.maximum(-low, high).clamp(min=SMALLEST)
        if self._native:
            return self._native.rounded(largest.item())
        unit = largest / 127
        parts = torch.split(self._weight, 1024)  # small enough for the processor's cache
        rounded = torch.cat([(part / unit).round_().to(torch.int8) for part in parts])
        return rounded.t(), int(rounded.abs().sum(1).max())


@functools.cache
def _pytorch_counts_fast() -> bool:
    """Return whether `torch._int_mm` is fast here, and exact: where the instructions for that are refused to oneDNN
    (``ONEDNN_MAX_CPU_ISA``), it adds pairs of products in 16 bits, which do not hold them.
    """
    if not cpu_capabilities().get("avx512_vnni", False):
        return False
    largest = torch.full((64, 64), 127, dtype=torch.int8)
    return bool((torch._int_mm(largest[:1], largest.t()) == 64 * 127**2).all())


def native_for(model: nn.Module) -> Native | None:
    """Return the native engine if its library is there, and if it computes the decoding step of a model."""
    architecture = architecture_of(model)
    if architecture is None or not _is_plain(model) or not NativeStep.supports(architecture.step_weights(model)):
        return None
    return load_if_built()


def supports_fast_decode(model: nn.Module) -> bool:
    """Return whether there is a decoding step in PyTorch that is faster than a model: it is ours, plain and small."""
    return architecture_of(model) is not None and _n_parameters(model) <= MAX_PARAMETERS and _is_plain(model)


def _is_plain(model: nn.Module) -> bool:
    """Return whether a model is in float32 on a CPU, and has nothing replaced or hooked in it."""
    own = type(model).__module__
    return all(p.dtype == torch.float32 and p.device.type == "cpu" for p in model.parameters()) and all(
        type(module).__module__.startswith((own, "torch.nn.modules."))
        and not module._forward_hooks
        and not module._forward_pre_hooks
        for module in model.modules()
    )


def _n_threads(n_parameters: int) -> int:
    """Return on how many threads the native engine reads so many parameters."""
    return 1 if n_parameters <= MAX_PARAMETERS else torch.get_num_threads()


def _n_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
