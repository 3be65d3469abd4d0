"""The registry of architectures: one file each, one line each.

A model offers ``hidden(ids, cache=None) -> (B, T, C)`` and ``out_head``, a linear layer (V, C);
``model(ids, cache=None) -> logits (B, T, V)`` is their composition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn

from mamegpt.config import ModelConfig
from mamegpt.errors import ConfigError

__all__ = ["ARCHITECTURES", "LanguageModel", "blocks", "build_model", "initialise_again", "not_finite",
           "own_tensors", "stored_tensors", "token_embedding"]  # fmt: skip


class LanguageModel(nn.Module):
    """What trainer, generator and exporter ask of a model; a type, for no model has to inherit it."""

    context_length: int
    out_head: nn.Linear

    def hidden(self, ids: Tensor, cache: object | None = None) -> Tensor:
        """Final hidden states (B, T, C) of ids (B, T)."""
        raise NotImplementedError


def _custom_gpt(sizes: ModelConfig) -> nn.Module:
    from mamegpt.models.custom_gpt.modeling_custom_gpt import GPTModel

    return GPTModel(sizes)  # type: ignore[arg-type]  # the sizes are frozen


def _custom_gpt_weights(model: nn.Module) -> None:
    """GPT-2's initial weights (Radford et al. 2019, section 2.3): N(0, 0.02), narrower where blocks add up.

    PyTorch's own embeddings, N(0, 1), cost a tenth of the loss in a short run (docs/log.md).
    """
    n_layers = len(blocks(model))
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            adds_up = name.endswith(("att.proj.weight", "ff.layers.2.weight"))
            nn.init.normal_(parameter, std=0.02 / (2 * n_layers) ** 0.5 if adds_up else 0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def _qwen3(sizes: ModelConfig) -> nn.Module:
    from mamegpt.models.qwen3.modeling_qwen3 import Qwen3

    return Qwen3(sizes)  # type: ignore[arg-type]  # the sizes are frozen


def _qwen3_weights(model: nn.Module) -> None:
    from mamegpt.models.qwen3.modeling_qwen3 import Qwen3, initialise

    initialise(cast(Qwen3, model))


ARCHITECTURES: dict[str, tuple[Callable[[ModelConfig], nn.Module], Callable[[nn.Module], None]]] = {
    "custom-gpt": (_custom_gpt, _custom_gpt_weights),
    "qwen3": (_qwen3, _qwen3_weights),
}
"""How each is built, and its initial weights, which replace those that PyTorch's layers give themselves."""


def build_model(architecture: str, sizes: ModelConfig) -> LanguageModel:
    """A freshly initialised model. Raises `ConfigError` for an unknown name or impossible sizes."""
    if architecture not in ARCHITECTURES:
        raise ConfigError(f"--architecture {architecture} is not known; choose from {', '.join(ARCHITECTURES)}")
    sizes.validate(architecture)
    build, initialise = ARCHITECTURES[architecture]
    model = build(sizes)
    initialise(model)
    return cast(LanguageModel, model)


def initialise_again(architecture: str, model: LanguageModel) -> None:
    """Fill a model as `build_model` does, from the same random numbers: one built on the meta device, say.

    Layers give themselves weights (and tables) in ``reset_parameters``, in the order in which they were built.
    """
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()  # type: ignore[operator]
    ARCHITECTURES[architecture][1](model)


def blocks(model: nn.Module) -> nn.ModuleList:
    """The transformer blocks of a model, in their order."""
    return next(module for module in model.modules() if isinstance(module, nn.ModuleList))


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Return the names of tensors that hold NaN or infinity."""
    return [name for name, tensor in tensors if not bool(torch.isfinite(tensor).all())]


def token_embedding(model: nn.Module) -> nn.Embedding:
    """Return the embedding of tokens; one of positions, if there is one, follows it."""
    return next(module for module in model.modules() if isinstance(module, nn.Embedding))


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A state dict in which a tied weight stands only once, under its first name."""
    state = model.state_dict(keep_vars=True)
    first = {id(tensor): name for name, tensor in reversed(state.items())}
    return {name: tensor.detach() for name, tensor in state.items() if first[id(tensor)] == name}


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """`own_tensors` as files hold them: on the CPU, contiguous."""
    return {name: tensor.cpu().contiguous() for name, tensor in own_tensors(model).items()}
