"""Checkpoints: folders that are written atomically and contain hashes of everything they depend on.

    checkpoints/step-00000250/
        model.safetensors        the model's state dict, under its own keys, a tied weight once
        optimizer.safetensors    the optimizer's tensors, as "<parameter name>|<state name>"
        state.json               step, seconds, hashes: of both files, of tokens, tokenizer and metrics, of itself

A run with full sharding has folders ``model/`` and ``optimizer/`` instead, each with one safetensors file per process,
which any number of processes can read (see `mamegpt.distributed.sharding`).

No random state is stored, because none is carried over: every step has its own seed (see `mamegpt.training.trainer`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from mamegpt.distributed import processes
from mamegpt.distributed.processes import World
from mamegpt.distributed.sharding import empty_state_dict, load_sharded, save_sharded, snapshot
from mamegpt.errors import CheckpointError, MamegptWarning, OutputError, first_line
from mamegpt.messages import join, msg
from mamegpt.models.base import cpu_state_dict, unique_state_dict
from mamegpt.run.run import Checkpoint, checkpoints
from mamegpt.system.files import (
    DESKTOP_FILES,
    IN_USE,
    SCRATCH,
    atomic_directory,
    free_name,
    hardening,
    make_scratch,
    remove_folder,
    sha256_file,
    write_json,
)
from mamegpt.system.validation import Count, FromJSON, Number, read_json, validated

__all__ = [
    "Saver",
    "State",
    "load",
    "quarantine",
    "read_model",
    "read_state",
    "refuse_other",
    "remove",
    "save",
    "skip_batches",
    "verify",
]

MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
MODEL_PARTS, OPTIMIZER_PARTS = "model", "optimizer"
STATE_FILE = "state.json"
OWN_FILES = {MODEL_FILE, OPTIMIZER_FILE, MODEL_PARTS, OPTIMIZER_PARTS, STATE_FILE}
MAKE_ROOM = msg("earlier checkpoints are intact: free space, then --resume")
GO_ON = msg("--resume-intact resumes from the newest intact checkpoint")


class SavedOptimizer(Protocol):
    """The part of the interface of `torch.optim.Optimizer` that a checkpoint needs."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...

    @property
    def state(self) -> Mapping[Tensor, Any]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class State(FromJSON):
    """The state of a run at a checkpoint. ``step`` counts finished optimizer steps; ``files`` maps names to SHA-256.

    ``settings``, ``tokens`` and ``tokenizer`` are fingerprints; ``metrics`` is the hash of the lines written so far.
    ``skipped`` batches are skipped before the next step; ``rollbacks`` counts the rollbacks to this checkpoint (see
    `mamegpt.training.loss_spikes`). ``finished`` marks the last checkpoint of a run or of an extension, which
    ``--minutes`` does not determine. ``ngrams_outgrown`` is set once the model predicts better than n-gram counts.
    ``loss_scale`` is that of a run in float16 (else 0), ``loss_scale_age`` the steps since it changed.
    """

    step: Count
    elapsed_s: Number
    settings: str
    tokens: str
    tokenizer: str
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metrics: str = ""
    skipped: Count = 0
    rollbacks: Count = 0
    finished: bool = False
    ngrams_outgrown: bool = False
    loss_scale: Number = 0.0
    loss_scale_age: Count = 0


class Saver:
    """Writes the checkpoints of a run in a thread: training waits only while its tensors are copied.

    One is written at a time. The error of a failed write is raised by the next call, at the latest by `wait`; for a
    complete checkpoint that call runs ``on_saved(step, path)`` in the calling thread of the main process. All processes
    have a `Saver` and call it at the same steps: only the main process's writes, but with ``parts`` all of them write
    their shards, and their threads communicate in a group of their own.
    """

    def __init__(
        self, folder: Path, keep: int, parts: bool, world: World, on_saved: Callable[[int, Path], None] | None = None
    ) -> None:
        self.folder, self.keep, self.parts, self.world, self.on_saved = folder, keep, parts, world, on_saved
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._group = processes.group_for_a_thread(world) if parts else None
        self._pending: tuple[int, Future[Path]] | None = None

    def save(
        self,
        model: nn.Module,
        optimizer: SavedOptimizer,
        state: State,
        is_proven: Callable[[int], bool] = lambda _: False,
    ) -> float:
        """Start writing a checkpoint; return the seconds that training waited, for the previous write too.

        Besides the newest checkpoints, the newest one whose step ``is_proven`` to be good is kept.
        """
        begin = time.perf_counter()
        self.wait()
        proven = next((path for step, path in reversed(checkpoints(self.folder)) if is_proven(step)), None)
        if self.parts:
            parts = {name: snapshot(tensors) for name, tensors in _parts(model, optimizer).items()}
            done = self._thread.submit(
                _write_parts, self.folder, parts, state, self.keep, proven, self.world.is_main, self._group
            )
        elif self.world.is_main:
            model_tensors, optimizer_tensors = (
                {name: tensor.clone() for name, tensor in tensors.items()}
                for tensors in (cpu_state_dict(model), _optimizer_tensors(model, optimizer))
            )
            done = self._thread.submit(_write, self.folder, model_tensors, optimizer_tensors, state, self.keep, proven)
        else:
            return 0.0
        self._pending = state.step, done
        return time.perf_counter() - begin

    def poll(self) -> None:
        """Call `wait` if the write has ended, with parts in all processes; else return at once."""
        if self._pending is None:
            return
        writing = not self._pending[1].done()
        if not (processes.any_process(writing, self.world.host_group) if self.parts else writing):
            self.wait()

    def wait(self) -> None:
        """Wait until the pending checkpoint is on disk; raise the error if writing it failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            step, done = pending
            path = done.result()
            if self.on_saved and self.world.is_main:
                self.on_saved(step, path)

    def close(self) -> None:
        """Finish the pending checkpoint after an error elsewhere, without raising its own error."""
        self._thread.shutdown()

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()
        if error is None:
            self.wait()


def save(folder: Path, model: nn.Module, optimizer: SavedOptimizer, state: State, *, keep: int) -> Path:
    """Write one checkpoint under ``folder``, then remove all but the ``keep`` newest. Returns its path.

    ``state`` lacks only the hashes of the files. Raises `OutputError` or `OSError` if they cannot be written; all
    existing checkpoints are unchanged then.
    """
    return _write(folder, cpu_state_dict(model), _optimizer_tensors(model, optimizer), state, keep)


def _parts(model: nn.Module, optimizer: SavedOptimizer) -> dict[str, dict[str, Tensor]]:
    parts = {MODEL_PARTS: unique_state_dict(model), OPTIMIZER_PARTS: _optimizer_tensors(model, optimizer)}
    return {name: tensors for name, tensors in parts.items() if tensors}  # the optimizer has none before the first step


def _write_parts(
    folder: Path,
    parts: Mapping[str, Mapping[str, Tensor]],
    state: State,
    keep: int,
    proven: Path | None,
    is_main: bool,
    group: ProcessGroup | None,
) -> Path:
    from torch.distributed.checkpoint.api import CheckpointException

    path = Checkpoint.at(folder, state.step).path
    staging = _shared_folder(path, is_main, group)
    try:
        for name, tensors in parts.items():
            save_sharded(staging / name, tensors, group)
    except CheckpointException as error:
        if is_main:
            shutil.rmtree(staging, ignore_errors=True)
        reason = next((one for one, _ in error.failures.values()), error)  # the error of the first process that failed
        raise OutputError(
            "{path} cannot be written ({reason}); {advice}", path=path, reason=first_line(reason), advice=MAKE_ROOM
        ) from None
    is_complete = not is_main
    try:
        if is_main:
            with atomic_directory(path, overwrite=True) as partial:
                for name in parts:
                    (staging / name).rename(partial / name)
                names = sorted(file.relative_to(partial).as_posix() for file in partial.glob("*/*"))
                files = {name: sha256_file(partial / name) for name in names}
                _write_state(partial, dataclasses.replace(state, files=files))
            shutil.rmtree(staging)
            _rotate(folder, keep, proven)
            is_complete = True
    finally:
        failed = processes.any_process(not is_complete, group)
    if failed:
        raise OutputError("{path} cannot be written by the main process; {advice}", path=path, advice=MAKE_ROOM)
    return path


def _shared_folder(path: Path, is_main: bool, group: ProcessGroup | None) -> Path:
    """Create a hidden folder next to a checkpoint for the files of all processes; its name is the same in all of them.

    Raises `OutputError` in all processes if the main process cannot create it.
    """
    number, failed = secrets.randbits(62) + 1 if is_main else 0, None
    if is_main:
        try:
            make_scratch(path.parent, number)
        except OSError as error:
            number, failed = 0, error
    number = int(processes.sum_over_processes(torch.tensor(number), group).item())
    if failed:
        raise OutputError(
            "{path} cannot be written ({reason}); {advice}", path=path, reason=first_line(failed), advice=MAKE_ROOM
        ) from None
    if not number:
        raise OutputError("{path} cannot be written by the main process; {advice}", path=path, advice=MAKE_ROOM)
    return path.parent / f"{SCRATCH}{number:x}"


def _write(
    folder: Path,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: State,
    keep: int,
    proven: Path | None = None,
) -> Path:
    path = Checkpoint.at(folder, state.step).path
    with atomic_directory(path, overwrite=True) as partial:
        try:
            save_file(dict(model), partial / MODEL_FILE)
            save_file(dict(optimizer), partial / OPTIMIZER_FILE)
        except SafetensorError as error:
            raise OutputError(
                "{path} cannot be written ({reason}); {advice}", path=path, reason=first_line(error), advice=MAKE_ROOM
            ) from None
        files = {name: sha256_file(partial / name) for name in (MODEL_FILE, OPTIMIZER_FILE)}
        _write_state(partial, dataclasses.replace(state, files=files))
    _rotate(folder, keep, proven)
    return path


def _rotate(folder: Path, keep: int, proven: Path | None) -> None:
    for _, old in checkpoints(folder)[:-keep]:
        if old != proven and _is_only_ours(old):  # a folder with a file of the user is kept
            try:
                with hardening(msg("to remove a folder"), old, *IN_USE):
                    remove_folder(old)
            except OutputError as error:  # on Windows, while another program reads it; the next save tries again
                warnings.warn(
                    msg("{path} is kept for now ({reason})", path=old, reason=first_line(error)),
                    MamegptWarning,
                    stacklevel=2,
                )


def remove(paths: Iterable[Path]) -> None:
    """Remove checkpoints; one that contains a file of the user is renamed to ``kept-...`` instead."""
    for path in paths:
        if _is_only_ours(path):
            remove_folder(path)
        else:
            path.replace(free_name(path.with_name(f"kept-{path.name}")))


def _is_only_ours(path: Path) -> bool:
    return {file.name for file in path.iterdir()} <= OWN_FILES | DESKTOP_FILES


def load(path: Path, model: nn.Module, optimizer: SavedOptimizer) -> State:
    """Load a checkpoint into a model and its optimizer, after comparing hashes.

    Raises `CheckpointError` if a file is missing or damaged, or does not fit the model.
    """
    state = verify(path)
    if _is_parts(state):
        _load_parts(path, model, optimizer)
        return state
    try:
        model.load_state_dict(load_file(path / MODEL_FILE))
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            "{path} does not fit this model: {reason}", path=path / MODEL_FILE, reason=first_line(error)
        ) from None
    try:
        _restore_optimizer(model, optimizer, load_file(path / OPTIMIZER_FILE))
    except (ValueError, SafetensorError) as error:
        raise CheckpointError(
            "{path} does not fit this model: {reason}", path=path / OPTIMIZER_FILE, reason=first_line(error)
        ) from None
    return state


def verify(path: Path) -> State:
    """Return a checkpoint's state, after comparing every hash.

    Raises `CheckpointError` if a file is missing or damaged.
    """
    state = read_state(path)
    for name, expected in state.files.items():
        if not (path / name).is_file() or sha256_file(path / name) != expected:
            raise CheckpointError(
                "{path} is missing or damaged: its hash is not the one in {file}; {advice}",
                path=path / name,
                file=STATE_FILE,
                advice=GO_ON,
            )
    return state


def read_state(path: Path) -> State:
    """Return the content of a checkpoint's ``state.json``.

    Raises `CheckpointError` if it cannot be read or is damaged.
    """
    try:
        content = read_json(path / STATE_FILE, dict[str, Any])
        digest = content.pop("sha256", None)  # checkpoints from before 2026-11-23 lack it
        state = validated(State, content)
        if not (set(state.files) == {MODEL_FILE, OPTIMIZER_FILE} or _is_parts(state)):
            raise ValueError(msg("it does not name the files of a checkpoint"))
        if digest not in (None, _digest(content)):
            raise ValueError(msg("it is not what its hash says"))
        return state
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "{path} cannot be read ({reason}); {advice}", path=path / STATE_FILE, reason=first_line(error), advice=GO_ON
        ) from None


def skip_batches(path: Path, n_batches: int, elapsed_s: float) -> None:
    """Record in a checkpoint that a run resumed from it skips the next ``n_batches``, and its time so far,
    ``elapsed_s``.
    """
    state = read_state(path)
    _write_state(
        path,
        dataclasses.replace(
            state, skipped=state.skipped + n_batches, rollbacks=state.rollbacks + 1, elapsed_s=elapsed_s
        ),
    )


def quarantine(folder: Path) -> list[str]:
    """Rename checkpoints newer than the newest intact one to ``damaged-...``; return the problem of each.

    Raises `CheckpointError`, and renames nothing, if no checkpoint is intact.
    """
    wrong: dict[Path, str] = {}
    for _, path in reversed(checkpoints(folder)):
        try:
            verify(path)
        except CheckpointError as error:
            wrong[path] = str(error).partition(";")[0]
        else:
            for damaged in wrong:
                damaged.replace(free_name(folder / f"damaged-{damaged.name}"))
            return list(wrong.values())
    if wrong:
        raise CheckpointError(
            "no checkpoint under {folder} is intact: {names}", folder=folder, names=join("; ", wrong.values())
        )
    return []


def read_model(path: Path) -> dict[str, Tensor]:
    """Return the model tensors of a checkpoint, after comparing hashes. Raises `CheckpointError` if it is damaged."""
    state = read_state(path)
    if _is_parts(state):
        verify(path)
        tensors = empty_state_dict(path / MODEL_PARTS)
        load_sharded(path / MODEL_PARTS, tensors)
        return tensors
    file = path / MODEL_FILE
    try:
        if sha256_file(file) != state.files[MODEL_FILE]:
            raise CheckpointError(
                "{file} is damaged: its hash is not the one in {file_2}", file=file, file_2=STATE_FILE
            )
        return load_file(file)
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError("{file} cannot be read: {reason}", file=file, reason=first_line(error)) from None


def refuse_other(folder: Path, **now: str) -> None:
    """Raise `CheckpointError` if the newest readable checkpoint has other ``settings``, ``tokens`` or ``tokenizer``.

    The arguments are the run's present fingerprints. Call it before anything is changed.
    """
    for _, path in reversed(checkpoints(folder)):
        with contextlib.suppress(CheckpointError):
            state = read_state(path)
            other = next((what for what, fingerprint in now.items() if getattr(state, what) != fingerprint), "")
            break
    else:
        return
    if other:
        raise CheckpointError(
            "{path} was made with other {other} than the run has now; nothing was changed", path=path, other=other
        )


def _is_parts(state: State) -> bool:
    """Return whether a checkpoint consists of shards: model/... and, after the first step, optimizer/..."""
    folders = {name.partition("/")[0] for name in state.files}
    return MODEL_PARTS in folders and folders <= {MODEL_PARTS, OPTIMIZER_PARTS}


def _load_parts(path: Path, model: nn.Module, optimizer: SavedOptimizer) -> None:
    """Load shards into a model and its optimizer, sharded or not."""
    tensors = unique_state_dict(model)
    found = empty_state_dict(path / MODEL_PARTS)
    if {name: tensor.shape for name, tensor in found.items()} != {name: t.shape for name, t in tensors.items()}:
        raise CheckpointError("{path} does not fit this model: other names or sizes", path=path / MODEL_PARTS)
    load_sharded(path / MODEL_PARTS, tensors)
    if not (path / OPTIMIZER_PARTS).is_dir():
        return
    parameters = dict(model.named_parameters())
    states = empty_state_dict(path / OPTIMIZER_PARTS)
    for label, value in states.items():
        parameter = parameters[label.rsplit("|", 1)[0]].detach()
        if value.shape == parameter.shape:
            states[label] = torch.empty_like(parameter, dtype=value.dtype)  # sharded like the parameter
    load_sharded(path / OPTIMIZER_PARTS, states)
    _restore_optimizer(model, optimizer, states)


def _write_state(path: Path, state: State) -> None:
    """Write ``state.json`` with a hash of its own content."""
    content = asdict(state)
    write_json(path / STATE_FILE, {**content, "sha256": _digest(content)})


def _digest(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _optimizer_tensors(model: nn.Module, optimizer: SavedOptimizer) -> dict[str, Tensor]:
    """Return the optimizer's state under the names of its parameters; this needs no pickle."""
    states = optimizer.state
    return {
        f"{name}|{key}": value.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for key, value in states.get(parameter, {}).items()
    }


def _restore_optimizer(model: nn.Module, optimizer: SavedOptimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the state from `_optimizer_tensors`; the optimizer moves each tensor to its device.

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
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    optimizer.load_state_dict(
        {
            "state": {i: states[names[p]] for i, p in enumerate(parameters) if names[p] in states},
            "param_groups": optimizer.state_dict()["param_groups"],
        }
    )
