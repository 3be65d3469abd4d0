"""What a run measures before it begins: number format, compiled code or not, and how many steps its minutes hold."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from torch._dynamo.exc import BackendCompilerFailed

from mamegpt.config import Precision, TrainConfig
from mamegpt.distributed import processes
from mamegpt.distributed.processes import World
from mamegpt.errors import first_line
from mamegpt.run.run import Extension, Run
from mamegpt.system.console import say
from mamegpt.system.files import write_json
from mamegpt.system.hardware import has_bf16, has_compiler
from mamegpt.system.run_files import EXTENSIONS_FILE
from mamegpt.training.forward import seconds_per_step
from mamegpt.training.optim import lr_factor

__all__ = ["Pace", "extend", "measured"]

WORTH_COMPILING_S = 600.0
"""Seconds from which on a run may gain more by compiling, half a minute or more, than it takes."""


def measured(config: TrainConfig, vocab_size: int, world: World) -> TrainConfig:
    """What is faster here: bf16 where the hardware has it, compiled code where the run is long enough to pay for it."""
    device = world.device
    choices: list[Precision] = ["fp32", "bf16"] if config.precision == "auto" and has_bf16(device) else ["fp32"]
    if config.precision != "auto":
        choices = [config.precision]
    compile_ = "false" if config.compile == "auto" else config.compile
    may_compile = (
        config.compile == "auto" and config.drop_rate == 0 and config.sharding == "none" and world.size == 1
        and has_compiler(device)
    )  # fmt: skip
    if len(choices) == 1 and not may_compile:
        return dataclasses.replace(config, precision=choices[0], compile=compile_)
    seconds = seconds_per_step(config, vocab_size, device, [(choice, False) for choice in choices], world.size)
    best = min(seconds)
    precision = choices[seconds.index(best)]
    if len(choices) > 1:
        say(f"precision: {precision}, measured to be {max(seconds) / best:.1f} times as fast as the other")
    if may_compile and (config.minutes * 60 or config.max_steps * best) >= WORTH_COMPILING_S:
        say("compiling the model, as the run is long enough to pay for it ...")
        try:
            kinds = [(precision, False), (precision, True)]
            eager, compiled = seconds_per_step(config, vocab_size, device, kinds)
        except BackendCompilerFailed as error:
            say(f"warning: torch.compile does not work here ({first_line(error)}); going on without it")
        else:
            compile_ = "true" if compiled < eager else "false"
            say(f"compile: {compile_}, a step takes {compiled / eager:.2f} of the time")
    return dataclasses.replace(config, precision=precision, compile=compile_)


def extend(run: Path, extension: Extension) -> None:
    """Record that a finished run is extended."""
    write_json(run / EXTENSIONS_FILE, [dataclasses.asdict(one) for one in [*Run(run).extensions, extension]])


class Pace:
    """How many steps a run will have: those asked for, or as many as its minutes hold, estimated again at each step.

    So the learning rate, which follows the share of steps that are done, ends its cool-down on time whatever the
    machine does in between. ``reserve_s`` seconds of the minutes are kept for the last validation.
    """

    def __init__(
        self, config: TrainConfig, vocab_size: int, first_step: int, elapsed_s: float, world: World,
        extensions: Sequence[Extension] = (), is_over: bool = False, reserve_s: float = 0.0,
    ) -> None:  # fmt: skip
        whole = Extension(0, 0.0, 0 if config.minutes else config.max_steps, config.minutes)
        parts = [whole, *extensions]
        self.config, self.world, self.reserve_s = config, world, reserve_s
        self.begins = [part.from_step for part in parts]
        self.budget_s, self.begin_s = parts[-1].minutes * 60, parts[-1].from_s
        self.first_step, self.first_s = first_step, elapsed_s
        self.n_steps = parts[-1].from_step + parts[-1].steps
        if is_over:
            self.n_steps = first_step
        elif self.budget_s:
            kind = config.precision, config.compile == "true"
            self._estimate(
                first_step, elapsed_s, *seconds_per_step(config, vocab_size, world.device, [kind], world.size)
            )

    def lr_factor(self, step: int) -> float:
        """Return the share of the peak learning rates at a step, on the schedule of the extension it belongs to."""
        i = bisect.bisect_right(self.begins, step) - 1
        begin, end = self.begins[i], [*self.begins, self.n_steps][i + 1]
        return lr_factor(step - begin, end - begin, self.config.warmup_fraction, self.config.cooldown_fraction)

    def update(self, step: int, elapsed_s: float) -> None:
        """``step`` steps are done, ``elapsed_s`` seconds are gone; all processes come to one answer."""
        if self.budget_s:
            self._estimate(step, elapsed_s, (elapsed_s - self.first_s) / (step - self.first_step))

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
