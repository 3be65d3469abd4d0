"""Llama: the parts of this folder."""

from __future__ import annotations

from mamegpt.models.base import Architecture
from mamegpt.models.llama.decode import decode_step, step_weights
from mamegpt.models.llama.gguf import GGUF
from mamegpt.models.llama.hf import LLAMA
from mamegpt.models.llama.modeling_llama import Llama
from mamegpt.models.qwen3.init import hidden_of_tokens, init_weights, look_back

__all__ = ["ARCHITECTURE"]

ARCHITECTURE = Architecture(
    build=Llama,  # type: ignore[arg-type]  # the sizes are frozen
    init_weights=init_weights,  # as in Qwen3: the matrices have the same names
    hidden_of_tokens=hidden_of_tokens,
    look_back=look_back,
    hf_formats=(LLAMA,),
    gguf_format=GGUF,
    decode_step=decode_step,
    step_weights=step_weights,
)
