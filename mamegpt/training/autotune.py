"""What is faster on this machine, measured before a run begins: number format, and compiled code or not."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch

from mamegpt.config import Engine, Precision, TrainConfig
from mamegpt.distributed.processes import World
from mamegpt.errors import first_line, is_out_of_memory
from mamegpt.models.base import LanguageModel
from mamegpt.models.lora import add_adapters
from mamegpt.models.registry import build_model
from mamegpt.native.build import BF16_SETS, best_instruction_set
from mamegpt.native.library import BF16_WIDTH_UNIT, Native
from mamegpt.system.devices import synchronize
from mamegpt.system.hardware import has_bf16, has_compiler, has_fp16
from mamegpt.training.events import (
    CompileFailed,
    CompileMeasured,
    Compiling,
    Emit,
    EngineMeasured,
    MicroBatchHalved,
    PrecisionMeasured,
)
from mamegpt.training.forward import SummedLoss, checkpoint_activations, micro_batch
from mamegpt.training.optim import build_optimizer

__all__ = ["Kind", "Probe", "autotune", "compiler_error", "fit_micro_batch", "formats", "kinds"]

WORTH_COMPILING_S = 600.0
"""Seconds from which on a run may gain more by compiling, half a minute or more, than it takes."""

PROBE_ROUNDS = 3


class Kind(NamedTuple):
    """A way to compute a step: with the native engine only where there is one."""

    precision: Precision
    compiled: bool = False
    is_native: bool = True


def formats(device: torch.device) -> list[Precision]:
    """Return the number formats that may be the fastest on a device: float32, and one of 16 bits that it has."""
    if has_bf16(device):
        return ["fp32", "bf16"]
    return ["fp32", "fp16"] if has_fp16(device) else ["fp32"]


def kinds(engine: Engine, precision: Precision, device: torch.device, emb_dim: int) -> list[Kind]:
    """Return the ways to compute that may be the fastest on a device, with an engine that may be "auto"."""
    precisions = formats(device) if precision == "auto" else [precision]
    of_pytorch = [Kind(one, is_native=False) for one in precisions if engine != "native"]
    multiplies_bf16 = best_instruction_set() in BF16_SETS and emb_dim % BF16_WIDTH_UNIT == 0
    may_be_fast: list[Precision] = ["fp32", "bf16"] if multiplies_bf16 else ["fp32"]
    of_engine = [Kind(one) for one in precisions if engine != "torch" and one in (precision, *may_be_fast)]
    return of_pytorch + of_engine


def autotune(
    config: TrainConfig, measure: Callable[[Sequence[Kind]], Sequence[float]], world: World, emit: Emit
) -> TrainConfig:
    """Return ``config`` with every "auto" decided: 16 bits where the hardware has them, compiled code where that pays.

    ``measure`` is `Probe.seconds_per_step`; it is not called if nothing is left to decide.
    """
    device = world.device
    choices = kinds(config.engine, config.precision, device, config.emb_dim)
    compile_ = "false" if config.compile == "auto" else config.compile
    may_compile = (
        config.compile == "auto"
        and config.drop_rate == 0
        and config.sharding == "none"
        and world.size == 1
        and has_compiler(device)
    )
    if len(choices) == 1 and not may_compile:
        return _decided(config, choices[0], compile_)
    seconds = dict(zip(choices, measure(choices), strict=True))
    chosen = min(choices, key=seconds.__getitem__)
    best = seconds[chosen]
    others = [s for kind, s in seconds.items() if kind.is_native != chosen.is_native]
    if others:
        emit(EngineMeasured(_engine(chosen), chosen.precision, min(others) / best))
    elif len(choices) > 1:
        emit(PrecisionMeasured(chosen.precision, max(seconds.values()) / best))
    if may_compile and (config.minutes * 60 or config.max_steps * best) >= WORTH_COMPILING_S:
        from torch._dynamo.exc import TorchDynamoException

        emit(Compiling())
        try:
            eager, compiled = measure([chosen, chosen._replace(compiled=True)])
        except TorchDynamoException as error:
            emit(CompileFailed(compiler_error(error)))
        else:
            compile_ = "true" if compiled < eager else "false"
            emit(CompileMeasured(compile_, compiled / eager))
    return _decided(config, chosen, compile_)


def _engine(kind: Kind) -> Engine:
    return "native" if kind.is_native else "torch"


def _decided(config: TrainConfig, kind: Kind, compile_: Literal["auto", "true", "false"]) -> TrainConfig:
    return dataclasses.replace(config, engine=_engine(kind), precision=kind.precision, compile=compile_)


def compiler_error(error: Exception) -> str:
    """Return the first line of what a compiler said; PyTorch wraps it in an error whose own first line names none."""
    return first_line(getattr(error, "inner_exception", error))


def fit_micro_batch(config: TrainConfig, probe: Probe, emit: Emit) -> TrainConfig:
    """Return ``config`` with fewer rows in a forward pass, if the memory of a GPU does not suffice for all of them.

    A step is tried in float32, or in the precision that is asked for. Nothing is changed on a CPU, whose passes are
    small, and if ``--micro-batch-size`` is given. Raises the error of PyTorch if not even one row fits.
    """
    if config.micro_batch_size or probe.device.type == "cpu" or config.sharding != "none":
        return config
    precision: Precision = "fp32" if config.precision == "auto" else config.precision
    asked = probe.n_rows
    while not probe.fits(precision):
        rows = max(n for n in range(1, probe.n_rows // 2 + 1) if probe.n_windows % n == 0)
        emit(MicroBatchHalved(probe.n_rows, rows))
        probe.n_rows = rows
    return config if probe.n_rows == asked else dataclasses.replace(config, micro_batch_size=probe.n_rows)


class Probe:
    """Measures optimizer steps of a run on a model that is thrown away with the probe, and built when first needed.

    It sees random tokens, and the random state is put back. Forward passes are as large as those of the run, so that it
    finds compiled ones in PyTorch's cache.
    """

    def __init__(
        self,
        config: TrainConfig,
        vocab_size: int,
        device: torch.device,
        n_processes: int = 1,
        *,
        native: Native | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.config, self.vocab_size, self.device, self.clock = config, vocab_size, device, clock
        self.native = native
        self.n_windows = config.batch_size // n_processes
        self.n_rows = micro_batch(config, self.n_windows, device)

    @functools.cached_property
    def model(self) -> LanguageModel:
        """The model that is measured."""
        model = build_model(self.config.architecture, self.config.model(self.vocab_size)).to(self.device)
        if self.config.lora:
            add_adapters(model, self.config.lora, learns_head=True)
        if self.config.activation_checkpointing:
            checkpoint_activations(model)
        return model

    def fits(self, precision: Precision) -> bool:
        """Return whether the memory suffices for a step with passes of ``n_rows``; raises if one row is too much."""
        random_state = torch.get_rng_state()
        try:
            self._step(precision)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or self.n_rows == 1:
                raise
            return False
        finally:
            self.__dict__.pop("model", None)  # trained by now, and its memory is wanted
            torch.set_rng_state(random_state)
            if torch.accelerator.is_available():
                torch.accelerator.empty_cache()
        return True

    def _step(self, precision: Precision) -> None:
        """Make one step; what it needed is free after it."""
        optimizer = build_optimizer(self.model, dataclasses.replace(self.config, precision=precision))
        ids = torch.randint(self.vocab_size, (self.n_rows, self.config.context_length), device=self.device)
        torch.autograd.backward(SummedLoss(self.model, precision)(ids, ids))
        optimizer.step()
        synchronize(self.device)

    def seconds_per_step(self, kinds: Sequence[Kind]) -> list[float]:
        """Measure how long one optimizer step takes with each kind of forward pass.

        They take turns, and the fastest of a few rounds counts: another program's work can only make a round slower.
        """
        random_state = torch.get_rng_state()
        updates_by = {kind: self._engine_of(kind) if kind.precision == "bf16" else None for kind in kinds}
        optimizers = {
            (precision, native): build_optimizer(
                self.model, dataclasses.replace(self.config, precision=precision), native
            )
            for precision, native in {(kind.precision, native) for kind, native in updates_by.items()}
        }
        ids = torch.randint(self.vocab_size, (self.n_rows, self.config.context_length), device=self.device)
        losses = [
            SummedLoss(self.model, kind.precision, compiled=kind.compiled, native=self._engine_of(kind))
            for kind in kinds
        ]
        passes: list[list[float]] = [[] for _ in kinds]
        updates: list[list[float]] = [[] for _ in kinds]
        for round_ in range(PROBE_ROUNDS + 1):
            for kind, summed_loss, times, update in zip(kinds, losses, passes, updates, strict=True):
                begin = self._now()
                torch.autograd.backward(summed_loss(ids, ids))
                middle = self._now()
                optimizer = optimizers[kind.precision, updates_by[kind]]
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if round_:  # the first one warms up
                    times.append(middle - begin)
                    update.append(self._now() - middle)
        torch.set_rng_state(random_state)
        n_passes = self.n_windows / self.n_rows
        return [min(times) * n_passes + min(update) for times, update in zip(passes, updates, strict=True)]

    def _engine_of(self, kind: Kind) -> Native | None:
        return self.native if kind.is_native else None

    def _now(self) -> float:
        synchronize(self.device)
        return self.clock()
