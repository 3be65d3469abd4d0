"""Finds or compiles the library of the C++ sources of this folder.

A wheel for one platform brings the library, made by `release.wheels`. Otherwise it is compiled, once for each version
of the sources, into the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from mamegpt.errors import ConfigError, MamegptError, first_line
from mamegpt.messages import Message
from mamegpt.system.files import atomic_write, make_folder
from mamegpt.system.hardware import cpp_compiler, cpu_capabilities, onednn_allows

__all__ = [
    "BF16_SETS",
    "BROUGHT_FOLDER",
    "COMMON_FLAGS",
    "FLAGS",
    "InstructionSet",
    "best_instruction_set",
    "build",
    "cache_folder",
    "is_built",
    "library_name",
    "library_path",
    "source_files",
    "write_library",
]

InstructionSet = Literal["amx", "avx512bf16", "avx512", "avx2", "neon", "portable"]

_AVX512 = ["-mavx2", "-mfma", "-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw"]
FLAGS: dict[InstructionSet, list[str]] = {
    "amx": [*_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
    "avx512bf16": [*_AVX512, "-mavx512bf16"],
    "avx512": _AVX512,
    "avx2": ["-mavx2", "-mfma"],
    "neon": ["-DNEON"],
    "portable": [],
}
"""What a compiler needs to hear for each set of instructions."""
BF16_SETS: tuple[InstructionSet, ...] = ("amx", "avx512bf16")
"""The sets that multiply in bfloat16; the others compute the same, many times more slowly than in float32."""
COMMON_FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-pthread", "-shared", "-fPIC"]
BROUGHT_FOLDER = Path(__file__).parent / "brought"
"""Where a wheel for one platform has its libraries."""
COMPILER_TIMEOUT_S = 120


def best_instruction_set() -> InstructionSet:
    """Return the best of the sets that this processor has and that nobody refuses.

    ``ATEN_CPU_CAPABILITY`` can refuse AVX2 and AVX-512, and ``ONEDNN_MAX_CPU_ISA`` what multiplies in bfloat16, to this
    engine as to PyTorch.
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "neon"
    capability, found = torch.backends.cpu.get_cpu_capability(), cpu_capabilities()
    if capability == "AVX512":
        if not found.get("avx512_bf16") or not onednn_allows("AMX", "FP16", "BF16"):
            return "avx512"
        has_amx = sys.platform == "linux" and found.get("amx_bf16") and onednn_allows("AMX")
        if has_amx and torch.cpu._init_amx():  # the system must allow tiles, and is asked here
            return "amx"
        return "avx512bf16"
    return "avx2" if capability == "AVX2" else "portable"


def cache_folder() -> Path:
    """Return the folder of what is compiled, in the place that the system has for what can be made again.

    Raises `ConfigError` for a user without a home folder.
    """
    try:
        return _cache_of_the_system() / "mamegpt"
    except RuntimeError as error:
        raise ConfigError("there is no cache folder ({reason}); set XDG_CACHE_HOME", reason=first_line(error)) from None


def _cache_of_the_system() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def library_name(instructions: InstructionSet, system: str = sys.platform, machine: str = platform.machine()) -> str:
    """Return the name of the library for a set of instructions, another one for other sources, flags or platforms."""
    version = hashlib.sha256("\0".join([*_flags(instructions), system, machine]).encode())
    for source in source_files():
        version.update(source.read_bytes())
    return f"native-{instructions}-{version.hexdigest()[:16]}.so"


def library_path(instructions: InstructionSet) -> Path:
    """Return the library that this installation brings, if it does, else where the compiled one is or will be.

    Raises `ConfigError` if it brings none, and there is no cache folder.
    """
    name = library_name(instructions)
    brought = BROUGHT_FOLDER / name
    return brought if is_built(brought) else cache_folder() / name


def build(instructions: InstructionSet, on_build: Callable[[str], None] = lambda _: None) -> Path:
    """Return the library for a set of instructions, which is compiled first if there is none yet.

    ``on_build`` is then called with the compiler. The file is there as a whole or not at all. Raises `ConfigError` if
    there is no compiler, or if it fails, or if the cache folder cannot be written.
    """
    library = library_path(instructions)
    if is_built(library):
        return library
    command = cpp_compiler()
    if command is None:
        raise ConfigError("there is no C++ compiler; install g++ or clang++")
    on_build(command[0])
    try:
        write_library(library, [*command, *_flags(instructions)])
    except MamegptError as error:
        raise ConfigError(error.message) from None
    except OSError as error:
        raise ConfigError(
            "{folder} cannot be written ({reason})", folder=library.parent, reason=first_line(error)
        ) from None
    return library


def write_library(library: Path, command: list[str], timeout_s: float = COMPILER_TIMEOUT_S) -> None:
    """Compile the sources with a command and its options, and write the library with its checksum.

    Raises `ConfigError` if the command fails or takes longer than ``timeout_s``, and `OSError` or `MamegptError` if a
    file cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch) / library.name
            _run(
                [*command, *(str(path) for path in source_files() if path.suffix == ".cpp"), "-o", str(made)], timeout_s
            )
            content = made.read_bytes()
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError("{compiler} failed: {reason}", compiler=command[0], reason=first_line(error)) from None
    make_folder(library.parent)
    for file, data in ((library, content), (_checksum_file(library), _checksum(content))):
        with atomic_write(file, "wb") as written:
            written.write(data)


def is_built(library: Path) -> bool:
    """Return whether a library is there as it was written: a damaged one would end the process that loads it."""
    try:
        return _checksum_file(library).read_bytes() == _checksum(library.read_bytes())
    except OSError:
        return False


def _checksum_file(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _flags(instructions: InstructionSet) -> list[str]:
    return COMMON_FLAGS + FLAGS[instructions]


def source_files() -> list[Path]:
    """Return the C++ sources and headers."""
    return sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".cpp", ".h"))


def _run(command: list[str], timeout_s: float) -> None:
    """Run a compiler. Raises `ConfigError` with what it complained of first."""
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", timeout=timeout_s, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        reason = Message(lines[0].strip()) if lines else Message(f"exit code {done.returncode}")
        raise ConfigError("{compiler} failed: {reason}", compiler=command[0], reason=reason)
