"""Command lines of mamegpt, as they can be typed where they are read."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

__all__ = ["command"]


def command(*words: object) -> str:
    """Return a command line of mamegpt as it can be typed here: the program as found, words quoted for the shell."""
    line = [*_program(), *map(str, words)]
    return subprocess.list2cmdline(line) if sys.platform == "win32" else shlex.join(line)


def _program() -> list[str]:
    """Return how this mamegpt is started here: by name, by the path of its script, or as a module of this Python."""
    script = Path(sysconfig.get_path("scripts"), "mamegpt.exe" if sys.platform == "win32" else "mamegpt")
    found = shutil.which("mamegpt")
    if not script.is_file():
        return ["mamegpt"] if found else [_near(Path(sys.executable)), "-m", "mamegpt"]
    return ["mamegpt"] if found and script.samefile(found) else [_near(script)]


def _near(path: Path) -> str:
    """Return a path as it is typed in the current folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
