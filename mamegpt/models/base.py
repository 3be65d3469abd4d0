"""The interface of a language model, functions for any of them, and the parts of an architecture.

A model has ``hidden(ids, cache=None) -> (B, T, C)`` and ``out_head``, a linear layer (V, C); ``model(ids, cache=None)
-> logits (B, T, V)`` is their composition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mamegpt.config import ModelConfig
from mamegpt.models.decode import Rows, Step
from mamegpt.models.gguf_format import GGUFFormat
from mamegpt.models.hf_format import HFFormat
from mamegpt.native.decode import StepWeights

__all__ = [
    "Architecture",
    "LanguageModel",
    "blocks",
    "cpu_state_dict",
    "not_finite",
    "replace_head",
    "token_embedding",
    "unique_state_dict",
]


class LanguageModel(nn.Module):
    """The interface that trainer, generator and exporter use. It is only a type: models need not inherit from it."""

    context_length: int
    out_head: nn.Linear

    def hidden(self, ids: Tensor, cache: object | None = None) -> Tensor:
        """Return the final hidden states (B, T, C) of ids (B, T)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Architecture:
    """The parts of an architecture, which the module ``architecture`` of its folder defines as ``ARCHITECTURE``."""

    build: Callable[[ModelConfig], nn.Module]
    """Make a `LanguageModel` of these sizes, with PyTorch's default initialization."""
    init_weights: Callable[[nn.Module], None]
    """Set the initial weights of a model."""
    hidden_of_tokens: Callable[[nn.Module, Tensor], Tensor] | None
    """Return the final hidden states (N, C) of ids (N,) of a new model whose blocks are all the identity, so that each
    depends on its own token alone; None if the blocks of a new model are not."""
    look_back: Callable[[nn.Module, Tensor], None] | None
    """Let the heads of such a model attend to the last tokens; (C,) is the mean of its final hidden states."""
    hf_formats: tuple[HFFormat, ...]
    """Formats of Hugging Face folders, its own first; one of them needs no code in the folder."""
    gguf_format: GGUFFormat
    """Settings and tensors in llama.cpp's form."""
    decode_step: Callable[[nn.Module], tuple[Rows, Step]]
    """Return the decoding step for one new token on a CPU, and the queries, keys and values that it extends."""
    step_weights: Callable[[nn.Module], StepWeights]
    """Return the weights for the native engine's decoding step."""

    @property
    def native_format(self) -> HFFormat:
        """The format of a folder without code."""
        return next(found for found in self.hf_formats if not found.remote_code)


def blocks(model: nn.Module) -> nn.ModuleList:
    """Return the transformer blocks of a model, in their order."""
    return next(module for module in model.modules() if isinstance(module, nn.ModuleList))


def replace_head(model: LanguageModel, n_labels: int) -> None:
    """Give a model an output head (n_labels, C) of zeros, with which it is a classifier: all labels are as probable.

    It needs an embedding that is not tied to the head.
    """
    head = model.out_head
    name = next(name for name, module in model.named_modules() if module is head)
    parent, _, own = name.rpartition(".")
    new = nn.Linear(head.in_features, n_labels, bias=False, device=head.weight.device)
    nn.init.zeros_(new.weight)
    setattr(model.get_submodule(parent), own, new)


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Return the names of tensors that hold NaN or infinity."""
    named = [(name, torch.isfinite(tensor).all()) for name, tensor in tensors]
    finite = torch.stack([flag for _, flag in named]).tolist() if named else []  # one wait for the device
    return [name for (name, _), is_finite in zip(named, finite, strict=True) if not is_finite]


def token_embedding(model: nn.Module) -> nn.Embedding:
    """Return the token embedding, which comes before an embedding of positions."""
    return next(module for module in model.modules() if isinstance(module, nn.Embedding))


def unique_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return a state dict with each tied weight only once, under its first name."""
    state = model.state_dict(keep_vars=True)
    first = {id(tensor): name for name, tensor in reversed(state.items())}
    return {name: tensor.detach() for name, tensor in state.items() if first[id(tensor)] == name}


def cpu_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return `unique_state_dict` in the form for files: on the CPU, contiguous."""
    return {name: tensor.cpu().contiguous() for name, tensor in unique_state_dict(model).items()}
