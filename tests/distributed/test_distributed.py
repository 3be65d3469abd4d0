"""Two processes train what one trains: the same data, the same losses, and runs that change hands."""

import dataclasses
import json
import os
import random
import shutil
import signal
import threading
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
from training_helpers import as_options, final_weights, finish, losses, records, start, tiny

from mamegpt.config import TrainConfig
from mamegpt.distributed import processes
from mamegpt.distributed.processes import World, any_process, join, sum_over_processes
from mamegpt.errors import OutputError
from mamegpt.run import checkpoint
from mamegpt.training.trainer import train

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this PyTorch has no torch.distributed")


def launcher(n: int, *options: str) -> list[str]:
    """The words that start ``mamegpt`` in ``n`` processes that know each other."""
    place = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(n)]  # at a port that is free
    return ["-m", "torch.distributed.run", *place, *options, "-m", "mamegpt"]


@pytest.fixture(scope="module")
def config(stories_txt: Path, stories_model: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run of one process, without dropout, whose random numbers depend on who computes."""
    folder = tmp_path_factory.mktemp("distributed")
    out, text = folder / "one", folder / "shuffled.txt"
    stories = stories_txt.read_text(encoding="utf-8").split("\n\n")
    dice = random.Random(0)  # characters in any order, which counts do not predict, so that they are used
    shuffled = ["".join(dice.sample(story, len(story))).replace("\n", "") for story in stories]
    text.write_text("\n\n".join(shuffled), encoding="utf-8", newline="\n")
    # AdamW, for Muon orthogonalises in bfloat16 and would magnify the last bits of a sum in another order.
    config = tiny(
        text, stories_model, out, keep_checkpoints=9, micro_batch_size=2, optimizer="adamw", lr=3e-3, ngrams=True
    )
    train(config)
    return config


def on(n: int, *arguments: str, code: int = 0) -> str:
    """Run ``mamegpt`` in ``n`` processes."""
    return finish(*launcher(n), *arguments, code=code) if n > 1 else finish("-m", "mamegpt", *arguments, code=code)


ONE_AFTER_THE_OTHER = """
import json, sys
from mamegpt.cli.main import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.fixture(scope="module")
def by_two(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """On two processes, started once: the same run, the run of one continued at its step 6, and what they print.

    They have two micro-batches each where one process has four. At last they are asked for a run that is there.
    """
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "commands.py").write_text(ONE_AFTER_THE_OTHER, encoding="utf-8")
    continued = shutil.copytree(config.out, folder / "continued")
    for step in (9, 12):
        shutil.rmtree(continued / "checkpoints" / f"step-{step:08d}")
    commands = [
        ["train", *as_options(dataclasses.replace(config, out=str(folder / "two")))],
        ["train", "--resume", str(continued)],
        ["train", *as_options(config)],
    ]
    printed = finish(*launcher(2)[:-2], str(folder / "commands.py"), json.dumps(commands), code=1)
    return folder / "two", continued, printed


def assert_same_course(run: Path, reference: Path) -> None:
    mine, its = losses(run), losses(reference)
    assert list(mine) == list(its)
    assert list(mine.values()) == pytest.approx(list(its.values()), rel=1e-5)
    for a, b in zip(records(run), records(reference), strict=True):
        if "quality" in a:
            assert a["quality"].pop("dtype") == b["quality"].pop("dtype")
            assert a["quality"] == pytest.approx(b["quality"], rel=1e-5)


def test_two_processes_have_the_losses_of_one(config: TrainConfig, by_two: tuple[Path, Path, str]) -> None:
    two, _, printed = by_two
    assert "2 process(es)" in printed
    assert printed.count("tokenizing") == printed.count("step 5/12") == 1  # one of them speaks
    assert_same_course(two, Path(config.out))


def test_a_run_of_two_goes_on_in_one(config: TrainConfig, by_two: tuple[Path, Path, str], tmp_path: Path) -> None:
    run = shutil.copytree(by_two[0], tmp_path / "run")
    for step in (9, 12):
        shutil.rmtree(run / "checkpoints" / f"step-{step:08d}")
    train(dataclasses.replace(config, out=str(run)), resume=True)
    assert_same_course(run, Path(config.out))


def test_a_run_of_one_goes_on_in_two(config: TrainConfig, by_two: tuple[Path, Path, str]) -> None:
    _, continued, printed = by_two
    assert "steps: 6/12" in printed
    assert_same_course(continued, Path(config.out))


def test_an_error_in_one_process_ends_both(config: TrainConfig, by_two: tuple[Path, Path, str]) -> None:
    # Only the main process sees that the folder exists; that both have ended, with exit code 1, is seen above.
    assert f"error: {config.out} already exists" in by_two[2]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_worker_killed_under_torchrun_costs_nothing(config: TrainConfig, tmp_path: Path) -> None:
    """One of two is killed, once early and once late; torchrun starts both again and they end as if undisturbed."""
    long = dataclasses.replace(config, out=str(tmp_path / "straight"), max_steps=60, log_every_steps=1)
    on(2, "train", *as_options(long))
    killed = dataclasses.replace(long, out=str(tmp_path / "killed"))
    process = start(*launcher(2, "--max-restarts", "2"), "train", *as_options(killed))
    assert process.stdout is not None
    patience = threading.Timer(240, process.terminate)  # gloo has been seen to hang here (docs/log.md)
    patience.start()
    rank, printed = 1, []
    for line in process.stdout:
        printed.append(line)
        if line.startswith(("step 10/", "step 40/")) and rank >= 0:
            workers = psutil.Process(process.pid).children()
            (worker,) = (one for one in workers if one.environ().get("RANK") == str(rank))
            worker.send_signal(signal.SIGKILL)
            rank -= 1  # then the main process
    code = process.wait()
    process.stdout.close()
    patience.cancel()
    assert code == 0 and rank == -1, "".join(printed)
    assert final_weights(Path(killed.out), 60) == final_weights(Path(long.out), 60)
    assert losses(Path(killed.out)) == losses(Path(long.out))


# Each process has a share of every weight.


@pytest.fixture(scope="module")
def plain(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """The run of one process without n-grams, for with shares weights do not begin as a fit to them."""
    plain = dataclasses.replace(config, out=str(tmp_path_factory.mktemp("plain") / "one"), ngrams=False)
    train(plain)
    return plain


@pytest.fixture(scope="module")
def four_shared(plain: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """The run of one process on four, with full sharding, and blocks computed again in the backward pass."""
    folder = tmp_path_factory.mktemp("shared")
    shared = dataclasses.replace(plain, out=str(folder / "four"), sharding="full")
    shared = dataclasses.replace(shared, micro_batch_size=1, activation_checkpointing=True)  # two a step
    assert "4 process(es)" in on(4, "train", *as_options(shared))
    return shared


@pytest.mark.slow
def test_four_processes_with_shares_have_the_losses_of_one(plain: TrainConfig, four_shared: TrainConfig) -> None:
    assert_same_course(Path(four_shared.out), Path(plain.out))
    newest = Path(four_shared.out) / "checkpoints" / "step-00000012"
    assert len(list((newest / "model").iterdir())) == len(list((newest / "optimizer").iterdir())) == 4
    mine, its = checkpoint.read_model(newest), checkpoint.read_model(Path(plain.out) / "checkpoints" / newest.name)
    assert mine.keys() == its.keys()
    for name, tensor in mine.items():
        # By its norm: AdamW divides a gradient by its size, so single elements of a gradient that is hardly more than
        # rounding differ as far as the processor's sums do.
        assert (tensor - its[name]).norm() < 2e-5 * its[name].norm(), name


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_what_four_saved_in_shares_goes_on_in_fewer(
    plain: TrainConfig, four_shared: TrainConfig, n: int, tmp_path: Path
) -> None:
    run = shutil.copytree(four_shared.out, tmp_path / "run")
    for step in (9, 12):
        shutil.rmtree(run / "checkpoints" / f"step-{step:08d}")
    assert "steps: 6/12" in on(n, "train", "--resume", str(run))
    assert_same_course(run, Path(plain.out))
    part = next((run / "checkpoints" / "step-00000012" / "optimizer").iterdir())
    part.write_bytes(part.read_bytes()[:-1])
    assert "is missing or damaged" in on(1, "train", "--resume", str(run), code=2)


@pytest.mark.slow
def test_muon_learns_the_same_with_shares(plain: TrainConfig, tmp_path: Path) -> None:
    found = []
    for n, sharding in ((1, "none"), (2, "full")):
        muon = dataclasses.replace(
            plain, out=str(tmp_path / str(n)), optimizer="muon", lr=3e-2, drop_rate=0.0, sharding=sharding
        )
        on(n, "train", *as_options(muon))
        found.append(list(losses(Path(muon.out)).values()))
    assert found[1] == pytest.approx(found[0], rel=3e-3)  # Newton-Schulz in bfloat16 magnifies the order of sums


SHARED_MUON = """
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from mamegpt.distributed.processes import join
from mamegpt.training.muon import Muon
from mamegpt.training.sharded_muon import ShardedMuon

SHAPES = [(16, 16), (48, 16), (16, 48), (17, 5), (2, 8)]  # some rows or matrices are left for nobody

def train(kind, dtype, place):
    random = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(place(torch.randn(shape, generator=random))) for shape in SHAPES]
    optimizer = kind(weights, lr=0.02, weight_decay=0.1, compute_dtype=dtype)
    for _ in range(3):
        for weight in weights[1:] + weights[:1]:
            weight.grad = place(torch.randn(weight.shape, generator=random))
        optimizer.step()
    return weights

with join("cpu") as world:
    mesh = init_device_mesh("cpu", (world.size,))
    for dtype in (torch.float32, torch.bfloat16):
        shared = train(ShardedMuon, dtype, lambda whole: distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None))
        for mine, its in zip(shared, train(Muon, dtype, lambda whole: whole), strict=True):
            assert torch.equal(mine.full_tensor(), its)
    print("the same")
"""


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 4])
def test_muon_of_shares_is_muon_of_wholes_bit_for_bit(tmp_path: Path, n: int) -> None:
    script = tmp_path / "shared_muon.py"
    script.write_text(SHARED_MUON, encoding="utf-8")
    assert finish(*launcher(n)[:-2], str(script)).count("the same") == n


ONE_BAD_STEP = """
import math
from mamegpt.cli.main import main
from mamegpt.training.forward import SummedLoss
plain, n_calls = SummedLoss.forward, 0
def forward(self, *args):
    global n_calls
    n_calls += 1
    return plain(self, *args) * (math.nan if n_calls == 15 else 1)  # two a step: in the eighth
SummedLoss.forward = forward
main()
"""


@pytest.mark.slow
def test_two_processes_go_back_before_a_bad_loss_together(config: TrainConfig, tmp_path: Path) -> None:
    script = tmp_path / "one_bad_step.py"
    script.write_text(ONE_BAD_STEP, encoding="utf-8")
    rolled = dataclasses.replace(config, out=str(tmp_path / "run"), on_bad_loss="rollback")
    printed = finish(*launcher(2)[:-2], str(script), "train", *as_options(rolled))
    assert printed.count("rolling back to step 6 and skipping 3 batches") == 1
    assert list(losses(tmp_path / "run")) == list(range(1, 13))


def test_alone_nothing_is_shared() -> None:
    cpu = torch.device("cpu")
    assert sum_over_processes(torch.tensor(3.0)).item() == 3.0
    assert any_process(True, None) is True and any_process(False, None) is False
    with join("cpu") as world:
        assert world == World(0, 1, cpu) and world.is_main
    assert not World(1, 2, cpu).is_main


def test_a_group_that_somebody_else_made_is_used_and_left_standing() -> None:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
    try:
        with join("cpu") as world:
            assert world == World(1, 2, torch.device("cpu"))
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(("backend", "is_destroyed"), [("gloo", True), ("nccl", False)])
def test_a_process_that_fails_alone_ends_without_waiting_for_the_others(
    backend: str, is_destroyed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    asked: dict[str, object] = {}
    start = dist.init_process_group

    def fake(backend: str, *, timeout: timedelta, device_id: object, **_: object) -> None:
        asked.update(backend=backend, timeout=timeout, device_id=device_id)
        start("fake", rank=1, world_size=2, store=FakeStore())

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(processes, "rendezvous", lambda _: iter([(FakeStore(), 1, 2)]))
    monkeypatch.setattr(dist, "init_process_group", fake)
    monkeypatch.setattr(dist, "get_default_backend_for_device", lambda _: backend)
    monkeypatch.setattr(dist, "is_backend_available", lambda _: True)
    with pytest.raises(RuntimeError, match="full disk"), join("cpu"):
        raise RuntimeError("full disk")
    assert dist.is_initialized() is not is_destroyed
    if not is_destroyed:
        dist.destroy_process_group()
    assert asked["device_id"] == (None if backend == "gloo" else torch.device("cpu"))


def test_an_accelerator_waits_for_minutes_and_the_processes_ask_each_other_over_gloo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[object] = []
    monkeypatch.setattr(dist, "new_group", lambda **options: made.append(options) or "group")
    assert processes._host_group(torch.device("cpu")) is None
    assert processes._host_group(torch.device("cuda:0")) == "group"
    assert made == [{"backend": "gloo", "timeout": processes.PATIENCE}] and processes.STEP_PATIENCE < processes.PATIENCE


def test_what_torchrun_starts_again_goes_on_with_a_run_of_its_own_only(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = dataclasses.replace(config, out=str(tmp_path / "run"), max_steps=1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this job")
    assert train(begun).step == 1
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert train(begun).step == 1
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    with pytest.raises(OutputError, match="already exists"):
        train(begun)
