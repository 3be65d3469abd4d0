"""The book's GPT: the parts of this folder."""

from __future__ import annotations

from torch import nn

from mamegpt.config import ModelConfig
from mamegpt.models.base import Architecture
from mamegpt.models.custom_gpt.decode import decode_step, step_weights
from mamegpt.models.custom_gpt.gguf import GGUF
from mamegpt.models.custom_gpt.hf import CUSTOM_GPT, GPT2
from mamegpt.models.custom_gpt.init import init_weights

__all__ = ["ARCHITECTURE"]


def _build(sizes: ModelConfig) -> nn.Module:
    # Imported here, because the file imports transformers, which takes two seconds.
    from mamegpt.models.custom_gpt.modeling_custom_gpt import GPTModel

    return GPTModel(sizes)  # type: ignore[arg-type]  # the sizes are frozen


ARCHITECTURE = Architecture(
    build=_build,
    init_weights=init_weights,
    hidden_of_tokens=None,
    look_back=None,
    hf_formats=(CUSTOM_GPT, GPT2),
    gguf_format=GGUF,
    decode_step=decode_step,
    step_weights=step_weights,
)
