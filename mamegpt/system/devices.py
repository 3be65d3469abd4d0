"""The devices of this machine that PyTorch can compute on, and which of them ``auto`` takes.

None of this has been run on a GPU yet: the tests replace PyTorch's answers.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
import torch.nn.functional as F

from mamegpt.errors import ConfigError, first_line
from mamegpt.messages import Message, msg
from mamegpt.system.device_names import DEVICE_NAMES, is_device_name
from mamegpt.system.limits import memory

__all__ = [
    "Choice",
    "Device",
    "choose_device",
    "described",
    "deterministic",
    "device_name",
    "devices",
    "free_memory",
    "on_device",
    "synchronize",
    "total_memory",
]

KINDS = ("cuda", "xpu", "mps")
"""Kinds of accelerators, the first that works is taken; AMD's cards are "cuda" for PyTorch."""
MPS_NEEDS_PYTORCH = (2, 14)
MPS_NEEDS_MACOS = 15
"""Either is enough for products on MPS that are written where they were asked for (pytorch#193385)."""
TRIAL_SIZE = 64
"""Positions, and width, in the training step with which a device is tried."""


@dataclass(frozen=True)
class Device:
    """An accelerator. ``capability`` is NVIDIA's number; ``problem`` says why "auto" does not take it, if so."""

    device: torch.device
    name: str
    memory_bytes: int
    capability: str = ""
    problem: str = ""

    @property
    def line(self) -> Message:
        """The device in one line."""
        size = self.memory_bytes / 2**30
        if self.capability:
            return msg(
                "{device}: {name}, {size:.1f} GiB, compute capability {capability}",
                device=self.device,
                name=self.name,
                size=size,
                capability=self.capability,
            )
        return msg("{device}: {name}, {size:.1f} GiB", device=self.device, name=self.name, size=size)


@dataclass(frozen=True)
class Choice:
    """The device to compute on, and what is to be said about others: which are not used, and why."""

    device: torch.device
    notices: tuple[str, ...] = ()


def devices() -> list[Device]:
    """Return the accelerators that PyTorch sees, in the order in which "auto" tries them."""
    found = []
    for kind in KINDS:
        if kind == "mps":
            if torch.backends.mps.is_available():
                size = torch.mps.recommended_max_memory()
                found.append(Device(torch.device("mps"), "Apple MPS", size, problem=_mps_problem()))
            continue
        module = torch.get_device_module(kind)
        for i in range(module.device_count() if module.is_available() else 0):
            properties = module.get_device_properties(i)
            capability, problem = "", ""
            if kind == "cuda" and not torch.version.hip:
                capability = f"{properties.major}.{properties.minor}"
                problem = _cuda_problem(properties.major, properties.minor, torch.cuda.get_arch_list())
            found.append(Device(torch.device(kind, i), properties.name, properties.total_memory, capability, problem))
    return found


def device_name(device: torch.device) -> str:
    """Return the name of an accelerator, as its driver says it."""
    return next((one.name for one in devices() if one.device == device), device.type)


def described(device: torch.device) -> str:
    """Return a device and its name; the CPU has none here."""
    return device.type if device.type == "cpu" else f"{device} ({device_name(device)})"


def choose_device(name: str = "auto", local_rank: int = 0, n_local: int = 1) -> Choice:
    """Return the device called ``name`` for one of ``n_local`` processes on this machine.

    "auto" is the first of `devices` that can compute (a small training step is tried), else the CPU. Another name is
    that device or an error, never another device. Raises `ConfigError` for an unknown name, for a device that is not
    available, and for more processes than devices.
    """
    if not is_device_name(name):
        raise ConfigError("--device must be one of {names} (got {name})", names=", ".join(DEVICE_NAMES), name=name)
    if name == "cpu":
        return Choice(torch.device("cpu"))
    kind, _, number = name.partition(":")
    seen = [one for one in devices() if kind in ("auto", one.device.type)]
    if kind == "auto":
        return _auto(seen, local_rank, n_local)
    if not seen:
        reason = _not_seen(kind) or msg("PyTorch sees none here")
        raise ConfigError("--device {name} was asked for, but {reason}; use --device cpu", name=name, reason=reason)
    if number and n_local > 1:
        raise ConfigError(
            "--device {name} is one device, for {n} processes; use --device {kind}", name=name, n=n_local, kind=kind
        )
    chosen = seen if not number else [one for one in seen if one.device.index == int(number)]
    if not chosen:
        raise ConfigError(
            "--device {name} was asked for, but {reason}; use --device cpu",
            name=name,
            reason=msg("there are only these: {names}", names=", ".join(str(one.device) for one in seen)),
        )
    problems = [msg("{device}: {problem}", device=one.line, problem=one.problem) for one in chosen if one.problem]
    left = () if number else _left(chosen, n_local)
    return Choice(_of_process(chosen, local_rank, n_local), (*problems, *left))


def _auto(seen: list[Device], local_rank: int, n_local: int) -> Choice:
    """Return the first device that can compute."""
    notices: list[str] = [reason] if not seen and (reason := _not_seen("cuda")) else []
    usable: list[Device] = []
    for one in seen:
        if usable and usable[0].device.type != one.device.type:
            break  # a kind further down
        problem = one.problem
        if not problem and one.device.type == "mps" and n_local > 1:
            problem = msg("it works in one process only")
        if not problem and not usable and n_local == 1:  # several processes must all take the same kind
            problem = _trial(one.device)
        if problem:
            notices.append(msg("{device} is not used: {problem}", device=one.line, problem=problem))
        else:
            usable.append(one)
    if not usable:
        return Choice(torch.device("cpu"), tuple(notices))
    return Choice(_of_process(usable, local_rank, n_local), (*notices, *_left(usable, n_local)))


def _of_process(usable: list[Device], local_rank: int, n_local: int) -> torch.device:
    """Return the device of one of several processes: each has its own."""
    if max(n_local, local_rank + 1) > len(usable):
        raise ConfigError(
            "torchrun started {n} processes on this machine, which has {n_devices} devices ({names}); use "
            "--nproc-per-node {n_devices}, or --device cpu",
            n=max(n_local, local_rank + 1),
            n_devices=len(usable),
            names=", ".join(str(one.device) for one in usable),
        )
    return usable[local_rank].device


def _left(usable: list[Device], n_local: int) -> tuple[str, ...]:
    """Return what to say about devices that remain idle."""
    n, first = len(usable), usable[0].device
    if n_local > 1 or n == 1:
        return ()
    return (
        msg(
            "{device} alone is used, of {n} devices; use all with: torchrun --nproc-per-node {n} --no-python "
            "mamegpt ...",
            device=first,
            n=n,
        ),
    )


def _cuda_problem(major: int, minor: int, built_for: list[str]) -> str:
    """Return why a card of this compute capability cannot run a PyTorch that was ``built_for`` others.

    Kernels ("sm_86") run on the same major version from their minor version on, intermediate code ("compute_90") on
    everything newer, those with a letter ("sm_90a") on that capability alone.
    """
    known = [found for arch in built_for if (found := re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", arch))]
    for kind, major_, minor_, letter in (found.groups() for found in known):
        built = int(major_), int(minor_)
        if built == (major, minor) or (
            not letter and built <= (major, minor) and (kind == "compute" or built[0] == major)
        ):
            return ""
    if not known:
        return ""
    return msg(
        "this PyTorch has no code for it (built for {names}); install an older PyTorch that has",
        names=", ".join(built_for),
    )


def _mps_problem() -> str:
    """Return why MPS is not taken by itself."""
    numbers = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if numbers and (int(numbers[1]), int(numbers[2])) >= MPS_NEEDS_PYTORCH:
        return ""
    if int(platform.mac_ver()[0].partition(".")[0] or 0) >= MPS_NEEDS_MACOS:
        return ""
    return msg(
        "it needs macOS {macos} or PyTorch {pytorch}, since earlier ones compute wrong gradients",
        macos=MPS_NEEDS_MACOS,
        pytorch=".".join(map(str, MPS_NEEDS_PYTORCH)),
    )


def _not_seen(kind: str) -> str:
    """Return why PyTorch sees no device of a kind, if that is known."""
    if kind == "cuda" and torch.version.cuda is None and torch.version.hip is None and shutil.which("nvidia-smi"):
        return msg(
            "there is an NVIDIA driver, but this PyTorch is built without CUDA: install one with it, by the command "
            "that https://pytorch.org/get-started/locally shows"
        )
    return ""


@functools.cache
def _trial(device: torch.device) -> str:
    """Make one small training step on a device; return what fails, "" if it works."""
    try:
        x = torch.randn(1, 2, TRIAL_SIZE, TRIAL_SIZE, generator=torch.Generator().manual_seed(0)).to(device)
        weight = torch.nn.Parameter(x[0, 0].clone())
        attended = F.scaled_dot_product_attention(x @ weight, x, x, is_causal=True)
        targets = torch.arange(TRIAL_SIZE, device=device)
        torch.autograd.backward(F.cross_entropy(attended[0, 0], targets))
        assert weight.grad is not None, "the backward pass has filled it"
        if not bool((weight - weight.grad).isfinite().all()):
            return msg("a small training step gives no finite numbers")
    except (RuntimeError, NotImplementedError) as error:
        return msg("a small training step fails ({reason})", reason=first_line(error))
    return ""


def free_memory(device: torch.device) -> int:
    """Return the free memory of a device in bytes; that of the CPU is the machine's."""
    if device.type == "cpu":
        return memory().available
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    free, _ = torch.get_device_module(device).mem_get_info(device)
    return int(free)


def total_memory(device: torch.device) -> int:
    """Return all memory of a device in bytes; that of the CPU is the machine's."""
    return next((one.memory_bytes for one in devices() if one.device == device), memory().total)


def on_device(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return an array as a tensor on a device, which is not waited for; on the CPU they share the memory."""
    tensor = torch.from_numpy(array)
    if device.type in ("cuda", "xpu"):  # only from pinned memory is a copy made beside other work
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Let a device give the same bits each time, where PyTorch has such an operation, and warn where it has none.

    A CPU does so anyway.
    """
    if device.type == "cpu":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("warn")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all that was asked of it, before a clock is read."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
