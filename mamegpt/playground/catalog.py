"""The models to write with: runs, their checkpoints, exported folders, looked for at each request."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from mamegpt.config import TuneConfig
from mamegpt.errors import CheckpointError, ModelError
from mamegpt.messages import join
from mamegpt.pretrained import has_chat_template, is_classifier
from mamegpt.run.run import Checkpoint, Run, checkpoints
from mamegpt.system.files import shown
from mamegpt.system.hub import is_hub_name
from mamegpt.system.run_files import CHECKPOINTS, CONFIG_FILE, LABELS_FILE

__all__ = ["PLACES", "Entry", "answers", "bits_per_character", "entries", "listed"]

PLACES = ("runs", "demo*")
"""Where models are looked for if none is named: folders below the current one."""
DEPTH = 3
"""Levels of folders that are looked into."""


@dataclass(frozen=True)
class Entry:
    """A model by the name it is asked for: what ``--model`` of the other commands takes.

    Bytes of a folder's name that are not UTF-8 are escaped in ``name``, which can be sent and printed. ``path`` is what
    to load, of a run its newest checkpoint. ``created`` is in seconds since 1970. ``step`` and ``run`` are those of a
    checkpoint.
    """

    name: str
    path: str
    created: int
    step: int | None = None
    run: Path | None = None


def entries(models: Sequence[str]) -> list[Entry]:
    """Return the models that ``models`` name, or hold if they are folders of models; by default those in `PLACES`.

    The newest is first; earlier checkpoints of a run follow it. Raises `ModelError` if there is none, or if one of
    ``models`` is neither a folder with a model in it nor the name of one on the Hub.
    """
    groups: list[list[Entry]] = []
    for name in models or [str(path) for place in PLACES for path in Path().glob(place)]:
        inside = [group for folder in _folders(Path(name), DEPTH) if (group := _of_folder(folder))]
        if not inside and is_hub_name(name) and not Path(name).exists():
            inside = [[Entry(name, name, 0)]]
        if not inside and models:
            if _classifies(Path(name)):
                raise ModelError("{origin} classifies texts and generates none; use mamegpt classify", origin=name)
            raise ModelError(
                "no model in {name}: it is neither a run nor an exported folder, and holds none", name=name
            )
        groups += inside
    if not groups:
        raise ModelError(
            "no model in {names} here; name one, or make one with: mamegpt demo", names=join(" or ", PLACES)
        )
    groups.sort(key=lambda group: -group[0].created)
    return list({entry.name: entry for group in groups for entry in group}.values())


def listed(models: Sequence[str]) -> list[Entry]:
    """Return the entries to choose from, each model once and best first, as `entries` raises.

    An exported folder is left out if it holds the weights of a checkpoint that is listed, unless ``models`` names it.
    Runs are in the order of their lowest bits per character; what has none follows, the newest first.
    """
    found = entries(models)
    bits = bits_per_character(found)
    of_runs = {_fingerprint(entry) for entry in found if entry.run}
    kept = [e for e in found if e.run or e.name in models or _fingerprint(e) not in of_runs - {""}]
    best: dict[Path | None, float] = {}
    for entry in kept:
        best[entry.run] = min(best.get(entry.run, math.inf), bits.get(entry.name, math.inf))
    return sorted(kept, key=lambda entry: best[entry.run])


def _fingerprint(entry: Entry) -> str:
    """Tell equal weights, whether of a checkpoint or exported; "" if they cannot be read."""
    file = Path(entry.path) / "model.safetensors"
    try:
        stat = file.stat()
    except OSError:
        return ""
    return _fingerprint_of(file, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=1000)
def _fingerprint_of(file: Path, _mtime_ns: int, _n_bytes: int) -> str:
    """Hash name, type, shape and first row of each tensor: any step of a training changes these."""
    found = hashlib.sha256()
    try:
        with safe_open(file, "pt") as weights:
            own = {name.removeprefix("backbone."): name for name in weights.keys()}  # noqa: SIM118  (no mapping)
            for name in sorted(own):
                part = weights.get_slice(own[name])
                row = part[:1] if part.get_shape() else weights.get_tensor(own[name])
                found.update(f"{name} {part.get_dtype()} {part.get_shape()}".encode())
                found.update(row.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    except (OSError, SafetensorError, UnicodeError):
        return ""
    return found.hexdigest()


def bits_per_character(found: Sequence[Entry]) -> dict[str, float]:
    """Return, by name, the bits per character of those that were validated in training, at their very step.

    Of runs whose records are damaged there are none, and none of those that were tuned: theirs are of answers.
    """
    by_step: dict[tuple[Path | None, int | None], float] = {}
    for run in {entry.run for entry in found if entry.run}:
        with suppress(CheckpointError):
            if isinstance(Run(run).config, TuneConfig):
                continue
            by_step |= {(run, one.step): one.bits_per_character for one in Run(run).validations}
    return {entry.name: by_step[entry.run, entry.step] for entry in found if (entry.run, entry.step) in by_step}


def answers(entry: Entry) -> bool:
    """Return whether a model was tuned to answer, by its run's settings or its folder's chat template."""
    with suppress(CheckpointError, OSError, ValueError):  # damaged since, or no text
        if entry.run:  # whose step 0 is the model before it was tuned
            return Run(entry.run).config.answers and entry.step != 0
        return has_chat_template(Path(entry.path))
    return False


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """Yield a folder and those below it; models are not looked into."""
    if not folder.is_dir():
        return
    yield folder
    if depth and not (folder / CONFIG_FILE).exists():
        for inner in sorted(folder.iterdir()):
            if not inner.name.startswith("."):
                yield from _folders(inner, depth - 1)


def _of_folder(folder: Path) -> list[Entry]:
    """Return what can be loaded of a folder: a run and its earlier checkpoints, a checkpoint, an export.

    Those that classify generate nothing, so that they are left out.
    """
    if _classifies(folder):
        return []
    if saved := checkpoints(folder / CHECKPOINTS):
        newest, *earlier = reversed(saved)
        return [_of_checkpoint(folder, newest), *(_of_checkpoint(one.path, one) for one in earlier)]
    run = Run.of_checkpoint(folder)
    if run and (found := next((one for one in run.checkpoints() if one.path == folder), None)):
        return [_of_checkpoint(folder, found)]
    for weights in (folder / "model.safetensors", folder / "pytorch_model.bin"):
        if weights.is_file() and (folder / CONFIG_FILE).is_file():
            return [Entry(shown(folder), str(folder), int(weights.stat().st_mtime))]
    return []


def _classifies(folder: Path) -> bool:
    """Return whether a folder is a run, a checkpoint or an export that gives labels."""
    run = Run.of_checkpoint(folder)
    if ((run.folder if run else folder) / LABELS_FILE).is_file():
        return True
    with suppress(ModelError, OSError):  # damaged
        return (folder / CONFIG_FILE).is_file() and is_classifier(folder)
    return False


def _of_checkpoint(name: Path, found: Checkpoint) -> Entry:
    step, path = found
    return Entry(shown(name), str(path), int(path.stat().st_mtime), step, path.parent.parent)
