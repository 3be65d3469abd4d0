"""The original recipe, unchanged: one text file, a constant learning rate, no validation, a ``.pth`` at the end."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import torch

from mamegpt.cli.console import INTERRUPTED, say
from mamegpt.cli.progress import show_progress
from mamegpt.errors import DataError
from mamegpt.messages import msg
from mamegpt.presets import preset
from mamegpt.run import checkpoint
from mamegpt.run.run import Run
from mamegpt.system.files import atomic_write, sha256_file
from mamegpt.system.outputs import check_outputs
from mamegpt.text.display import sparkline
from mamegpt.tokenizer.tokenizer import Tokenizer
from mamegpt.training.trainer import train

__all__ = ["train_original"]


def train_original(train_txt: str | Path, spm_model: str | Path, out_weights: str | Path, **settings: Any) -> int:
    """Train and print as the original ``training.py``, and write a plain state dict; returns an exit code.

    ``settings`` are fields of `TrainConfig`. The run is in ``runs/`` next to the weights; its name contains a hash of
    all settings and both files, so the same call resumes the same run, and another call starts another one. Raises what
    `train` raises.
    """
    train_txt, spm_model, out_weights = Path(train_txt), Path(spm_model), Path(out_weights)
    if not train_txt.is_file():
        raise DataError("no text file {train_txt}; make one with make_dataset.py", train_txt=train_txt)
    check_outputs([out_weights], [train_txt, spm_model])
    say(msg("Vocab size: {vocab_size}", vocab_size=Tokenizer.load(spm_model).vocab_size))
    recipe = preset(
        recipe="original",
        data=str(train_txt),
        tokenizer=str(spm_model),
        out="-",
        val_fraction=0.0,
        log_every_steps=50,
        **settings,
    )
    contents = "".join(sha256_file(path) for path in (train_txt, spm_model))
    name = hashlib.sha256(f"{recipe.fingerprint()}{contents}".encode()).hexdigest()[:8]
    run = Run(out_weights.parent / "runs" / f"{out_weights.stem}-{name}")
    config = dataclasses.replace(recipe, out=str(run.folder))
    result = train(config, resume=run.is_begun, watchers=[show_progress()])
    if result.interrupted:
        say(msg("saved at step {step} in {run}; the same command resumes from there", step=result.step, run=run.folder))
        return INTERRUPTED
    newest = run.latest()
    assert newest is not None, "a finished run has a checkpoint"
    with atomic_write(out_weights, "wb") as file:
        torch.save(checkpoint.read_model(newest.path), file)
    say(
        msg("loss {curve} {loss:.4f}", curve=sparkline(result.losses), loss=result.losses[-1]),
        msg("[OK] Saved weights -> {out_weights}", out_weights=out_weights),
    )
    return 0
