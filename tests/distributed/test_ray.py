"""Ray Train starts two processes, and they train what one trains."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from little import ROOT
from training_helpers import environment, losses, tiny

from mamegpt.training.trainer import train

SCRIPT = """
import json, sys
import ray
from ray.train import ScalingConfig
from ray_train import run

if __name__ == "__main__":
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100_000_000)
    run(json.loads(sys.argv[1]), ScalingConfig(num_workers=2), sys.argv[2])
"""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too: speak over 127.0.0.1 only
}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="pip install 'ray[train]'")
def test_the_example_trains_in_two_processes_of_ray(stories_txt: Path, stories_model: Path, tmp_path: Path) -> None:
    alone = tiny(stories_txt, stories_model, tmp_path / "alone", optimizer="adamw", lr=3e-3)
    train(alone)
    script = tmp_path / "two.py"
    script.write_text(SCRIPT, encoding="utf-8")
    settings = alone.to_dict() | {"out": str(tmp_path / "run"), "sharding": "full"}
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(settings), str(tmp_path / "ray")],
        env=environment() | QUIET | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0 and "2 process(es)" in done.stdout, done.stdout
    mine, its = losses(tmp_path / "run"), losses(tmp_path / "alone")
    assert list(mine) == list(its) and list(mine.values()) == pytest.approx(list(its.values()), rel=1e-5)
    assert len(list((tmp_path / "run/checkpoints/step-00000012/model").iterdir())) == 2
