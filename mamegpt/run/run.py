"""The folder of a training run. Everything that reads a run uses this module; `run_files` has the names of files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

from mamegpt.arguments import checked
from mamegpt.config import TrainConfig
from mamegpt.errors import CheckpointError, first_line
from mamegpt.messages import msg
from mamegpt.run.metrics import Quality, read_metrics
from mamegpt.system.files import is_here
from mamegpt.system.run_files import (
    CHECKPOINTS,
    CONFIG_FILE,
    CONFUSION_FILE,
    EVALUATION_FILE,
    EXTENSIONS_FILE,
    LABELS_FILE,
    MACHINE_FILE,
    TOKENIZER_FILE,
    TOKENS,
    is_run,
)
from mamegpt.system.shell import command
from mamegpt.system.validation import Count, FromJSON, Within, read_json

if TYPE_CHECKING:
    from mamegpt.data.shards import Meta, Split
    from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["Checkpoint", "Extension", "Run", "checkpoints"]

MAX_THREADS = 1 << 12
"""Far more threads than any machine has; a larger number is from a damaged file."""

T = TypeVar("T")


class Checkpoint(NamedTuple):
    """The model after ``step`` optimizer steps, in the folder ``path``."""

    step: int
    path: Path

    @classmethod
    def at(cls, folder: Path, step: int) -> Checkpoint:
        """Return the checkpoint of a step under ``folder``, which need not exist."""
        return cls(step, folder / f"step-{step:08d}")


def checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the complete checkpoints under a folder, oldest first."""
    if not folder.is_dir():
        return []
    named = ((path.name.removeprefix("step-"), path) for path in folder.glob("step-*") if path.is_dir())
    return sorted(Checkpoint(int(step), path) for step, path in named if step.isdecimal())


@dataclass(frozen=True)
class Extension(FromJSON):
    """An extension of a finished run: steps or minutes added after ``from_step`` steps and ``from_s`` seconds.

    In it, the learning rate rises and falls once more, as in the run.
    """

    from_step: Count
    from_s: Annotated[float, Within(ge=0)]
    steps: Count = 0
    minutes: Annotated[float, Within(ge=0)] = 0.0
    job: str = ""
    """The id that ``torchrun`` gave the command that requested it."""

    def __post_init__(self) -> None:
        if not self.steps + self.minutes > 0:
            raise ValueError(msg("an extension has neither steps nor minutes"))


@dataclass(frozen=True)
class _Machine(FromJSON, extra="ignore"):
    """The fields of ``machine.json`` that are used."""

    threads: Annotated[int, Within(ge=1, le=MAX_THREADS)] = 1


class Run:
    """A training run on disk, such as ``Run("runs/first")``.

    Constructing one reads nothing. `config`, `tokenizer` and `metrics` are read at first use and kept, so use a new
    `Run` to see what training has written since. A folder without a run, or a damaged or missing file, raises
    `CheckpointError` with one line that names it. Two runs are equal if their folders are.
    """

    @checked
    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and _place(self.folder) == _place(other.folder)

    def __hash__(self) -> int:
        return hash(_place(self.folder))

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def __fspath__(self) -> str:
        """Return the path of the folder, so that a run can be used wherever a path can."""
        return str(self.folder)

    @classmethod
    def find(cls, folder: str | os.PathLike[str]) -> Run | None:
        """Return the run in a folder; None if the folder is not a run, or does not exist."""
        return cls(folder) if os.fspath(folder) and is_run(Path(folder)) else None

    @classmethod
    def of_checkpoint(cls, path: str | os.PathLike[str]) -> Run | None:
        """Return the run that holds the checkpoint in a folder; None if no run does."""
        path = Path(path)
        is_inside = path.parent.name == CHECKPOINTS and is_here(path) and path.is_dir()
        return cls.find(path.parent.parent) if is_inside else None

    @property
    def is_begun(self) -> bool:
        """Whether the settings were written, so that training can resume."""
        return (self.folder / CONFIG_FILE).is_file()

    @cached_property
    def config(self) -> TrainConfig:
        """Every setting, as in ``config.json``."""
        return TrainConfig.load(self.folder / CONFIG_FILE)

    @property
    def _begun(self) -> Path:
        """The folder. Raises `CheckpointError` if it contains no run."""
        self.config  # noqa: B018
        return self.folder

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's own copy of the tokenizer. Raises `TokenizerError` if it is missing or damaged."""
        from mamegpt.tokenizer.tokenizer import Tokenizer

        return Tokenizer.load(self._begun / TOKENIZER_FILE)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of a classifier, in the order of its head; empty for another model.

        Raises `CheckpointError` if a classifier has none.
        """
        if self.config.task != "classify":
            return ()
        found = self._read(LABELS_FILE, list[str])
        if not found:
            raise CheckpointError(
                "{run} has no {file}, the names of its labels; copy the whole folder again",
                run=self.folder,
                file=LABELS_FILE,
            )
        return tuple(found)

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``, of steps and validations, in order; `read_metrics` describes their fields."""
        return read_metrics(self._begun)

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The metrics of steps: ``step``, ``loss`` in nats per token, ``lr``, ``tokens`` and ``elapsed_s`` so far, ...

        The losses of a run are ``[step["loss"] for step in run.steps]``.
        """
        return [record for record in self.metrics if "loss" in record]

    @property
    def validations(self) -> list[Quality]:
        """The results of the validations, in order, each with its ``step``."""
        return [Quality(**{"step": one["step"], **one["quality"]}) for one in self.metrics if "quality" in one]

    @property
    def quality(self) -> Quality | None:
        """The result of the newest validation; None if there was none."""
        return next(reversed(self.validations), None)

    def checkpoints(self) -> list[Checkpoint]:
        """Return the complete checkpoints that are there now, oldest first."""
        return checkpoints(self._begun / CHECKPOINTS)

    def latest(self) -> Checkpoint | None:
        """Return the newest complete checkpoint; None if there is none yet."""
        return next(reversed(self.checkpoints()), None)

    @checked
    def tokens(self, *, verify: bool = True) -> tuple[Meta, dict[str, Split]] | None:
        """Return the token shards that the run trains on: its own, or those in its settings; None if these are gone.

        The splits are "train" and, if the run validates, "val". With ``verify``, each file is read once and its hash is
        compared. Raises `DataError` if the shards are damaged or another tokenizer made them.
        """
        from mamegpt.data.shards import is_shards, open_shards

        places = (self._begun / TOKENS, Path(self.config.data))
        found = next((place for place in places if is_shards(place)), None)
        return open_shards(found, self.tokenizer, verify=verify) if found else None

    @property
    def machine(self) -> dict[str, Any]:
        """The machine that started the run, as in ``machine.json``; older versions wrote less of it, or nothing."""
        self._read(MACHINE_FILE, _Machine)
        return self._read(MACHINE_FILE, dict[str, Any]) or {}

    @property
    def extensions(self) -> list[Extension]:
        """The extensions of a finished run, in order."""
        return self._read(EXTENSIONS_FILE, list[Extension]) or []

    @property
    def evaluation(self) -> dict[str, Any]:
        """The newest result of `mamegpt eval`, as in ``evaluation.json``; empty if the run was not evaluated."""
        return self.read_evaluation(dict[str, Any]) or {}

    def read_evaluation(self, shape: type[T]) -> T | None:
        """Return the newest result of `mamegpt eval` as a type; None if the run was not evaluated."""
        return self._read(EVALUATION_FILE, shape, again=command("eval", "--model", self.folder))

    def read_confusion(self, shape: type[T]) -> T | None:
        """Return how a classifier does on its held-out texts as a type; None if that was not measured."""
        return self._read(CONFUSION_FILE, shape, again=command("classify", "--model", self.folder))

    def _read(self, name: str, shape: type[T], again: str = "") -> T | None:
        """Return an optional JSON file as a type, None if it is missing; ``again`` is the command that writes it."""
        path = self._begun / name
        if not path.is_file():
            return None
        try:
            return read_json(path, shape)
        except ValueError as error:
            why = first_line(error)
            raise CheckpointError(
                msg("{path} is damaged ({why}); delete it, or run: {again}", path=path, why=why, again=again)
                if again
                else msg("{path} is damaged ({why}); remove it to continue without it", path=path, why=why)
            ) from None


def _place(path: Path) -> str:
    """Return the canonical path of a place."""
    return os.path.realpath(path)
