"""The data type of each tensor in a GGUF file, and its values in that type.

The mixtures ``q4_k_m`` and ``q5_k_m``, and the types that replace one whose blocks do not fit a row, are llama.cpp's
(``llama_tensor_get_type_impl`` and ``tensor_type_fallback`` in its ``llama-quant.cpp``). So is the code that rounds to
the K types, which the package xllamacpp contains; the package ``gguf`` has all others.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FILE_TYPES",
    "GgufType",
    "fitting_type",
    "is_in_blocks",
    "k_quantizer",
    "quantized",
    "rounded",
    "wanted_types",
]

GgufType = Literal["f32", "f16", "bf16", "q8_0", "q5_k_m", "q4_k_m"]

# fmt: off
FILE_TYPES: dict[GgufType, str] = {
    "f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0",
    "q5_k_m": "MOSTLY_Q5_K_M", "q4_k_m": "MOSTLY_Q4_K_M",
}
# fmt: on
"""Names of the types of files in the package ``gguf``."""

MIXTURES: dict[str, dict[str, str]] = {
    "q5_k_m": {"most": "Q5_K", "attn_qkv": "Q6_K"},
    "q4_k_m": {"most": "Q4_K", "attn_qkv": "Q5_K"},
}
MORE_BITS = "Q6_K"
"""The type of the output head in a mixture, and of some layers' ``attn_v`` and ``ffn_down``."""

REPLACEMENTS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def is_in_blocks(kind: GgufType) -> bool:
    """Return whether matrices are blocks of small integers with a scale each."""
    return kind not in ("f32", "f16", "bf16")


def wanted_types(names: Mapping[str, int], kind: GgufType, n_layers: int) -> dict[str, str]:
    """Return the data type of each tensor, if it fits (`fitting_type`).

    ``names`` are llama.cpp's, with the numbers of dimensions. Vectors and positions are always in float32.
    """
    head = "output.weight" if "output.weight" in names else "token_embd.weight"

    def of(name: str) -> str:
        if names[name] == 1 or name == "position_embd.weight":
            return "F32"
        if kind not in MIXTURES:
            return kind.upper()
        *_, part, _ = name.split(".")
        if name == head:
            return MORE_BITS
        if part in ("attn_v", "ffn_down") and _has_more_bits(int(name.split(".")[1]), n_layers):
            return MORE_BITS
        return MIXTURES[kind].get(part, MIXTURES[kind]["most"])

    return {name: of(name) for name in names}


def _has_more_bits(layer: int, n_layers: int) -> bool:
    """Return whether a layer is among the first or last eighth, or a third one between these."""
    eighth = n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2


def fitting_type(wanted: str, row_length: int) -> str:
    """Return the wanted type; if its blocks do not fit a row, one with smaller blocks, or F16."""
    import gguf

    for found in (wanted, REPLACEMENTS.get(wanted, "F16")):
        n_values, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[found]]
        if row_length % n_values == 0:
            return found
    return "F16"


def quantized(tensor: NDArray[np.float32], type_name: str) -> NDArray[Any]:
    """Return a tensor (..., n) in a data type: numbers, or for blocks the bytes of each row."""
    import gguf

    stored = gguf.GGMLQuantizationType[type_name]
    if not type_name.endswith("_K"):
        found: NDArray[Any] = gguf.quantize(tensor, stored)
        return found
    tensor = np.ascontiguousarray(tensor, dtype=np.float32)
    found = np.empty(gguf.quant_shape_to_byte_shape(tensor.shape, stored), np.uint8)
    n_bytes = k_quantizer()(stored.value, tensor.ctypes.data, found.ctypes.data, 0, *tensor.shape, None)
    assert n_bytes == found.nbytes, f"{type_name} of {tensor.shape} has {found.nbytes} bytes, not {n_bytes}"
    return found


def rounded(tensor: NDArray[np.float32], type_name: str) -> NDArray[np.float32]:
    """Return the values of a tensor after `quantized`."""
    import gguf

    found: NDArray[np.float32] = gguf.dequantize(
        quantized(tensor, type_name), gguf.GGMLQuantizationType[type_name]
    ).reshape(tensor.shape)
    return found


@cache
def k_quantizer() -> Callable[..., int]:
    """Return ggml's ``ggml_quantize_chunk(type, values, bytes, first, n_rows, row_length, importance)``.

    Raises `AttributeError` if the package xllamacpp does not export it.
    """
    import xllamacpp.xllamacpp

    function = ctypes.CDLL(xllamacpp.xllamacpp.__file__).ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    return function
