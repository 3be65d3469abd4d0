"""Run a verifier of an exported model in a separate process: without this package, the network, or any cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mamegpt.errors import ExportError

__all__ = ["run_in_clean_process"]


def run_in_clean_process(script: Path, model: Path, asked: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Run a script on an exported model in a process without this package, the network, or cached remote code.

    Its arguments are the model's path, a file with ``asked``, and the path ``found`` in ``scratch`` for its results.
    Raises `ExportError` with the last line of its output if it fails.
    """
    (scratch / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    environment = os.environ | {
        "HF_HOME": str(scratch),
        "HF_MODULES_CACHE": str(scratch / "modules"),
        "HF_HUB_OFFLINE": "1",
    }
    arguments = [str(script), str(model.resolve()), str(scratch / "asked.json"), str(scratch / "found")]
    command = [sys.executable, "-X", "utf8", "-P", *arguments]
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        cwd=scratch,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[-1]
        raise ExportError("{name} does not load in a separate process: {last}", name=model.name, last=last)
    found: dict[str, Any] = json.loads((scratch / "found.json").read_text(encoding="utf-8"))
    return found
