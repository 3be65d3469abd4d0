"""What computes attention, the output head and its loss: PyTorch, or the native engine where it is faster."""

from __future__ import annotations

import torch

from mamegpt.config import Engine, Precision, TrainConfig
from mamegpt.errors import ConfigError
from mamegpt.messages import Message, msg
from mamegpt.native.build import BF16_SETS, best_instruction_set, is_built, library_path
from mamegpt.native.library import BF16_WIDTH_UNIT, WIDTH_UNIT, Native, load, load_if_built
from mamegpt.system.devices import choose_device
from mamegpt.system.hardware import cpp_compiler, has_bf16
from mamegpt.training.events import BuildingEngine, Emit, NoEngine

__all__ = ["choose_engine", "engine_name", "load_engine", "same_bits", "will_compute"]

_SAME_BITS = dict.fromkeys(("native amx", "native avx512bf16", "native avx512"), "native avx2")
"""Engines by `engine_name` that compute in float32 the bits of another in wider vectors
(`test_avx512_gives_the_bits_of_avx2`)."""


def choose_engine(config: TrainConfig, device: torch.device, emit: Emit = lambda _: None) -> Engine:
    """Return "native" or "torch" for the settings of a run whose engine may be "auto", or "auto" if that is to be
    measured (`mamegpt.training.autotune`).

    "auto" is "native" on processors on which it is known to be faster (docs/log.md), if it can be built: those with
    AVX2 and without bfloat16 or AVX-512. On those that multiply in bfloat16, by AVX-512 or AMX, it is built and
    measured; on others, for which PyTorch has other kernels, it is measured if it is built.
    """
    if config.engine != "auto":
        return config.engine
    multiplies_bf16 = best_instruction_set() in BF16_SETS
    computes = config.precision in ("auto", "fp32") or (config.precision == "bf16" and multiplies_bf16)
    unit = BF16_WIDTH_UNIT if config.precision == "bf16" else WIDTH_UNIT
    if not computes or config.sharding != "none" or config.emb_dim % unit or device.type != "cpu":
        return "torch"
    is_faster = _is_faster(device)
    builds = is_faster or multiplies_bf16
    native = load_engine("native", device, emit, must=False) if builds else load_if_built()
    if native is None:
        return "torch"
    return "native" if is_faster else "auto"


def load_engine(
    engine: Engine,
    device: torch.device,
    emit: Emit = lambda _: None,
    *,
    must: bool,
    precision: Precision = "auto",
) -> Native | None:
    """Return the native engine, built if need be; None for "torch". For "auto", see `choose_engine`.

    If it cannot be had, raises `ConfigError` if it ``must``; else `NoEngine` tells why, and None is returned.
    """
    if engine == "torch":
        return None
    try:
        if device.type != "cpu":
            raise ConfigError("it computes on a CPU (got --device {device})", device=device.type)
        if precision == "bf16" and best_instruction_set() not in BF16_SETS:
            raise ConfigError("it computes in bf16 with AMX or AVX512-BF16, which this processor lacks")
        return load(on_build=lambda command: emit(BuildingEngine(command)))
    except ConfigError as error:
        if must:
            raise ConfigError("--engine native cannot be used ({reason}); leave it out", reason=error.message) from None
        emit(NoEngine(error.message))
        return None


def engine_name(native: Native | None) -> str:
    """Return what computes, with what its last bits depend on, as in ``machine.json``."""
    return f"native {native.instructions}" if native else "torch"


def same_bits(name: str, other: str, precision: Precision) -> bool:
    """Return whether two engines, by their `engine_name`, give a run the same weights."""
    if precision == "bf16":
        return name == other
    return _SAME_BITS.get(name, name) == _SAME_BITS.get(other, other)


def will_compute() -> Message:
    """Return in words what "auto" is on this machine, and why; nothing is built for that."""
    device, instructions = choose_device().device, best_instruction_set()
    if device.type != "cpu":
        return msg("PyTorch (native computes on a CPU)")
    is_faster = _is_faster(device)
    either = msg("PyTorch or native ({instructions}), whichever is measured to be faster", instructions=instructions)
    if not is_faster and instructions not in BF16_SETS:
        return either if load_if_built() else msg("PyTorch (native is not built; --engine native builds it)")
    try:
        if is_built(library_path(instructions)):
            return msg("native ({instructions})", instructions=instructions) if is_faster else either
        command = cpp_compiler()
    except ConfigError as error:
        return msg("PyTorch ({reason})", reason=error.message)
    if not command:
        return msg("PyTorch (native needs a C++ compiler: g++ or clang++)")
    if not is_faster:
        return either
    return msg(
        "native ({instructions}), built by {compiler} at the first training",
        instructions=instructions,
        compiler=command[0],
    )


def _is_faster(device: torch.device) -> bool:
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2" and not has_bf16(device)
