"""What a run measures before it begins: number format, compiled code or not, and how many steps its minutes hold."""

from __future__ import annotations

import dataclasses

from torch._dynamo.exc import BackendCompilerFailed

from mamegpt import distributed
from mamegpt.config import Precision, TrainConfig
from mamegpt.console import say
from mamegpt.distributed import World
from mamegpt.errors import first_line
from mamegpt.machine import has_bf16, has_compiler
from mamegpt.step import seconds_per_step

__all__ = ["Pace", "measured"]

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


class Pace:
    """How many steps a run will have: those asked for, or as many as its minutes hold, reckoned anew at each step.

    So the learning rate, which follows the share of steps that are done, ends its cool-down on time whatever the
    machine does in between. The last validation comes after that time.
    """

    def __init__(self, config: TrainConfig, vocab_size: int, first_step: int, elapsed_s: float, world: World) -> None:
        self.budget_s, self.world = config.minutes * 60, world
        self.first_step, self.first_s = first_step, elapsed_s
        self.n_steps = config.max_steps
        if self.budget_s:
            kind = config.precision, config.compile == "true"
            self._reckon(first_step, elapsed_s, *seconds_per_step(config, vocab_size, world.device, [kind], world.size))

    def update(self, step: int, elapsed_s: float) -> None:
        """``step`` steps are done, ``elapsed_s`` seconds are gone; all processes come to one answer."""
        if self.budget_s:
            self._reckon(step, elapsed_s, (elapsed_s - self.first_s) / (step - self.first_step))

    def _reckon(self, step: int, elapsed_s: float, seconds_per_step: float) -> None:
        n_more = max(0, round((self.budget_s - elapsed_s) / seconds_per_step))
        self.n_steps = distributed.from_main(max(1, step + n_more), self.world)
