"""The decoding step of the compiled library: the next token of one sequence, and the output head for one position.

Letters in shape comments are those of the models: C hidden size, H heads, K heads of keys and values, D width of a
head, F feed-forward width, V vocabulary size.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mamegpt.native.library import WIDTH_UNIT, Native

__all__ = ["BlockWeights", "Linear", "NativeHead", "NativeStep", "Norm", "StepWeights"]

VECTOR = 8
"""Numbers of a vector: sizes must be multiples of this."""


class Norm(NamedTuple):
    """The weights of a LayerNorm, or of an RMSNorm, which has no ``shift``: (n,) each."""

    scale: Tensor | None = None
    shift: Tensor | None = None


class Linear(NamedTuple):
    """The weight (rows, columns) of a linear layer and its bias (rows,), if it has one."""

    weight: Tensor | None = None
    bias: Tensor | None = None


class BlockWeights(NamedTuple):
    """The weights of a transformer block."""

    before_attention: Norm
    of_queries: Norm
    """Norm of each head's query (D,), if there is one, before it is rotated; the same for keys."""
    of_keys: Norm
    q: Linear
    k: Linear
    v: Linear
    out: Linear
    before_mlp: Norm
    gate: Linear
    """Of SwiGLU; without it, the activation is GELU (by tanh)."""
    up: Linear
    down: Linear


class StepWeights(NamedTuple):
    """All that the decoding step needs of a model. Tensors are used where they are, without a copy."""

    embedding: Tensor
    """(V, C)."""
    positions: Tensor | None
    """(capacity, C), added to the embedding, or None."""
    rope: Tensor | None
    """Cosines and sines (2, capacity, D/2) of a rotation of queries and keys, or None."""
    blocks: Sequence[BlockWeights]
    last: Norm
    eps: float
    head_dim: int
    """D."""
    capacity: int
    """Positions that keys and values have room for."""


_P, _I = ctypes.c_void_p, ctypes.c_int32


def _structure(name: str, *fields: tuple[str, type]) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": fields})


_Norm = _structure("_Norm", ("scale", _P), ("shift", _P))
_Linear = _structure("_Linear", ("weight", _P), ("bias", _P))
# fmt: off
_Block = _structure(
    "_Block", ("before_attention", _Norm), ("of_queries", _Norm), ("of_keys", _Norm), ("q", _Linear), ("k", _Linear),
    ("v", _Linear), ("out", _Linear), ("before_mlp", _Norm), ("gate", _Linear), ("up", _Linear), ("down", _Linear),
    ("keys", _P), ("values", _P),
)
# fmt: on
# fmt: off
_Model = _structure(
    "_Model", *((name, _I) for name in ("n_blocks", "C", "H", "K", "D", "F", "capacity")), ("eps", ctypes.c_float),
    ("embedding", _P), ("positions", _P), ("rope", _P), ("last", _Norm), ("blocks", ctypes.POINTER(_Block)),
)
# fmt: on


class NativeStep:
    """Computes the final hidden state of a token after those whose keys and values are there."""

    def __init__(self, native: Native, weights: StepWeights, n_threads: int) -> None:
        """Prepare for a sequence. Raises `ValueError` for tensors of another type, place or shape."""
        first = weights.blocks[0]
        assert first.q.weight is not None and first.k.weight is not None and first.up.weight is not None
        (V, C), D, capacity = weights.embedding.shape, weights.head_dim, weights.capacity
        H, K, F = len(first.q.weight) // D, len(first.k.weight) // D, len(first.up.weight)
        self._check(weights, V, C, H, K, D, F)
        self.keys = torch.empty(len(weights.blocks), 1, K, capacity, D)
        """(layers, 1, K, capacity, D), of the positions before the next; `values` likewise."""
        self.values = torch.empty_like(self.keys)
        self._kept = weights  # the tensors that pointers lead to
        self._blocks = (_Block * len(weights.blocks))()
        for i, (block, fields) in enumerate(zip(self._blocks, weights.blocks, strict=True)):
            for name, part in fields._asdict().items():
                setattr(block, name, _pointers(part))
            block.keys, block.values = self.keys[i].data_ptr(), self.values[i].data_ptr()
        self._model = _Model(
            len(weights.blocks),
            C,
            H,
            K,
            D,
            F,
            capacity,
            weights.eps,
            *_addresses(weights.embedding, weights.positions, weights.rope),
            _pointers(weights.last),
            self._blocks,
        )
        library, self._sizes, self._n_threads = native.library, (V, C), n_threads
        self._compute = library.mame_step
        self._compute.argtypes, self._compute.restype = [_P, _I, _I, _P, _P, _I], None
        library.mame_step_memory.argtypes, library.mame_step_memory.restype = [_P, _I], ctypes.c_int64
        self._memory = torch.empty(library.mame_step_memory(ctypes.byref(self._model), n_threads))

    def __call__(self, token: int, position: int) -> Tensor:
        """Return the final hidden state (C,). Raises `IndexError` for an id or a position that there is not."""
        V, C = self._sizes
        if not (0 <= token < V and 0 <= position < self.keys.shape[3]):
            raise IndexError(f"no token {token} of {V} at position {position} of {self.keys.shape[3]}")
        state = torch.empty(C)
        self._compute(
            ctypes.byref(self._model), token, position, state.data_ptr(), self._memory.data_ptr(), self._n_threads
        )
        return state

    @staticmethod
    def supports(weights: StepWeights) -> bool:
        """Return whether the library computes with these sizes."""
        units = [(weights.embedding.shape[1], WIDTH_UNIT), (weights.head_dim, WIDTH_UNIT)]
        units += [(len(block.up.weight), VECTOR) for block in weights.blocks if block.up.weight is not None]
        return all(size > 0 and size % unit == 0 for size, unit in units)

    def _check(self, weights: StepWeights, V: int, C: int, H: int, K: int, D: int, F: int) -> None:
        """Raise `ValueError` for a tensor whose memory is not what the library would take it for."""
        HD, KD, capacity = H * D, K * D, weights.capacity
        if not self.supports(weights) or K < 1 or H % K:
            raise ValueError(f"sizes that the library does not compute with: {(C, H, K, D, F)}")
        _check(weights.embedding, (V, C))
        _check(weights.positions, (capacity, C))
        _check(weights.rope, (2, capacity, D // 2))
        _check_all(weights.last, (C,))
        for block in weights.blocks:
            for norm, n in (
                (block.before_attention, C),
                (block.of_queries, D),
                (block.of_keys, D),
                (block.before_mlp, C),
            ):
                _check_all(norm, (n,))
            layers = (
                (block.q, HD, C),
                (block.k, KD, C),
                (block.v, KD, C),
                (block.out, C, HD),
                (block.gate, F, C),
                (block.up, F, C),
                (block.down, C, F),
            )
            for layer, rows, columns in layers:
                _check(layer.weight, (rows, columns))
                _check(layer.bias, (rows,))


class NativeHead:
    """The output head (V, C) for one position; C is a multiple of 16."""

    def __init__(self, native: Native, weight: Tensor, n_threads: int) -> None:
        """Use a weight where it is. Raises `ValueError` for one of another type, place or shape."""
        self._shape = weight.shape
        _check(weight, (weight.shape[0], weight.shape[1]))
        if weight.shape[1] % WIDTH_UNIT or not weight.numel():
            raise ValueError(f"the hidden size must be a multiple of {WIDTH_UNIT} (got {tuple(weight.shape)})")
        self._weight, self._n_threads, library = weight, n_threads, native.library
        self._logits, self._round, self._most_likely = library.mame_logits, library.mame_round, library.mame_most_likely
        self._logits.argtypes, self._logits.restype = [_I, _I, _P, _P, _P, _I], None
        self._round.argtypes, self._round.restype = [_I, _I, _P, ctypes.c_float, _P], _I
        self._most_likely.argtypes, self._most_likely.restype = [_I, _I, _P, _P, _P, _P, _I, _P, _I], _I

    def logits(self, state: Tensor) -> Tensor:
        """Return the logits (V,) of a state (C,)."""
        V, C = self._shape
        _check(state, (C,))
        out = torch.empty(V)
        self._logits(V, C, self._weight.data_ptr(), state.data_ptr(), out.data_ptr(), self._n_threads)
        return out

    def rounded(self, largest: float) -> tuple[Tensor, int]:
        """Return the weight by ``largest``, its largest absolute value, times 127 as int8 (V, C), and the largest sum
        of a row's absolute values.
        """
        V, C = self._shape
        found = torch.empty(V, C, dtype=torch.int8)
        return found, self._round(V, C, self._weight.data_ptr(), largest, found.data_ptr())

    def most_likely(self, state: Tensor, rounded: Tensor, whole: Tensor, slack: int) -> int:
        """Return the id of the largest logit of a state (C,) among those whose product of whole numbers is within
        ``slack`` of the largest: rounded (V, C) int8 and whole (C,) int16.
        """
        V, C = self._shape
        _check(state, (C,))
        assert rounded.shape == (V, C) and rounded.dtype == torch.int8 and rounded.is_contiguous()
        assert whole.shape == (C,) and whole.dtype == torch.int16 and whole.is_contiguous()
        rough = torch.empty(V, dtype=torch.int32)
        pointers = (t.data_ptr() for t in (self._weight, rounded, state, whole))
        return int(self._most_likely(V, C, *pointers, slack, rough.data_ptr(), self._n_threads))


def _check_all(tensors: tuple[Tensor | None, ...], shape: tuple[int, ...]) -> None:
    for tensor in tensors:
        _check(tensor, shape)


def _check(tensor: Tensor | None, shape: tuple[int, ...]) -> None:
    if tensor is not None and (
        tensor.dtype != torch.float32
        or tensor.device.type != "cpu"
        or tensor.shape != shape
        or not tensor.is_contiguous()
    ):
        raise ValueError(f"a weight must be float32 {shape} on the CPU (got {tensor.dtype} {tuple(tensor.shape)})")


def _addresses(*tensors: Tensor | None) -> list[int | None]:
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


def _pointers(part: Norm | Linear) -> ctypes.Structure:
    return (_Norm if isinstance(part, Norm) else _Linear)(*_addresses(*part))
