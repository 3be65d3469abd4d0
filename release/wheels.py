"""Builds the wheels: one for each platform, with the native engine, and one without it for all others.

    python -m release.wheels [--out dist] [PLATFORM ...]

The engine is plain C functions, so a wheel is for any Python and any PyTorch. Zig's C++ compiler (``ziglang``) compiles
it for every platform on one machine. Intel Macs have none, as PyTorch no longer supports them.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mamegpt.native.build import COMMON_FLAGS, FLAGS, InstructionSet, library_name, write_library

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Platform:
    """A platform: ``tag`` of its wheel, ``target`` for Zig, its ``sys.platform`` and its ``platform.machine()``."""

    tag: str
    target: str
    system: str
    machine: str
    instructions: tuple[InstructionSet, ...]


PLATFORMS = {
    "linux-x86_64": Platform(
        "manylinux_2_28_x86_64",
        "x86_64-linux-gnu.2.28",
        "linux",
        "x86_64",
        ("amx", "avx512bf16", "avx512", "avx2"),
    ),
    "linux-aarch64": Platform("manylinux_2_28_aarch64", "aarch64-linux-gnu.2.28", "linux", "aarch64", ("neon",)),
    "macos-arm64": Platform("macosx_13_0_arm64", "aarch64-macos.13.0", "darwin", "arm64", ("neon",)),
    "windows-x86_64": Platform("win_amd64", "x86_64-windows-gnu", "win32", "AMD64", ("avx512bf16", "avx512", "avx2")),
}


def zig(target: str) -> list[str]:
    """Return the command of the C++ compiler for a target."""
    return [sys.executable, "-m", "ziglang", "c++", "-target", target]


def compile_for(platform: Platform, folder: Path) -> None:
    """Compile a platform's libraries into a folder."""
    for instructions in platform.instructions:
        library = folder / library_name(instructions, platform.system, platform.machine)
        command = [*zig(platform.target), *COMMON_FLAGS, "-s", *FLAGS[instructions]]
        if platform.system == "darwin":
            command.append(f"-Wl,-install_name,@rpath/{library.name}")  # else the path of this machine is in it
        write_library(library, command, timeout_s=900)  # for a new target Zig first compiles the C++ library


def pure_wheel(out: Path) -> Path:
    """Build the wheel that has no library; returns its path.

    From a copy: setuptools takes what an earlier build has left beside the sources, and two builds disturb each other.
    """
    with tempfile.TemporaryDirectory() as scratch:
        sources = Path(scratch, "sources")
        shutil.copytree(ROOT, sources, ignore=shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info"))
        run("build", "--wheel", "--outdir", scratch, sources)
        (wheel,) = Path(scratch).glob("*.whl")
        return wheel.replace(out / wheel.name)


def platform_wheel(pure: Path, platform: Platform, out: Path) -> Path:
    """Make the wheel for a platform from the one that has no library; returns its path."""
    with tempfile.TemporaryDirectory() as scratch:
        run("wheel", "unpack", "--dest", scratch, pure)
        (folder,) = Path(scratch).iterdir()
        compile_for(platform, folder / "mamegpt" / "native" / "brought")
        (facts,) = folder.glob("*.dist-info/WHEEL")
        text = facts.read_text(encoding="utf-8").replace("Root-Is-Purelib: true", "Root-Is-Purelib: false")
        facts.write_text(re.sub(r"(?m)^Tag: .*$", f"Tag: py3-none-{platform.tag}", text), encoding="utf-8")
        run("wheel", "pack", "--dest-dir", out, folder)
    return next(out.glob(f"*-{platform.tag}.whl"))


def run(*module: object) -> None:
    """Run a module of Python's. Raises `subprocess.CalledProcessError` if it fails."""
    subprocess.run([sys.executable, "-m", *map(str, module)], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Build the wheels that the command line asks for (default: all)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("platforms", nargs="*", metavar="PLATFORM", help=", ".join(PLATFORMS))
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    args = parser.parse_args()
    if unknown := {*args.platforms} - {*PLATFORMS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    args.out.mkdir(parents=True, exist_ok=True)
    pure = pure_wheel(args.out)
    wheels = [pure, *(platform_wheel(pure, PLATFORMS[name], args.out) for name in args.platforms or PLATFORMS)]
    for wheel in wheels:
        print(f"{wheel.name}  {wheel.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
