"""Facts about this machine, each with a name and a value."""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from mamegpt.errors import ConfigError, first_line
from mamegpt.messages import join, msg
from mamegpt.system.devices import KINDS, choose_device, device_name, devices
from mamegpt.system.limits import memory, usable_cores

__all__ = [
    "arithmetic",
    "cpu_capabilities",
    "facts",
    "hardware",
    "has_bf16",
    "has_compiler",
    "has_fp16",
    "onednn_allows",
    "peak_memory",
    "reset_peak_memory",
    "summary",
]

HUB_TIMEOUT_S = 4.0
DRIVER_TIMEOUT_S = 10.0


def facts(folder: Path) -> list[tuple[str, str]]:
    """Return processor, memory, compiler, accelerators, disk at ``folder``, Hub, and the settings that mamegpt would
    choose.
    """
    chosen = choose_device()
    device = chosen.device
    return [
        *hardware(),
        (msg("C++ compiler"), _compiler()),
        (
            msg("disk"),
            msg("{n:.0f} GB free at {place}", n=shutil.disk_usage(folder).free / 1e9, place=folder.resolve()),
        ),
        (msg("Hub"), _hub()),
        (msg("will train on"), join("; ", [str(device), *chosen.notices])),
        (msg("will compute in"), _formats(device)),
        (
            msg("will compile"),
            msg("runs of 10 minutes or more, if measured to be faster") if has_compiler(device) else msg("nothing"),
        ),
    ]


def _formats(device: torch.device) -> str:
    if has_bf16(device):
        return msg("bf16 or fp32, whichever is measured to be faster")
    if has_fp16(device):
        return msg("fp16 or fp32, whichever is measured to be faster")
    return "fp32"


def hardware() -> list[tuple[str, str]]:
    """Return system, PyTorch, processor, memory and accelerators."""
    return [
        (msg("system"), f"{platform.system()} {platform.release()}, Python {platform.python_version()}"),
        (msg("PyTorch"), msg("{version}, {n} threads", version=torch.__version__, n=torch.get_num_threads())),
        (msg("processor"), join(", ", [_processor(), _cores()])),
        (msg("vector units"), _vector_units()),
        (msg("memory"), _memory()),
        (msg("GPU"), _gpu()),
    ]


def arithmetic(device: torch.device, n_processes: int) -> dict[str, Any]:
    """Return the facts that affect the last bits of results: device, processes, threads, PyTorch version, SIMD, GPU."""
    found = {
        "device": device.type,
        "processes": n_processes,
        "threads": torch.get_num_threads(),
        "version": f"PyTorch {torch.__version__}",
        "SIMD": torch.backends.cpu.get_cpu_capability(),
    }
    return found if device.type == "cpu" else {**found, "accelerator": device_name(device)}


def summary(device: torch.device) -> str:
    """Return the device and machine of a run in one line."""
    if device.type != "cpu":
        return f"{device_name(device)}, PyTorch {torch.__version__}"
    return f"{_processor()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"


def cpu_capabilities() -> Mapping[str, Any]:
    """Return the processor's capabilities by PyTorch's names, such as "avx512_bf16"; PyTorch 2.9 knows only some."""
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities()
    has_amx = torch.cpu._is_amx_tile_supported()  # every processor with tiles has bfloat16 tiles
    return {
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "avx512_vnni": torch.cpu._is_vnni_supported(),
        "amx_tile": has_amx,
        "amx_bf16": has_amx,
    }


def has_bf16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 matrices in hardware; without that they are very slow.

    MPS counts as a device without: causal attention in bfloat16 may see the future there (pytorch#195910). So does a
    processor to which ``ONEDNN_MAX_CPU_ISA`` refuses it.
    """
    if device.type in ("cuda", "xpu"):
        return bool(torch.get_device_module(device).is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        found = cpu_capabilities()
        of_x86 = found.get("avx512_bf16") or found.get("amx_bf16")
        return bool(found.get("bf16") or (of_x86 and onednn_allows("AMX", "FP16", "BF16")))
    return False


def onednn_allows(*names: str) -> bool:
    """Return whether ``ONEDNN_MAX_CPU_ISA`` leaves one of these instructions to oneDNN, which multiplies matrices."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return limit in ("", "ALL", "DEFAULT") or any(name in limit for name in names)


def has_fp16(device: torch.device) -> bool:
    """Return whether a device multiplies float16 matrices in hardware; processors emulate them."""
    return device.type in KINDS


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` count from now on, where that can be done; resident memory has no such beginning."""
    if device.type in ("cuda", "xpu"):
        torch.accelerator.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process in bytes: the device's on CUDA and XPU, else resident memory."""
    if device.type in ("cuda", "xpu"):
        return torch.accelerator.max_memory_allocated(device)
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _cores() -> str:
    return msg(
        "{n} cores, {n_threads} threads usable", n=psutil.cpu_count(logical=False) or "?", n_threads=usable_cores()
    )


def _vector_units() -> str:
    capability = torch.backends.cpu.get_cpu_capability()
    found = cpu_capabilities()
    extras = [name for name in ("avx512_bf16", "amx_bf16", "amx_tile", "avx512_vnni") if found.get(name)]
    more = ", ".join(extras) or msg("no extras")
    if has_bf16(torch.device("cpu")):
        return msg("{name} ({more}): bfloat16 in hardware", name=capability, more=more)
    return msg("{name} ({more}): no bfloat16 in hardware", name=capability, more=more)


def _memory() -> str:
    found = memory()
    return msg("{total:.1f} GiB, {free:.1f} GiB free", total=found.total / 2**30, free=found.available / 2**30)


def _gpu() -> str:
    found = devices()
    if not found:
        return msg("none")
    lines = [one.line for one in found]
    if torch.version.cuda and found[0].device.type == "cuda":
        lines.append(msg("CUDA {version}, driver {driver}", version=torch.version.cuda, driver=_nvidia_driver()))
    return join("; ", lines)


def _nvidia_driver() -> str:
    """Return the version of NVIDIA's driver, "?" if its own program does not tell."""
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=DRIVER_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "?"
    return found.partition("\n")[0].strip() or "?"


def has_compiler(device: torch.device) -> bool:
    """Return whether ``torch.compile`` can work: it needs Triton for a GPU, a C++ compiler for the CPU."""
    if device.type in ("cuda", "xpu"):
        return importlib.util.find_spec("triton") is not None
    if device.type != "cpu":
        return False
    try:
        return cpp_compiler() is not None or shutil.which("cl") is not None
    except ConfigError:
        return False


def cpp_compiler() -> list[str] | None:
    """Return the command of a C++ compiler with the options of GCC: that of ``CXX``, else g++ or clang++.

    None if there is none. Raises `ConfigError` if ``CXX`` names no program.
    """
    chosen = os.environ.get("CXX", "").strip()
    if path := shutil.which(chosen or "g++") or (None if chosen else shutil.which("clang++")):
        return [path]
    if not chosen:
        return None
    try:
        name, *options = shlex.split(chosen, posix=os.name != "nt")
    except ValueError:  # a quotation without end
        name, options = chosen, []
    if path := shutil.which(name):
        return [path, *options]
    raise ConfigError("CXX names {compiler}, which is no program here; correct or unset it", compiler=name)


def _compiler() -> str:
    try:
        found = cpp_compiler()
    except ConfigError as error:
        return error.message
    if path := found[0] if found else shutil.which("cl"):
        return path
    return msg("none (torch.compile needs one; mamegpt works without)")


def _hub() -> str:
    from huggingface_hub import constants

    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        return msg("{url} answers (with status {status})", url=constants.ENDPOINT, status=error.code)
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return msg(
            "{url} cannot be reached ({reason}); local data works",
            url=constants.ENDPOINT,
            reason=first_line(reason) if isinstance(reason, BaseException) else reason,
        )
    return msg("{url} answers", url=constants.ENDPOINT)
