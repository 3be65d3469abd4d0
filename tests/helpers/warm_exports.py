"""Exports whose folders are compared in forks of a process that has imported transformers: it takes seconds each time.

That a process from nothing finds the same is what `little` and the slow tests see.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from little import ROOT, Little

__all__ = ["ForkServer", "fork_server", "warm_exports"]

PYTHON = [sys.executable, "-X", "utf8", "-P"]


class ForkServer:
    """Runs Python scripts as `subprocess.run` does; the server starts with the first."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def run(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, **_as_captured: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a script in an environment and a folder, and return what it printed."""
        assert list(command[: len(PYTHON)]) == PYTHON
        if self._server is None:
            script = str(ROOT / "tests" / "helpers" / "fork_server.py")
            self._server = subprocess.Popen(
                [*PYTHON, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
            )
        assert self._server.stdin is not None and self._server.stdout is not None
        asked = {"words": list(command[len(PYTHON) :]), "env": dict(env), "cwd": str(cwd)}
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        out, err = ((Path(cwd) / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(list(command), code, out, err)

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.communicate()


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def warm_exports(little: Little, fork_server: ForkServer) -> Iterator[None]:  # little is made first, as users make it
    """Let the exports of a module be compared by the server; where forks are not safe, in new processes."""
    with pytest.MonkeyPatch.context() as patch:
        if sys.platform == "linux":
            from mamegpt.exporting import clean_process

            patch.setattr(clean_process, "subprocess", SimpleNamespace(run=fork_server.run, DEVNULL=None))
        yield
