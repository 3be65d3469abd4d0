"""A run that is killed again and again ends, byte for byte, as one that never was."""

import dataclasses
import random
import re
import subprocess
import time
from pathlib import Path

import pytest
import torch
from training_helpers import ROOT, as_options, final_weights, finish, losses, records, start, tiny

from mamegpt.config import TrainConfig
from mamegpt.training.trainer import train

ORIGINAL = {
    "context_length": 16,
    "emb_dim": 16,
    "n_layers": 1,
    "n_heads": 2,
    "drop_rate": 0.1,
    "batch_size": 4,
    "max_steps": 1500,
    "lr": 1e-3,
    "device": "cpu",
    "samples_per_epoch": 300,
    "precision": "fp32",  # each run would measure for itself which is faster
}


def kill_after(process: "subprocess.Popen[str]", beginning: str, n_lines: int, delay_s: float = 0.0) -> bool:
    """Kill a process ``delay_s`` after its ``n_lines``-th line of some beginning; False if it ended before."""
    assert process.stdout is not None
    seen = 0
    for line in process.stdout:
        seen += line.startswith(beginning)
        if seen == n_lines:
            time.sleep(delay_s)
            break
    running = process.poll() is None and seen == n_lines
    process.kill()
    output, _ = process.communicate()
    assert running or process.returncode == 0, output
    return running


def train_under_fire(config: TrainConfig, n_kills: int, seed: int) -> int:
    """Kill the run ``n_kills`` times, then let it end; returns how many kills hit a run that had begun to train.

    The first kill falls into tokenizing, the others some steps, and a moment, after the start of training.
    """
    dice = random.Random(seed)
    run = Path(config.out)
    hits = 0
    for i in range(n_kills + 1):
        begun = (run / "config.json").is_file()
        process = start("-m", "mamegpt", "train", *(["--resume", str(run)] if begun else as_options(config)))
        if i == n_kills:
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output
        elif i == 0:
            kill_after(process, "tokenizing", 1)
            assert not (run / "metrics.jsonl").exists()
        else:
            hits += kill_after(process, "step ", dice.randint(2, 9), dice.random() * 0.05)
    return hits


def assert_equal_runs(straight: Path, killed: Path, step: int) -> None:
    assert final_weights(killed, step) == final_weights(straight, step)
    optimizers = [(run / "checkpoints" / f"step-{step:08d}" / "optimizer.safetensors") for run in (straight, killed)]
    assert optimizers[0].read_bytes() == optimizers[1].read_bytes()
    assert losses(killed) == losses(straight)
    qualities = [[record for record in records(run) if "quality" in record] for run in (straight, killed)]
    assert qualities[0] == qualities[1]
    hidden = [path.name for path in killed.rglob(".*")]
    assert hidden in ([], [".lock"])


def under_fire(data: Path, tokenizer: Path, folder: Path, n_kills: int, max_steps: int, seed: int) -> None:
    config = tiny(
        data, tokenizer, folder / "straight", max_steps=max_steps, drop_rate=0.1, save_every_steps=3, log_every_steps=1
    )
    train(config)
    killed = dataclasses.replace(config, out=str(folder / "killed"))
    hits = train_under_fire(killed, n_kills, seed)
    assert hits == n_kills - 1, "the run ended before all kills; make it longer"
    assert_equal_runs(folder / "straight", folder / "killed", max_steps)


def test_a_run_killed_three_times_ends_as_one_that_was_not(
    stories_txt: Path, stories_model: Path, tmp_path: Path
) -> None:
    under_fire(stories_txt, stories_model, tmp_path, n_kills=3, max_steps=60, seed=1)


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_as_one_that_was_not(
    stories_txt: Path, stories_model: Path, tmp_path: Path
) -> None:
    under_fire(stories_txt, stories_model, tmp_path, n_kills=20, max_steps=320, seed=2)


@pytest.mark.slow
def test_training_py_goes_on_when_the_same_command_is_given_again(
    stories_txt: Path, stories_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # no library there, and none can be built:
    monkeypatch.setenv("CXX", "false")  # each run would measure for itself which engine is faster
    options = [word for name, value in ORIGINAL.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [str(ROOT / "training.py"), "--train-txt", str(stories_txt), "--spm-model", str(stories_model)]
    finish(*command, "--out-weights", "straight.pth", *options, cwd=tmp_path)
    command += ["--out-weights", "killed.pth", *options]
    assert kill_after(start(*command, cwd=tmp_path), "step 300/", 1)  # a checkpoint every 250
    assert not (tmp_path / "killed.pth").exists()
    process = start(*command, cwd=tmp_path)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    done = re.search(r"steps: ([\d,]+)/1,500", output)
    assert done and int(done[1].replace(",", "")) in range(250, 1500, 250), output
    states = [torch.load(tmp_path / f"{name}.pth", weights_only=True) for name in ("straight", "killed")]
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    assert len(list((tmp_path / "runs").iterdir())) == 2
