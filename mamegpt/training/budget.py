"""How many steps a run has: those asked for, those its minutes hold, and those that were added when it was finished."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mamegpt.config import TrainConfig
from mamegpt.distributed import processes
from mamegpt.distributed.processes import World
from mamegpt.errors import ConfigError
from mamegpt.run.checkpoint import State
from mamegpt.run.run import Extension, Run
from mamegpt.system.files import write_json
from mamegpt.system.run_files import EXTENSIONS_FILE
from mamegpt.system.shell import command
from mamegpt.training.optim import lr_factor

__all__ = ["StepBudget", "extend", "extensions_of", "is_finished"]


def is_finished(config: TrainConfig, state: State, extensions: Sequence[Extension]) -> bool:
    """Return whether a run at ``state`` has no step left to do, its extensions included."""
    if any(one.from_step >= state.step for one in extensions):
        return False
    part = extensions[-1] if extensions else Extension(0, 0.0, config.max_steps, config.minutes)
    if state.finished or not part.minutes:
        return state.finished or state.step >= part.from_step + part.steps
    return state.elapsed_s >= part.from_s + part.minutes * 60  # a run of before checkpoints knew that they are the last


def extensions_of(
    run: Path, config: TrainConfig, state: State, more_steps: int, more_minutes: float, world: World
) -> list[Extension]:
    """Return the extensions of a run at ``state``; the one asked for now, if any, is recorded and among them.

    Raises `ConfigError` if the run cannot be extended.
    """
    found = Run(run).extensions
    processes.barrier(world)  # all have read it
    is_recorded = bool(found) and found[-1].job == processes.job()
    if not (more_steps or more_minutes) or (processes.started_again() and is_recorded):
        return found
    if more_minutes and config.sharding == "full":
        raise ConfigError(
            "{run} has --sharding full, and --more-minutes needs the whole model in one process; use --more-steps",
            run=run,
        )
    if is_finished(config, state, found):
        found.append(Extension(state.step, state.elapsed_s, more_steps, more_minutes, processes.job()))
        if world.is_main:
            extend(run, found[-1])
    elif not processes.started_again():
        raise ConfigError(
            "{run} is not finished (step {step:,}); first resume it: {command}",
            run=run,
            step=state.step,
            command=command("train", "--resume", run),
        )
    return found


def extend(run: Path, extension: Extension) -> None:
    """Record that a finished run is extended."""
    write_json(run / EXTENSIONS_FILE, [dataclasses.asdict(one) for one in [*Run(run).extensions, extension]])


class StepBudget:
    """How many steps a run will have: those asked for, or as many as its minutes hold, estimated again at each step.

    So the learning rate, which follows the share of steps that are done, ends its cool-down on time whatever the
    machine does in between. The first estimate takes ``seconds_per_step``. ``reserve_s`` seconds of the minutes are
    kept for the last validation.
    """

    def __init__(
        self,
        config: TrainConfig,
        first_step: int,
        elapsed_s: float,
        world: World,
        *,
        extensions: Sequence[Extension] = (),
        finished: bool = False,
        seconds_per_step: float = 0.0,
        reserve_s: float = 0.0,
    ) -> None:
        whole = Extension(0, 0.0, 0 if config.minutes else config.max_steps, config.minutes)
        parts = [whole, *extensions]
        self.config, self.world, self.reserve_s = config, world, reserve_s
        self.begins = [part.from_step for part in parts]
        self.budget_s, self.begin_s = parts[-1].minutes * 60, parts[-1].from_s
        self.first_step, self.first_s = first_step, elapsed_s
        self.n_steps = parts[-1].from_step + parts[-1].steps
        if finished:
            self.n_steps = first_step
        elif self.budget_s:
            self._estimate(first_step, elapsed_s, seconds_per_step)

    def lr_factor(self, step: int) -> float:
        """Return the share of the peak learning rates at a step, on the schedule of the extension it belongs to."""
        i = bisect.bisect_right(self.begins, step) - 1
        begin, end = self.begins[i], [*self.begins, self.n_steps][i + 1]
        return lr_factor(step - begin, end - begin, self.config.warmup_fraction, self.config.cooldown_fraction)

    @property
    def n_first_steps(self) -> int:
        """The steps of the run without its extensions."""
        return self.begins[1] if len(self.begins) > 1 else self.n_steps

    def progress(self, step: int) -> float:
        """Return the share of the run that is done at a step, 0 to 1; an extension comes after all of it."""
        return min(1.0, step / self.n_first_steps)

    def update(self, step: int, elapsed_s: float) -> None:
        """Estimate again: ``step`` steps are done, ``elapsed_s`` seconds are gone. All processes get one answer."""
        if self.budget_s:
            self._estimate(step, elapsed_s, (elapsed_s - self.first_s) / (step - self.first_step))

    def end(self, step: int) -> None:
        """Let the run have no more than ``step`` steps."""
        self.n_steps = step

    def seconds_left(self, step: int, elapsed_s: float, seconds_per_step: float) -> float:
        """Return what is left: of the minutes, their rest; of the steps, as long as they take at this speed."""
        if self.budget_s:
            return max(0.0, self.begin_s + self.budget_s - elapsed_s)
        return (self.n_steps - step) * seconds_per_step

    def _estimate(self, step: int, elapsed_s: float, seconds_per_step: float) -> None:
        left_s = self.begin_s + self.budget_s - self.reserve_s - elapsed_s
        n_more = max(0, round(left_s / seconds_per_step))
        # One at least, so that a run that goes on comes to its last step, which validates and finishes it.
        self.n_steps = processes.from_main(max(self.first_step + 1, step + n_more), self.world)
