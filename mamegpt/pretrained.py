"""Weights and models from outside: a run, a weights file, an exported folder, a repository on the Hub.

Nothing here runs code that came with the weights: PyTorch files are read with ``weights_only``, and a repository in
a known layout (`layouts.LAYOUTS`, by its ``model_type``) is loaded by our own class.
"""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mamegpt import checkpoint
from mamegpt.config import ModelConfig, TrainConfig
from mamegpt.errors import CheckpointError, ModelError, first_line, is_out_of_memory
from mamegpt.hub import is_hub_name, snapshot
from mamegpt.layouts import LAYOUTS
from mamegpt.models import LanguageModel, build_model, not_finite, own_tensors
from mamegpt.run_files import CHECKPOINTS, CONFIG_FILE, METRICS_FILE, TOKENIZER_FILE
from mamegpt.shell import command
from mamegpt.text import parse_json
from mamegpt.tokenizer import Tokenizer

__all__ = ["Pretrained", "is_foreign", "load_pretrained", "load_weights", "read_weights"]


@dataclass(frozen=True)
class Pretrained:
    """A model ready to use. ``use_cache`` is false for foreign models, whose code may ignore a cache in silence.

    ``has_start`` says that each text followed `Tokenizer.start_id` in training: a run's did, and those of an exported
    folder that declares it, with ``bos_token_id`` equal to ``eos_token_id``.
    """

    model: LanguageModel
    tokenizer: Tokenizer
    sizes: ModelConfig | None
    architecture: str
    origin: str
    use_cache: bool = True
    has_start: bool = False


def load_pretrained(
    where: str, *, spm_file: str = "", device: str | torch.device = "cpu", trust_remote_code: bool = False
) -> Pretrained:
    """Load a run's folder (its newest checkpoint), one checkpoint, an exported folder, or a Hub repository.

    The model is in evaluation mode.
    ``spm_file`` names the SentencePiece model inside a folder or repository; empty: the only one there is.

    Raises `ModelError` if there is no such model, or if loading it would run its own code and
    ``trust_remote_code`` is false; `HubError` if the Hub cannot be reached; `CheckpointError` if a run is damaged.
    """
    folder = Path(where)
    if (folder / CHECKPOINTS).is_dir() or (folder / METRICS_FILE).is_file():
        found = _load_run(folder, checkpoint.latest(folder / CHECKPOINTS))
    elif folder.parent.name == CHECKPOINTS and folder.is_dir():
        found = _load_run(folder.parent.parent, folder)
    else:
        found = _load_repository(where, spm_file, trust_remote_code)
    found.model.to(device).eval()
    return found


def is_foreign(where: str) -> bool:
    """Whether this is a model that only transformers can load: of another kind, or without a SentencePiece model.

    Raises what `load_pretrained` raises if there is no such folder or repository.
    """
    if Path(where).is_dir() and not (Path(where) / "config.json").is_file():
        return False  # a checkpoint, or nothing at all
    folder = _folder(where, ["config.json", "*.model"])
    model_type = _read_json(folder / "config.json").get("model_type")
    return model_type is not None and (model_type not in LAYOUTS or not any(folder.glob("*.model")))


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict under the architecture's own keys, from ``.safetensors`` or a PyTorch file.

    Prefixes that wrappers add (``backbone.``, ``module.``, ``_orig_mod.``) are taken off, and a state dict inside
    ``{"state_dict": ...}`` is found. Raises `ModelError` if the file is missing, truncated, not a state dict, or
    holds anything but tensors (such a file could run code, so it is never opened further).
    """
    if not path.is_file():
        raise ModelError(f"no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            weights: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about pickle protocols; what is wrong is said below, in one line
                weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path} was refused: it is damaged, or holds code or objects besides tensors, which could do anything "
            "when opened; ask for a plain state dict or a .safetensors file"
        ) from None
    except Exception as error:  # a damaged pickle may raise anything, as far as IndexError and struct.error
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{path} is truncated or is not a weights file: {first_line(error)}") from None
    if isinstance(weights, dict) and isinstance(weights.get("state_dict"), dict):
        weights = weights["state_dict"]
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise ModelError(f"{path} does not hold a state dict (names and tensors)")
    return {_own_name(str(name)): tensor for name, tensor in weights.items()}


def load_weights(model: LanguageModel, weights: dict[str, Tensor], origin: str) -> None:
    """Fill a model with a state dict. Raises `ModelError` if a name or shape does not fit, or for NaN or infinity."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        raise ModelError(f"{origin} does not fit the model: {' '.join(line.strip() for line in lines[1:3])}") from None
    _refuse_not_finite(model, origin)


def _refuse_not_finite(model: nn.Module, origin: str) -> None:
    if names := not_finite(model.named_parameters()):
        raise ModelError(
            f"{origin} has {len(names)} weights with NaN or infinity, {names[0]} first; use another copy or an earlier "
            "checkpoint"
        )


def _load_run(run: Path, path: Path | None) -> Pretrained:
    config = TrainConfig.load(run / CONFIG_FILE)
    if path is None:
        raise CheckpointError(f"{run} has no checkpoint yet; go on with: {command('train', '--resume', run)}")
    tokenizer = Tokenizer.load(run / TOKENIZER_FILE)
    sizes = config.model(tokenizer.vocab_size)
    model = _filled(config.architecture, sizes, checkpoint.read_model(path), str(path))
    has_start = tokenizer.start_id is not None
    return Pretrained(model, tokenizer, sizes, config.architecture, str(path), has_start=has_start)


def _load_repository(where: str, spm_file: str, trust_remote_code: bool) -> Pretrained:
    """A folder or Hub repository in Hugging Face's layout."""
    folder = _folder(where, ["config.json", "*.model", "model.safetensors"])
    config = _read_json(folder / "config.json")
    tokenizer = Tokenizer.load(_spm_file(folder, where, spm_file))
    model_type = str(config.get("model_type"))
    if model_type not in LAYOUTS:
        return _load_foreign(where, model_type, tokenizer, trust_remote_code)
    layout = LAYOUTS[model_type]
    file = folder / "model.safetensors"
    if not file.is_file():
        file = _folder(where, ["pytorch_model.bin"]) / "pytorch_model.bin"
    weights = read_weights(file)
    sizes = layout.sizes(config, weights, file)
    if tokenizer.vocab_size != sizes.vocab_size:
        raise ModelError(
            f"{tokenizer.path} has {tokenizer.vocab_size} pieces, but {file} {sizes.vocab_size}; "
            "this is not the tokenizer the model was trained with"
        )
    model = _filled(layout.architecture, sizes, layout.from_file(weights, sizes), str(file))
    has_start = tokenizer.start_id is not None and config.get("bos_token_id") == tokenizer.start_id
    return Pretrained(model, tokenizer, sizes, layout.architecture, where, has_start=has_start)


def _filled(architecture: str, sizes: ModelConfig, weights: dict[str, Tensor], origin: str) -> LanguageModel:
    """A model of these sizes and weights. Sizes from outside may be far beyond memory, so shapes are compared first."""
    with torch.device("meta"):
        expected = own_tensors(build_model(architecture, sizes))
    for name, tensor in expected.items():
        if name not in weights:
            raise ModelError(f"{origin} does not fit the model: {name} is missing")
        if weights[name].shape != tensor.shape:
            found, needed = tuple(weights[name].shape), tuple(tensor.shape)
            raise ModelError(f"{origin} does not fit the model: {name} is {found}, where {needed} is needed")
    model = build_model(architecture, sizes)
    load_weights(model, weights, origin)
    return model


def _folder(where: str, patterns: list[str]) -> Path:
    """A local folder as it is, or the wanted files of a Hub repository."""
    if Path(where).is_dir():
        return Path(where)
    if not is_hub_name(where):
        raise ModelError(f"no model {where}: it is neither a folder nor a Hub name (owner/name); check the spelling")
    return snapshot(where, patterns, repo_type="model")


def _spm_file(folder: Path, where: str, name: str) -> Path:
    """The SentencePiece model that was asked for, or the only one there is."""
    there = sorted(path.name for path in folder.glob("*.model"))
    if name in there:
        return folder / name
    if not name and len(there) == 1:
        return folder / there[0]
    asked = f"{where} has no {name}" if name else f"which SentencePiece model of {where} is meant?"
    raise ModelError(f"{asked}; choose with --spm-file from: {', '.join(there) or 'none there'}")


def _load_foreign(where: str, model_type: str, tokenizer: Tokenizer, trust_remote_code: bool) -> Pretrained:
    """Any other model, run by transformers, with the repository's own code if it has some."""
    if not trust_remote_code:
        raise ModelError(
            f"{where} is a {model_type!r} model, not ours. --trust-remote-code loads it through transformers, which "
            "may run Python code from the repository with your rights: say it only if you trust its author"
        )
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(where, trust_remote_code=True)
    except Exception as error:  # a stranger's files and code may raise anything
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{where} cannot be loaded by transformers: {first_line(error)}") from error
    _refuse_not_finite(model, where)
    return Pretrained(cast(LanguageModel, _Foreign(model)), tokenizer, None, model_type, where, use_cache=False)


class _Foreign(nn.Module):
    """A transformers model in our generator's terms: its "hidden states" are logits, and its head passes them on."""

    class _PassOn(nn.Module):
        def __init__(self, weight: Tensor) -> None:
            super().__init__()
            self.weight = weight  # asked for its device only

        def forward(self, logits: Tensor) -> Tensor:
            return logits

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        sizes = (
            getattr(model.config, name, None) for name in ("context_length", "max_position_embeddings", "n_positions")
        )
        self.context_length = next((size for size in sizes if size), 1024)

    @property
    def out_head(self) -> nn.Module:
        return self._PassOn(next(self.model.parameters()))

    def hidden(self, ids: Tensor) -> Tensor:
        output = self.model(input_ids=ids)
        logits: Tensor = output["logits"]
        return logits


def _own_name(name: str) -> str:
    prefixes = ("_orig_mod.", "module.", "backbone.")
    while name.startswith(prefixes):  # wrappers may lie in one another in any order
        name = name.partition(".")[2]
    return name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} is neither a run nor a model folder: it has no {path.name}") from None
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} does not hold a JSON object")
    return value
