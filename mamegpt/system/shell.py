"""Command lines of mamegpt for the user to copy."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

__all__ = ["command"]


def command(*words: object) -> str:
    """Return a command line of mamegpt as it can be typed here: the program as found, and quoted arguments."""
    line = [*_program(), *map(str, words)]
    if sys.platform != "win32":
        return shlex.join(line)
    quoted = " ".join(map(_quoted, line))
    return f"& {quoted}" if quoted.startswith('"') else quoted  # a quoted program is mere text to PowerShell


def _quoted(word: str) -> str:
    """Return a word as PowerShell and the command prompt read it; a comma, among others, means more to PowerShell."""
    if re.fullmatch(r"[\w.:\\/=+-]+", word):
        return word
    return '"' + re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), word) + '"'


def _program() -> list[str]:
    """Return the words that start this mamegpt: its name, the path of its script, or this Python and the module."""
    script = Path(sysconfig.get_path("scripts"), "mamegpt.exe" if sys.platform == "win32" else "mamegpt")
    found = shutil.which("mamegpt")
    if not script.is_file():
        return ["mamegpt"] if found else [_near(Path(sys.executable)), "-m", "mamegpt"]
    return ["mamegpt"] if found and script.samefile(found) else [_near(script)]


def _near(path: Path) -> str:
    """Return a path relative to the current folder, if it is in it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
