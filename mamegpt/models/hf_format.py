"""The Hugging Face format of an architecture: everything in which exports and imports differ.

An `HFFormat` writes the ``config.json`` for a model's sizes, reads it back, and maps the names of tensors in files.
Settings in a ``config.json`` that are not implemented are refused, since ignoring them would silently produce wrong
outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mamegpt.config import ModelConfig
from mamegpt.errors import ModelError
from mamegpt.messages import join, msg
from mamegpt.system.validation import Number, problems

__all__ = ["HEAD", "LABEL_HEAD", "HFFormat", "not_implemented", "plain_rope", "refuse", "rotary_sizes"]

HEAD = "lm_head.weight"
"""The name of the output head in files."""
LABEL_HEAD = "score.weight"
"""The name of the classification head, which takes its place."""


@dataclass(frozen=True)
class HFFormat:
    """The folder format of one ``model_type``, for models of one ``architecture``."""

    model_type: str
    architecture: str
    config: Callable[[ModelConfig], dict[str, Any]]
    """Return the content of ``config.json``."""
    sizes: Callable[[dict[str, Any], dict[str, Tensor], Path], ModelConfig]
    """Read ``config.json`` and the weights in a file. Raises `ModelError` with all problems."""
    structure: Callable[[ModelConfig], str]
    """Describe the architecture of the model, for its card."""
    license_note: str
    """The origin of architecture and code, for the card."""
    to_file: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda tensors: tensors
    """Turn our state dict into the file's."""
    from_file: Callable[[dict[str, Tensor], ModelConfig], dict[str, Tensor]] = lambda tensors, _sizes: tensors
    """Turn the file's state dict into ours."""
    classifier: str = ""
    """The class of transformers with a classification head instead of the output head; "" if there is none."""
    weight_files: tuple[str, ...] = ("model.safetensors",)
    remote_code: Path | None = None
    """The code file in the folder of an architecture that transformers lacks."""


def refuse(found: Collection[str], file: Path, model_type: str) -> None:
    """Raise `ModelError` if any problem was found: missing, of a wrong type, or not implemented."""
    if found:
        raise ModelError(
            "{path} holds no {model_type} model known here: {names}",
            path=file.with_name("config.json"),
            model_type=model_type,
            names=join("; ", found),
        )


def not_implemented(config: dict[str, Any], choices: Mapping[str, Callable[[Any], bool]]) -> list[str]:
    """Return the settings of ``config.json`` that are not implemented, one message each.

    ``choices`` define which values of a setting are implemented; null or no key is.
    """
    asked = {name: value for name in choices if (value := config.get(name)) is not None}
    found: list[str] = [
        msg("{name} {value!r} is not implemented", name=name, value=value)
        for name, value in asked.items()
        if not choices[name](value)
    ]
    return found


def plain_rope(value: Any) -> bool:
    """Return whether RoPE is unscaled."""
    if not isinstance(value, dict) or not value.keys() <= {"rope_type", "type", "rope_theta"}:
        return False
    return bool(value.get("rope_type", value.get("type", "default")) == "default")


def rotary_sizes(
    config: dict[str, Any],
    integers: Mapping[str, str],
    choices: Mapping[str, Callable[[Any], bool]],
    file: Path,
    model_type: str,
) -> dict[str, Any]:
    """Read the sizes of a model with RMSNorm and RoPE under transformers' names.

    ``integers`` maps the whole numbers in ``config.json`` to fields of `ModelConfig`. Raises `ModelError` with
    everything missing, of a wrong type, or not implemented.
    """
    whole = {name: config.get(name) for name in integers}
    theta, contradictions = _rope_theta(config)
    numbers = {"rope_theta": theta, "rms_norm_eps": config.get("rms_norm_eps", 1e-6)}
    tied = config.get("tie_word_embeddings", False)
    found = problems(dict[str, int], whole) + not_implemented(config, choices) + contradictions
    found += problems(dict[str, Number], numbers) + problems(dict[str, bool], {"tie_word_embeddings": tied})
    refuse(found, file, model_type)
    theta, eps = map(float, numbers.values())
    sizes = {integers[name]: value for name, value in whole.items()}
    return sizes | {"rope_theta": theta, "norm_eps": eps, "tie_embeddings": tied, "drop_rate": 0.0}


def _rope_theta(config: dict[str, Any]) -> tuple[Any, list[str]]:
    """Return the base of RoPE, and the problems if it is given in several places."""
    ropes = [config, config.get("rope_parameters"), config.get("rope_scaling")]
    thetas = [rope["rope_theta"] for rope in ropes if isinstance(rope, dict) and "rope_theta" in rope] or [10000.0]
    found: list[str] = []
    if any(theta != thetas[0] for theta in thetas):
        found.append(
            msg(
                "rope_theta is {names}, where one reader takes this, another that",
                names=join(" and ", map(str, thetas)),
            )
        )
    return thetas[0], found
