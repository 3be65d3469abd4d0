"""What this machine can do, as facts with a name and a value each."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from mamegpt.errors import first_line
from mamegpt.system.limits import memory, usable_cores

__all__ = ["arithmetic", "cpu_capabilities", "facts", "hardware", "has_bf16", "has_compiler", "peak_memory", "summary"]

HUB_TIMEOUT_S = 4.0


def facts(folder: Path) -> list[tuple[str, str]]:
    """Processor, memory, compiler, accelerators, disk at ``folder``, Hub, and what mamegpt would choose."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return [
        *hardware(),
        ("C++ compiler", _compiler()),
        ("disk", f"{shutil.disk_usage(folder).free / 1e9:.0f} GB free at {folder.resolve()}"),
        ("Hub", _hub()),
        ("will train on", device.type),
        ("will compute in", "bf16 or fp32, whichever a run measures to be faster" if has_bf16(device) else "fp32"),
        ("will compile", "runs of 10 minutes and more, if measured to gain" if has_compiler(device) else "nothing"),
    ]


def hardware() -> list[tuple[str, str]]:
    """System, PyTorch, processor, memory and accelerators."""
    return [
        ("system", f"{platform.system()} {platform.release()}, Python {platform.python_version()}"),
        ("PyTorch", f"{torch.__version__}, {torch.get_num_threads()} threads"),
        ("processor", f"{_processor()}, {_cores()}"),
        ("vector units", _vector_units()),
        ("memory", _memory()),
        ("GPU", _gpu()),
    ]


def arithmetic(device: torch.device, n_processes: int) -> dict[str, Any]:
    """Return what decides the last bits of a result: device, processes, threads, version of PyTorch, SIMD."""
    return {
        "device": device.type, "processes": n_processes, "threads": torch.get_num_threads(),
        "version": f"PyTorch {torch.__version__}", "SIMD": torch.backends.cpu.get_cpu_capability(),
    }  # fmt: skip


def summary(device: torch.device) -> str:
    """Return what a run is computed on, in one line."""
    if device.type == "cuda":
        return _gpu()
    return f"{_processor()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"


def cpu_capabilities() -> Mapping[str, Any]:
    """Return what the processor can do by PyTorch's names, such as "avx512_bf16"; PyTorch 2.9 tells some of it only."""
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities()
    has_amx = torch.cpu._is_amx_tile_supported()  # all processors that have the tiles have their bfloat16
    return {
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(), "avx512_vnni": torch.cpu._is_vnni_supported(),
        "amx_tile": has_amx, "amx_bf16": has_amx,
    }  # fmt: skip


def has_bf16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 matrices in hardware; where it does not, they are very slow."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        found = cpu_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))
    return False


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has held at most: of the GPU's memory on CUDA, else resident in the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
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
    return f"{psutil.cpu_count(logical=False) or '?'} cores, {usable_cores()} threads usable"


def _vector_units() -> str:
    capability = torch.backends.cpu.get_cpu_capability()
    found = cpu_capabilities()
    extras = [name for name in ("avx512_bf16", "amx_bf16", "amx_tile", "avx512_vnni") if found.get(name)]
    more = ", ".join(extras) or "no extras"
    if has_bf16(torch.device("cpu")):
        return f"{capability} ({more}): bfloat16 in hardware"
    return f"{capability} ({more}): no bfloat16 in hardware"


def _memory() -> str:
    found = memory()
    return f"{found.total / 2**30:.1f} GiB, {found.available / 2**30:.1f} GiB free"


def _gpu() -> str:
    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    if torch.backends.mps.is_available():
        return "Apple MPS (use it with --device mps)"
    return "none"


def has_compiler(device: torch.device) -> bool:
    """Return whether ``torch.compile`` finds what it needs: Triton for a GPU, a C++ compiler for the CPU."""
    if device.type == "cuda":
        return importlib.util.find_spec("triton") is not None
    return device.type == "cpu" and _cpp_compiler() is not None


def _cpp_compiler() -> str | None:
    names = [name for name in (os.environ.get("CXX"), "g++", "clang++", "cl") if name]
    return next((path for name in names if (path := shutil.which(name))), None)


def _compiler() -> str:
    return _cpp_compiler() or "none (torch.compile needs one; mamegpt works without)"


def _hub() -> str:
    from huggingface_hub import constants

    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        return f"{constants.ENDPOINT} answers (with status {error.code})"
    except (urllib.error.URLError, OSError, ValueError) as error:
        return (
            f"{constants.ENDPOINT} cannot be reached ({first_line(getattr(error, 'reason', error))}); local data works"
        )
    return f"{constants.ENDPOINT} answers"
