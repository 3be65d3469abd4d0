"""The registry of architectures: one file each, one line each.

A model offers ``hidden(ids, cache=None) -> (B, T, C)`` and ``out_head``, a linear layer (V, C);
``model(ids, cache=None) -> logits (B, T, V)`` is their composition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn

from mamegpt.config import ModelConfig
from mamegpt.errors import ConfigError

__all__ = ["ARCHITECTURES", "LanguageModel", "blocks", "build_model", "own_tensors", "stored_tensors"]


class LanguageModel(nn.Module):
    """What trainer, generator and exporter ask of a model; a type, for no model has to inherit it."""

    context_length: int
    out_head: nn.Linear

    def hidden(self, ids: Tensor, cache: object | None = None) -> Tensor:
        """Final hidden states (B, T, C) of ids (B, T)."""
        raise NotImplementedError


def _custom_gpt(sizes: ModelConfig) -> LanguageModel:
    from mamegpt.models.modeling_custom_gpt import GPTModel

    return cast(LanguageModel, initialise(GPTModel(sizes), sizes.n_layers))  # type: ignore[arg-type]  # the sizes are frozen


def initialise(model: nn.Module, n_layers: int) -> nn.Module:
    """GPT-2's initial weights (Radford et al. 2019, section 2.3): N(0, 0.02), narrower where blocks add up.

    PyTorch's own embeddings, N(0, 1), cost a tenth of the loss in a short run (docs/log.md).
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            adds_up = name.endswith(("att.proj.weight", "ff.layers.2.weight"))
            nn.init.normal_(parameter, std=0.02 / (2 * n_layers) ** 0.5 if adds_up else 0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model


def _qwen3(sizes: ModelConfig) -> LanguageModel:
    from mamegpt.models import qwen3

    return cast(LanguageModel, qwen3.initialise(qwen3.Qwen3(sizes)))  # type: ignore[arg-type]  # the sizes are frozen


ARCHITECTURES: dict[str, Callable[[ModelConfig], LanguageModel]] = {
    "custom-gpt": _custom_gpt,
    "qwen3": _qwen3,
}


def build_model(architecture: str, sizes: ModelConfig) -> LanguageModel:
    """A freshly initialised model. Raises `ConfigError` for an unknown name or impossible sizes."""
    if architecture not in ARCHITECTURES:
        raise ConfigError(f"--architecture {architecture} is not known; choose from {', '.join(ARCHITECTURES)}")
    sizes.validate(architecture)
    return ARCHITECTURES[architecture](sizes)


def blocks(model: nn.Module) -> nn.ModuleList:
    """The transformer blocks of a model, in their order."""
    return next(module for module in model.modules() if isinstance(module, nn.ModuleList))


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A state dict in which a tied weight stands only once, under its first name."""
    state = model.state_dict(keep_vars=True)
    first = {id(tensor): name for name, tensor in reversed(state.items())}
    return {name: tensor.detach() for name, tensor in state.items() if first[id(tensor)] == name}


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """`own_tensors` as files hold them: on the CPU, contiguous."""
    return {name: tensor.cpu().contiguous() for name, tensor in own_tensors(model).items()}
