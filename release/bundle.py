"""Makes a folder with mamegpt and all that it needs for one platform, which installs without a network.

    python -m release.bundle [PLATFORM] [--python 3.12] [--out dist]

Packages have the versions of requirements-lock.txt. The folder has wheels, their hashes, and a script for each shell.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from mamegpt.system.files import atomic_directory, sha256_file
from release.wheels import PLATFORMS, ROOT, platform_wheel, pure_wheel

UV_PLATFORMS = {
    "linux-x86_64": "x86_64-manylinux_2_28",
    "linux-aarch64": "aarch64-manylinux_2_28",
    "macos-arm64": "aarch64-apple-darwin",
    "windows-x86_64": "x86_64-pc-windows-msvc",
}
"""The platforms as uv calls them, which knows what packages need on another platform than this one."""

OLDEST_MACOS = "14.0"
"""PyTorch has no wheels for older ones."""

INSTALL_SH = """\
#!/bin/sh
# Install mamegpt from this folder, without a network: sh install.sh [NEW FOLDER]
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
new=${{1:-mamegpt-env}}
python=${{PYTHON:-$(command -v python{python} || echo python3)}}
if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != ({version}))'; then
    echo "error: $python is not Python {python}; install it, or name it: PYTHON=... sh install.sh" >&2
    exit 2
fi
"$python" -m venv "$new"
"$new/bin/python" -m pip install --no-index --find-links "$here/wheels" \\
    --require-hashes --requirement "$here/requirements.txt"
echo "next: $new/bin/mamegpt demo"
"""

INSTALL_BAT = """\
@echo off
rem Install mamegpt from this folder, without a network: install.bat [NEW FOLDER]
setlocal
set "NEW=%~1"
if "%NEW%"=="" set "NEW=%USERPROFILE%\\mamegpt-env"
set "PYTHON=python"
py -{python} -c "" >nul 2>nul
if not errorlevel 1 set "PYTHON=py -{python}"
%PYTHON% -c "import sys; sys.exit(sys.version_info[:2] != ({version}))"
if errorlevel 1 (
    echo error: Python {python} is needed
    pause
    exit /b 2
)
%PYTHON% -m venv "%NEW%"
if errorlevel 1 (
    pause
    exit /b 1
)
"%NEW%\\Scripts\\python" -m pip install --no-index --find-links "%~dp0wheels" ^
    --require-hashes --requirement "%~dp0requirements.txt"
if errorlevel 1 (
    pause
    exit /b 1
)
echo next, in PowerShell: ^& "%NEW%\\Scripts\\mamegpt" demo
pause
"""


def tags(name: str) -> list[str]:
    """Return the tags of the wheels that a platform can use, best first."""
    if not name.startswith("linux"):
        return [f"macosx_{OLDEST_MACOS.replace('.', '_')}_arm64" if name.startswith("macos") else PLATFORMS[name].tag]
    machine = PLATFORMS[name].machine
    return [f"manylinux_2_{n}_{machine}" for n in range(28, 4, -1)] + [f"manylinux2014_{machine}", f"linux_{machine}"]


def this_platform() -> str:
    """Return the name of this platform; "" if there is no wheel for it."""
    here = (sys.platform, platform.machine())
    return next((name for name, one in PLATFORMS.items() if (one.system, one.machine) == here), "")


def make(name: str, python: str, out: Path) -> Path:
    """Make the folder for a platform and a version of Python, such as "3.12"; returns its path."""
    folder = out / f"mamegpt-{name}-python{python}"
    with atomic_directory(folder) as new:
        wheels = new / "wheels"
        wheels.mkdir()
        pure = pure_wheel(new)
        platform_wheel(pure, PLATFORMS[name], wheels)
        pure.unlink()
        download(name, python, wheels)
        write_scripts(new, python)
    return folder


def write_scripts(folder: Path, python: str) -> None:
    """Write the list of the wheels in a folder, and the scripts that install them with a version of Python."""
    (folder / "requirements.txt").write_text("\n".join(hashed(folder / "wheels")) + "\n", encoding="utf-8")
    facts = {"python": python, "version": python.replace(".", ", ")}
    (folder / "install.sh").write_text(INSTALL_SH.format(**facts), encoding="ascii", newline="\n")
    (folder / "install.bat").write_text(INSTALL_BAT.format(**facts), encoding="ascii", newline="\r\n")


def download(name: str, python: str, wheels: Path) -> None:
    """Download the wheels of the locked versions of all packages that mamegpt needs, PyTorch for CPUs."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    pip += ["--python-version", python, "--dest", str(wheels), *(f"--platform={tag}" for tag in tags(name))]
    pinned = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    (torch,) = re.findall(r"(?m)^torch==.*$", pinned)
    subprocess.run([*pip, *(cpu_index() if name.startswith("linux") else []), torch], check=True)
    if name.startswith("linux") and not [*wheels.glob("torch-*+cpu-*.whl")]:
        sys.exit("error: PyTorch's index of CPU builds does not answer, and PyPI's build needs 3 GB of CUDA")
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "compile",
            "--quiet",
            "--no-header",
            "--no-annotate",
            "--python-platform",
            UV_PLATFORMS[name],
            "--python-version",
            python,
            "--find-links",
            wheels,
            "--constraint",
            ROOT / "requirements-lock.txt",
            ROOT / "requirements.txt",
        ],
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": OLDEST_MACOS},
    )
    others = [line for line in found.stdout.splitlines() if "==" in line and not line.startswith("torch==")]
    subprocess.run([*pip, *others], check=True)


def cpu_index() -> list[str]:
    """Return pip's options for PyTorch's index of CPU builds; if it does not answer, pip takes PyPI's build."""
    facts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return ["--extra-index-url", facts["tool"]["uv"]["index"][0]["url"], "--retries", "1", "--timeout", "15"]


def hashed(wheels: Path) -> Iterator[str]:
    """Yield the lines of a requirements file that names all wheels of a folder with their hashes."""
    for wheel in sorted(wheels.glob("*.whl")):
        name, version, *_ = wheel.name.split("-")
        yield f"{name}=={version} --hash=sha256:{sha256_file(wheel)}"


def main() -> None:
    """Make the folder that the command line asks for (default: for this platform and Python)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("platform", nargs="?", default=this_platform(), help=", ".join(PLATFORMS))
    parser.add_argument("--python", default=f"3.{sys.version_info.minor}", help="version of Python, such as 3.12")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    args = parser.parse_args()
    if args.platform not in PLATFORMS:
        parser.error(f"PLATFORM must be one of {', '.join(PLATFORMS)} (got {args.platform!r})")
    if not re.fullmatch(r"3\.\d+", args.python):
        parser.error(f"--python must be a version such as 3.12 (got {args.python!r})")
    args.out.mkdir(parents=True, exist_ok=True)
    folder = make(args.platform, args.python, args.out)
    files = [*(folder / "wheels").iterdir()]
    print(f"{os.path.relpath(folder)}: {len(files)} wheels, {sum(file.stat().st_size for file in files) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
