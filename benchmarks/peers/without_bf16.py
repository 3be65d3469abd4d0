"""Imitate a processor without bfloat16 instructions, which most laptops have.

``--without-bf16`` starts a benchmark again with PyTorch, oneDNN and MKL held to AVX2. That imitates such a processor's
instructions, not its clock or its caches, so results made that way say so. On a real one the option changes nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

__all__ = ["add_option", "imitate", "is_imitated", "results_file"]

AVX2_ONLY = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
"""Environment variables that make the libraries refuse newer instructions; they are read once, at the start."""


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--without-bf16``."""
    parser.add_argument("--without-bf16", action="store_true", help="imitate a processor without bfloat16 (AVX2 only)")


def imitate(args: argparse.Namespace) -> None:
    """Start this program again under `AVX2_ONLY` if that was asked for and is not so already."""
    if args.without_bf16 and not is_imitated():
        spec = sys.modules["__main__"].__spec__
        assert spec is not None, "start it with python -m"
        os.execve(sys.executable, [sys.executable, "-m", spec.name, *sys.argv[1:]], {**os.environ, **AVX2_ONLY})


def is_imitated() -> bool:
    """Return whether the libraries are held to AVX2."""
    return AVX2_ONLY.items() <= os.environ.items()


def results_file(path: Path, has_bf16: bool) -> Path:
    """Return where results go: beside those of processors with bfloat16 if this one has none."""
    return path if has_bf16 else path.with_stem(f"{path.stem}-no-bf16")
