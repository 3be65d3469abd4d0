"""Compiles the C++ sources of this folder, once for each version of them, into the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
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

__all__ = ["FLAGS", "InstructionSet", "best_instruction_set", "build", "cache_folder", "compiler", "is_built",
           "library_path"]  # fmt: skip

InstructionSet = Literal["avx2", "portable"]

FLAGS: dict[InstructionSet, list[str]] = {"avx2": ["-mavx2", "-mfma"], "portable": []}
"""What a compiler needs to hear for each set of instructions."""
COMMON_FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-pthread", "-shared", "-fPIC"]
COMPILER_TIMEOUT_S = 120


def best_instruction_set() -> InstructionSet:
    """Return the best of the sets that this processor has, unless ``ATEN_CPU_CAPABILITY`` refuses it."""
    return "avx2" if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") else "portable"


def compiler() -> str | None:
    """Return the path of a C++ compiler with the options of GCC: that of ``CXX``, else g++ or clang++."""
    names = [name for name in (os.environ.get("CXX"), "g++", "clang++") if name]
    return next((path for name in names if (path := shutil.which(name))), None)


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


def library_path(instructions: InstructionSet) -> Path:
    """Return where the library for a set of instructions is, once it is built from the sources as they are."""
    version = hashlib.sha256("\0".join([*_flags(instructions), sys.platform, platform.machine()]).encode())
    for source in _sources():
        version.update(source.read_bytes())
    return cache_folder() / f"native-{instructions}-{version.hexdigest()[:16]}.so"


def build(instructions: InstructionSet, on_build: Callable[[str], None] = lambda _: None) -> Path:
    """Return the compiled library for a set of instructions, which is compiled first if there is none yet.

    ``on_build`` is then called with the compiler. The file is there as a whole or not at all. Raises `ConfigError` if
    there is no compiler, or if it fails, or if the cache folder cannot be written.
    """
    library = library_path(instructions)
    if is_built(library):
        return library
    command = compiler()
    if command is None:
        raise ConfigError("there is no C++ compiler; install g++ or clang++")
    on_build(command)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch) / library.name
            sources = [str(path) for path in _sources() if path.suffix == ".cpp"]
            _run([command, *_flags(instructions), *sources, "-o", str(made)])
            content = made.read_bytes()
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError("{compiler} failed: {reason}", compiler=command, reason=first_line(error)) from None
    try:
        make_folder(library.parent)
        for file, data in ((library, content), (_checksum_file(library), _checksum(content))):
            with atomic_write(file, "wb") as written:
                written.write(data)
    except MamegptError as error:
        raise ConfigError(error.message) from None
    except OSError as error:
        raise ConfigError(
            "{folder} cannot be written ({reason})", folder=library.parent, reason=first_line(error)
        ) from None
    return library


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


def _sources() -> list[Path]:
    return sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".cpp", ".h"))


def _run(command: list[str]) -> None:
    """Run a compiler. Raises `ConfigError` with what it complained of first."""
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", timeout=COMPILER_TIMEOUT_S, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        reason = Message(lines[0].strip()) if lines else Message(f"exit code {done.returncode}")
        raise ConfigError("{compiler} failed: {reason}", compiler=command[0], reason=reason)
