"""Checkpoints: folders that appear whole or not at all, and know what they were trained on.

    checkpoints/step-00000250/
        model.safetensors        the model's state dict, under its own keys, a tied weight once
        optimizer.safetensors    the optimizer's tensors, as "<parameter name>|<state name>"
        state.json               step, seconds, hashes of both files, of the tokens and of the tokenizer

No random state is stored, for none is carried over: every step seeds its own (see `trainer`).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mamegpt.errors import CheckpointError
from mamegpt.files import atomic_directory, sha256_file, write_json
from mamegpt.models import stored_tensors
from mamegpt.optim import Optimizer
from mamegpt.text import parse_json

__all__ = ["State", "checkpoints", "latest", "load", "read_model", "remove_leftovers", "save"]

MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"


@dataclass(frozen=True)
class State:
    """What a checkpoint is of. ``step`` counts finished optimizer steps; ``files`` maps names to SHA-256."""

    step: int
    elapsed_s: float
    settings: str
    tokens: str
    tokenizer: str
    files: Mapping[str, str]


def save(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    step: int,
    elapsed_s: float,
    settings: str,
    tokens: str,
    tokenizer: str,
    keep: int,
) -> Path:
    """Write one checkpoint under ``folder``, then remove all but the ``keep`` newest. Returns its path.

    ``settings``, ``tokens`` and ``tokenizer`` are the fingerprints of what the run was made with.
    """
    path = folder / f"step-{step:08d}"
    with atomic_directory(path, overwrite=True) as partial:
        save_file(stored_tensors(model), partial / MODEL_FILE)
        save_file(_optimizer_tensors(model, optimizer), partial / OPTIMIZER_FILE)
        files = {name: sha256_file(partial / name) for name in (MODEL_FILE, OPTIMIZER_FILE)}
        state = State(step, elapsed_s, settings, tokens, tokenizer, files)
        write_json(partial / STATE_FILE, asdict(state))
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old.rename(folder / f".{old.name}.old"))  # hidden first: what has its name is complete
    return path


def load(path: Path, model: nn.Module, optimizer: Optimizer) -> State:
    """Put a checkpoint's tensors into a model and its optimizer, after comparing hashes.

    Raises `CheckpointError` if a file is missing or damaged, or does not fit the model.
    """
    state = read_state(path)
    for name, expected in state.files.items():
        if not (path / name).is_file() or sha256_file(path / name) != expected:
            raise CheckpointError(
                f"{path / name} is missing or damaged: its hash is not the one in {STATE_FILE}; "
                f"delete {path} to go on from the checkpoint before it"
            )
    try:
        model.load_state_dict(load_file(path / MODEL_FILE))
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path / MODEL_FILE} does not fit this model: {_first_line(error)}") from None
    try:
        _restore_optimizer(model, optimizer, load_file(path / OPTIMIZER_FILE))
    except (ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path / OPTIMIZER_FILE} does not fit this model: {_first_line(error)}") from None
    return state


def read_state(path: Path) -> State:
    """The facts in a checkpoint's ``state.json``. Raises `CheckpointError` if it cannot be read."""
    try:
        state = State(**parse_json((path / STATE_FILE).read_text(encoding="utf-8")))
        facts = (state.settings, state.tokens, state.tokenizer)
        if (
            type(state.step) is not int
            or type(state.elapsed_s) not in (int, float)
            or not all(isinstance(fact, str) for fact in facts)
            or not isinstance(state.files, dict)
            or set(state.files) != {MODEL_FILE, OPTIMIZER_FILE}
        ):
            raise ValueError("it does not hold the state of a run")
        return state
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path / STATE_FILE} cannot be read ({_first_line(error)}); delete {path} to go on from the one before it"
        ) from None


def read_model(path: Path) -> dict[str, Tensor]:
    """The model tensors of a checkpoint, compared with their hash. Raises `CheckpointError` if damaged."""
    state = read_state(path)
    file = path / MODEL_FILE
    try:
        if sha256_file(file) != state.files[MODEL_FILE]:
            raise CheckpointError(f"{file} is damaged: its hash is not the one in {STATE_FILE}")
        return load_file(file)
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(f"{file} cannot be read: {_first_line(error)}") from None


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints under a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir()) if folder.is_dir() else []


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint under a folder."""
    return next(reversed(checkpoints(folder)), None)


def remove_leftovers(folder: Path) -> None:
    """Remove what a process that was killed while saving left half-written."""
    for pattern in (".*.partial", ".*.old"):
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state under the names of its parameters, so that no pickle is needed."""
    return {
        f"{name}|{key}": value.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _restore_optimizer(model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `_optimizer_tensors`; the optimizer itself puts each tensor where it wants it.

    Raises `ValueError` for a tensor that belongs to no parameter, or has neither its shape nor a single value.
    """
    named = dict(model.named_parameters())
    names = {parameter: name for name, parameter in named.items()}
    states: dict[str, dict[str, Tensor]] = {}
    for label, value in tensors.items():
        name, _, key = label.rpartition("|")
        if name not in named or value.shape not in (named[name].shape, ()):
            raise ValueError(f"{label!r} of shape {tuple(value.shape)} belongs to no parameter")
        states.setdefault(name, {})[key] = value
    for part in getattr(optimizer, "parts", [optimizer]):
        parameters = [parameter for group in part.param_groups for parameter in group["params"]]
        part.load_state_dict(
            {
                "state": {i: states[names[p]] for i, p in enumerate(parameters) if names[p] in states},
                "param_groups": part.state_dict()["param_groups"],
            }
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
