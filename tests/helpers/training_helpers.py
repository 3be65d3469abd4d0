"""What the tests of training share: a tiny run, and ways to start one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from little import ROOT

from mamegpt.config import TrainConfig
from mamegpt.presets import preset

TINY: dict[str, Any] = {
    "context_length": 16,
    "emb_dim": 16,
    "n_layers": 2,
    "n_heads": 2,
    "batch_size": 8,
    "max_steps": 12,
    "warmup_fraction": 0.25,
    "log_every_steps": 5,
    "eval_every_steps": 6,
    "save_every_steps": 3,
    "val_fraction": 0.05,
    "val_tokens": 500,
    "precision": "fp32",
    "compile": "false",
    "device": "cpu",
    "engine": "torch",
}


def tiny(data: Path, tokenizer: Path, out: Path, **changes: Any) -> TrainConfig:
    """Settings of a run that takes well under a second."""
    return TrainConfig(**{**TINY, "data": str(data), "tokenizer": str(tokenizer), "out": str(out), **changes})


def as_options(config: TrainConfig) -> list[str]:
    """The command line of ``mamegpt train`` that gives these settings, those that are not the default."""
    default = {
        **preset(ngrams=config.ngrams).to_dict(),
        "lr": None,
        "ngrams": None,
    }  # the command line's own follow other settings
    if config.optimizer == "adamw":
        default["emb_lr"] = config.emb_lr  # would do nothing
    given = {name: value for name, value in config.to_dict().items() if value != default[name]}
    return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def environment() -> dict[str, str]:
    """The environment of a child process: finds the package, computes on one thread, writes UTF-8."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}


def start(*arguments: str, cwd: Path | None = None) -> "subprocess.Popen[str]":
    """A Python process with these arguments; its output and its errors come through one pipe."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment(),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def finish(*arguments: str, code: int = 0, cwd: Path | None = None) -> str:
    """Run a Python process to its end, check its exit code, and return what it printed."""
    process = start(*arguments, cwd=cwd)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    return output


def records(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def losses(run: Path) -> dict[int, float]:
    """Loss by step; a step that is there twice is an error."""
    steps = [record for record in records(run) if "loss" in record]
    found = {record["step"]: record["loss"] for record in steps}
    assert len(found) == len(steps), "a step was written twice"
    return found


def final_weights(run: Path, step: int) -> bytes:
    """The bytes of the model file at a step."""
    return (run / "checkpoints" / f"step-{step:08d}" / "model.safetensors").read_bytes()
