"""mamegpt under Ray Train (pip install -e ".[cluster]"): python examples/ray_train.py

Ray starts the processes and their group, which mamegpt joins. The folder must be on a file system that all nodes see.
"""

import dataclasses
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from mamegpt.cli.progress import show_progress
from mamegpt.presets import preset
from mamegpt.training.trainer import train


def worker(settings: dict[str, Any]) -> None:
    """One process: begin the run, or go on with it if its folder is there."""
    config = dataclasses.replace(preset("5m"), **settings)
    train(config, resume=(Path(config.out) / "config.json").exists(), watchers=[show_progress()])


def run(settings: dict[str, Any], scaling: ScalingConfig, folder: str) -> None:
    """Train on as many processes as ``scaling`` says; Ray keeps its own notes in ``folder``."""
    TorchTrainer(
        worker,
        train_loop_config=settings,
        scaling_config=scaling,
        run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=3)),
    ).fit()


if __name__ == "__main__":
    run(
        {
            "data": "/shared/wiki.parquet",
            "tokenizer": "/shared/jp.model",
            "out": "/shared/runs/first",
            "precision": "bf16",
            "batch_size": 64,
        },
        ScalingConfig(num_workers=4, use_gpu=True),
        "/shared/ray",
    )
