"""Two processes train what one trains: the same data, the same losses, and runs that change hands."""

import dataclasses
import shutil
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from training_helpers import as_options, finish, losses, records, tiny

from mamegpt.config import TrainConfig
from mamegpt.distributed import World, any_process, join, pick_device, sum_over_processes
from mamegpt.errors import ConfigError
from mamegpt.trainer import train

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this PyTorch has no torch.distributed")


def on_two(*arguments: str, code: int = 0) -> str:
    """Run ``mamegpt`` in two processes that know each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    return finish(*launcher, "--master-port", str(port), "-m", "mamegpt", *arguments, code=code)


@pytest.fixture(scope="module")
def config(stories_txt: Path, stories_model: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run of one process, without dropout, whose random numbers depend on who computes."""
    out = tmp_path_factory.mktemp("distributed") / "one"
    # AdamW, for Muon orthogonalises in bfloat16 and would magnify the last bits of a sum in another order.
    config = tiny(stories_txt, stories_model, out, keep_checkpoints=9, micro_batch_size=2, optimizer="adamw", lr=3e-3)
    train(config)
    return config


@pytest.fixture(scope="module")
def two(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run on two processes: two micro-batches each where one process has four."""
    out = tmp_path_factory.mktemp("distributed") / "two"
    printed = on_two("train", *as_options(dataclasses.replace(config, out=str(out))))
    assert "2 process(es)" in printed
    assert printed.count("tokenizing") == printed.count("step 5/12") == 1  # one of them speaks
    return out


def assert_same_course(run: Path, reference: Path) -> None:
    mine, its = losses(run), losses(reference)
    assert list(mine) == list(its)
    assert list(mine.values()) == pytest.approx(list(its.values()), rel=1e-5)
    for a, b in zip(records(run), records(reference), strict=True):
        if "quality" in a:
            assert a["quality"] == pytest.approx(b["quality"], rel=1e-5)


def test_two_processes_have_the_losses_of_one(config: TrainConfig, two: Path) -> None:
    assert_same_course(two, Path(config.out))


def test_a_run_of_two_goes_on_in_one(config: TrainConfig, two: Path, tmp_path: Path) -> None:
    run = shutil.copytree(two, tmp_path / "run")
    for step in (9, 12):
        shutil.rmtree(run / "checkpoints" / f"step-{step:08d}")
    train(dataclasses.replace(config, out=str(run)), resume=True)
    assert_same_course(run, Path(config.out))


def test_a_run_of_one_goes_on_in_two(config: TrainConfig, tmp_path: Path) -> None:
    run = shutil.copytree(config.out, tmp_path / "run")
    for step in (9, 12):
        shutil.rmtree(run / "checkpoints" / f"step-{step:08d}")
    assert "steps: 6 done of 12" in on_two("train", "--resume", str(run))
    assert_same_course(run, Path(config.out))


def test_an_error_in_one_process_ends_both(config: TrainConfig) -> None:
    printed = on_two("train", *as_options(config), code=1)  # only the main process sees that the folder exists
    assert f"error: {config.out} already exists" in printed


def test_alone_nothing_is_shared() -> None:
    cpu = torch.device("cpu")
    assert sum_over_processes(torch.tensor(3.0)).item() == 3.0
    assert any_process(True, cpu) is True and any_process(False, cpu) is False
    with join("cpu") as world:
        assert world == World(0, 1, cpu) and world.is_main
    assert not World(1, 2, cpu).is_main


def test_a_device_that_is_not_there_is_an_error() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="--device cuda was asked for"):
            pick_device("cuda")
