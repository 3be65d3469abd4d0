"""The registry of architectures: one line per architecture, with the folder that contains everything about it.

Modules are imported on demand: the names and settings of architectures need no PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from mamegpt.config import ModelConfig
from mamegpt.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from mamegpt.models.base import Architecture, LanguageModel
    from mamegpt.models.hf_format import HFFormat

__all__ = [
    "ARCHITECTURES",
    "architecture",
    "architecture_of",
    "build_model",
    "build_without_memory",
    "hf_formats",
    "init_weights",
    "unsupported_fields",
]

ARCHITECTURES = {
    "custom-gpt": "custom_gpt",
    "llama": "llama",
    "qwen3": "qwen3",
}
"""The folder of each architecture in this package."""


def architecture(name: str) -> Architecture:
    """Import the parts of an architecture. Raises `ConfigError` for an unknown name."""
    if name not in ARCHITECTURES:
        raise ConfigError(
            "--architecture must be one of {names} (got {name})", name=name, names=", ".join(ARCHITECTURES)
        )
    return cast("Architecture", _module(name, "architecture").ARCHITECTURE)


def architecture_of(model: nn.Module) -> Architecture | None:
    """Return the architecture whose folder holds the class of a model, None for any other model."""
    folder = type(model).__module__.rpartition(".")[0]
    found = [name for name, own in ARCHITECTURES.items() if folder == f"mamegpt.models.{own}"]
    return architecture(found[0]) if found else None


def unsupported_fields() -> dict[str, dict[str, Any]]:
    """Return, by architecture, the fields of `ModelConfig` that do not apply, with the values they must keep."""
    return {name: _module(name, "config").UNSUPPORTED_FIELDS for name in ARCHITECTURES}


def _module(name: str, part: str) -> Any:
    return import_module(f"mamegpt.models.{ARCHITECTURES[name]}.{part}")


def hf_formats() -> dict[str, HFFormat]:
    """Return all formats of Hugging Face folders by the ``model_type`` in their ``config.json``."""
    return {found.model_type: found for name in ARCHITECTURES for found in architecture(name).hf_formats}


def build_model(name: str, sizes: ModelConfig) -> LanguageModel:
    """Build a freshly initialized model. Raises `ConfigError` for an unknown name or impossible sizes."""
    found = architecture(name)
    sizes.validate(name, unsupported_fields()[name])
    model = found.build(sizes)
    found.init_weights(model)
    return cast("LanguageModel", model)


def build_without_memory(name: str, sizes: ModelConfig) -> LanguageModel:
    """Build a model on the meta device, for its shapes. Raises what `build_model` raises.

    It draws no random numbers: on that device, PyTorch would import its compiler for them, which takes seconds.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Undrawn(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return None if func is torch.nn.init.normal_ else func(*args, **(kwargs or {}))

    with torch.device("meta"), Undrawn():
        return build_model(name, sizes)


def init_weights(name: str, model: nn.Module) -> None:
    """Initialize a model as `build_model` does, with the same random numbers; for a model from the meta device, for
    example.

    Layers initialize weights and tables in ``reset_parameters``, in the order in which they were built.
    """
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            cast(Any, module).reset_parameters()
    architecture(name).init_weights(model)
