"""Qwen3: the parts of this folder."""

from __future__ import annotations

from mamegpt.models.base import Architecture
from mamegpt.models.qwen3.decode import decode_step, step_weights
from mamegpt.models.qwen3.gguf import GGUF
from mamegpt.models.qwen3.hf import QWEN3
from mamegpt.models.qwen3.init import hidden_of_tokens, init_weights, look_back
from mamegpt.models.qwen3.modeling_qwen3 import Qwen3

__all__ = ["ARCHITECTURE"]

ARCHITECTURE = Architecture(
    build=Qwen3,  # type: ignore[arg-type]  # the sizes are frozen
    init_weights=init_weights,
    hidden_of_tokens=hidden_of_tokens,
    look_back=look_back,
    hf_formats=(QWEN3,),
    gguf_format=GGUF,
    decode_step=decode_step,
    step_weights=step_weights,
)
