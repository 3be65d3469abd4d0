"""A checkpoint is complete, comes back bit for bit, and is refused when a byte of it changed."""

import dataclasses
import json
import shutil
import threading
import traceback
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException

from mamegpt.config import ModelConfig, TrainConfig
from mamegpt.distributed.processes import World
from mamegpt.errors import CheckpointError, MamegptWarning, OutputError
from mamegpt.models.base import LanguageModel
from mamegpt.models.registry import build_model
from mamegpt.run import checkpoint
from mamegpt.run.run import checkpoints
from mamegpt.system.files import remove_leftovers
from mamegpt.training.optim import OPTIMIZERS, build_optimizer

ALONE = World(0, 1, torch.device("cpu"))
SIZES = TrainConfig(context_length=8, emb_dim=8, n_layers=2, n_heads=2, qkv_bias=True).model(20)


def fresh(
    seed: int, optimizer: str = "adamw", sizes: ModelConfig = SIZES
) -> tuple[LanguageModel, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = build_model("custom-gpt", sizes)
    return model, build_optimizer(model, TrainConfig(optimizer=optimizer))


def advance(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int, steps: int = 3) -> None:
    random = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=random)
        optimizer.step()


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int = 3, keep: int = 2) -> Path:
    return checkpoint.save(folder, model, optimizer, checkpoint.State(step, 1.5, "a", "b", "c"), keep=keep)


def save_parts(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: checkpoint.State,
    *,
    keep: int,
    rank: int = 0,
) -> Path:
    with checkpoint.Saver(folder, keep, True, World(rank, 1, torch.device("cpu"))) as saver:
        saver.save(model, optimizer, state)
    return folder / f"step-{state.step:08d}"


def assert_equal(a: nn.Module, b: nn.Module) -> None:
    assert list(a.state_dict()) == list(b.state_dict())
    for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_model_and_optimizer_come_back_bit_for_bit(tmp_path: Path, name: str) -> None:
    model, optimizer = fresh(0, name)
    advance(model, optimizer, seed=1)
    state = checkpoint.load(save(tmp_path, model, optimizer), *(loaded := fresh(9, name)))
    assert (state.step, state.elapsed_s, state.settings, state.tokens, state.tokenizer) == (3, 1.5, "a", "b", "c")
    assert_equal(model, loaded[0])
    advance(model, optimizer, seed=2)
    advance(*loaded, seed=2)
    assert_equal(model, loaded[0])  # so its optimizer is where the other one is


def test_a_checkpoint_before_the_first_step_has_no_optimizer_state(tmp_path: Path) -> None:
    model, optimizer = fresh(0)
    checkpoint.load(save(tmp_path, model, optimizer, step=0), *(loaded := fresh(9)))
    assert_equal(model, loaded[0])


def test_the_model_file_is_the_plain_state_dict(tmp_path: Path) -> None:
    model, optimizer = fresh(0)
    path = save(tmp_path, model, optimizer)
    tensors = load_file(path / "model.safetensors")
    assert tensors.keys() == model.state_dict().keys() == checkpoint.read_model(path).keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in model.state_dict().items())


def test_equal_states_give_equal_files(tmp_path: Path) -> None:
    files = []
    for folder in ("a", "b"):
        model, optimizer = fresh(0)
        advance(model, optimizer, seed=1)
        path = save(tmp_path / folder, model, optimizer)
        files.append({file.name: file.read_bytes() for file in path.iterdir()})
    assert files[0] == files[1]


def test_there_are_tensors_and_json_only(tmp_path: Path) -> None:
    model, optimizer = fresh(0)
    advance(model, optimizer, seed=1)
    path = save(tmp_path, model, optimizer)
    assert sorted(file.name for file in path.iterdir()) == ["model.safetensors", "optimizer.safetensors", "state.json"]
    assert [file.name for file in tmp_path.iterdir()] == ["step-00000003"]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    model, optimizer = fresh(0)
    for step in (5, 10, 100, 1000, 99_999_999):
        save(tmp_path, model, optimizer, step=step, keep=keep)
    steps = [checkpoint.read_state(path).step for _, path in checkpoints(tmp_path)]
    assert steps == [5, 10, 100, 1000, 99_999_999][-keep:]
    assert checkpoints(tmp_path)[-1].path == tmp_path / "step-99999999"
    assert len(list(tmp_path.iterdir())) == keep


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoints(tmp_path) == []
    assert checkpoints(tmp_path / "nothing") == []


def test_a_rotation_cut_short_leaves_complete_checkpoints_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = fresh(0)
    for step in (1, 2):
        save(tmp_path, model, optimizer, step=step)

    def killed(path: Path) -> None:
        next(path.iterdir()).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", killed)
        save(tmp_path, model, optimizer, step=3)
    for _, path in checkpoints(tmp_path):
        checkpoint.load(path, *fresh(9))
    assert len(checkpoints(tmp_path)) == 2
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_old_checkpoint_that_is_open_elsewhere_on_windows_stays_until_the_next_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = fresh(0)
    save(tmp_path, model, optimizer, step=1, keep=1)

    def held_open(path: Path) -> None:
        raise OutputError("{path} cannot be replaced", path=path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "remove_folder", held_open)
        with pytest.warns(MamegptWarning, match="step-00000001 is kept for now"):
            save(tmp_path, model, optimizer, step=2, keep=1)
    assert [step for step, _ in checkpoints(tmp_path)] == [1, 2]
    save(tmp_path, model, optimizer, step=3, keep=1)
    assert [step for step, _ in checkpoints(tmp_path)] == [3]


def test_a_failed_save_leaves_the_checkpoints_as_they_were(tmp_path: Path) -> None:
    model, optimizer = fresh(0)
    save(tmp_path, model, optimizer, step=1)
    model.register_buffer("broken", torch.empty(3, device="meta"))
    with pytest.raises((RuntimeError, NotImplementedError)):
        save(tmp_path, model, optimizer, step=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_full_disk_is_one_line_and_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = fresh(0)
    save(tmp_path, model, optimizer, step=1)

    def full(*_arguments: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OutputError, match=r"step-00000002 cannot be written \(.*No space left on device.*free space"):
        save(tmp_path, model, optimizer, step=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize(("parts", "writer"), [(False, "_write"), (True, "_write_parts")])
def test_what_a_thread_writes_is_what_was_there_when_it_was_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: bool, writer: str
) -> None:
    model, optimizer = fresh(0)
    advance(model, optimizer, seed=1)
    state = checkpoint.State(3, 1.5, "a", "b", "c")
    if parts:
        at_once = save_parts(tmp_path / "at-once", model, optimizer, state, keep=2)
    else:
        at_once = save(tmp_path / "at-once", model, optimizer)
    gate, write, told = threading.Event(), getattr(checkpoint, writer), []
    monkeypatch.setattr(checkpoint, writer, lambda *arguments: gate.wait(10) and write(*arguments))
    with checkpoint.Saver(tmp_path / "thread", 2, parts, ALONE, lambda step, path: told.append((step, path))) as saver:
        saver.save(model, optimizer, state)
        advance(model, optimizer, seed=2)  # training goes on meanwhile
        saver.poll()
        assert not (tmp_path / "thread").exists() and not told
        gate.set()
    assert told == [(3, tmp_path / "thread" / at_once.name)]
    files = [file.relative_to(at_once) for file in at_once.rglob("*.safetensors")]
    assert len(files) == 2
    for file in files:  # not byte for byte: the words in the header of a part are in any order
        mine, its = load_file(tmp_path / "thread" / at_once.name / file), load_file(at_once / file)
        assert mine.keys() == its.keys() and all(torch.equal(mine[name], its[name]) for name in mine)


@pytest.mark.parametrize(("parts", "writer"), [(False, "_write"), (True, "_write_parts")])
@pytest.mark.parametrize("end", ["wait", "save", "exit"])
def test_a_write_that_failed_in_the_thread_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, parts: bool, writer: str
) -> None:
    def full(*_arguments: object) -> None:
        raise OutputError("full")

    monkeypatch.setattr(checkpoint, writer, full)
    state = checkpoint.State(1, 0.0, "a", "b", "c")
    with pytest.raises(OutputError, match="full"), checkpoint.Saver(tmp_path, 1, parts, ALONE) as saver:
        saver.save(*fresh(0), state)
        if end == "wait":
            saver.wait()
        elif end == "save":
            saver.save(*fresh(0), state)
    with pytest.raises(KeyError), checkpoint.Saver(tmp_path, 1, parts, ALONE) as saver:
        saver.save(*fresh(0), state)
        raise KeyError("what went wrong first is what is told")


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_parts_come_back_bit_for_bit(tmp_path: Path, name: str, steps: int) -> None:
    model, optimizer = fresh(0, name)
    advance(model, optimizer, 1, steps)
    state = checkpoint.State(3, 1.5, "a", "b", "c")
    for kept in (2, 3):
        save_parts(tmp_path, model, optimizer, dataclasses.replace(state, step=kept), keep=1)
    path = tmp_path / "step-00000003"
    assert list(tmp_path.iterdir()) == [path]
    assert {file.suffix for file in path.rglob("*") if file.is_file()} == {".safetensors", ".json"}  # and no pickle
    loaded = fresh(9, name)
    assert checkpoint.load(path, *loaded).step == 3
    assert_equal(model, loaded[0])
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in checkpoint.read_model(path).items())
    advance(model, optimizer, seed=2)
    advance(*loaded, seed=2)
    assert_equal(model, loaded[0])
    with pytest.raises(CheckpointError, match="does not fit this model"):
        checkpoint.load(path, *fresh(9, name, dataclasses.replace(SIZES, n_layers=3)))
    (part,) = (path / "model").iterdir()
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    assert str(part) in refused(path)


def test_parts_that_cannot_be_written_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise CheckpointException("write", {1: (OSError("No space left on device"), traceback.StackSummary())})

    monkeypatch.setattr(checkpoint, "save_sharded", full)
    state = checkpoint.State(3, 1.5, "a", "b", "c")
    with pytest.raises(OutputError, match=r"step-00000003 cannot be written \(.*No space left.*free space"):
        save_parts(tmp_path, *fresh(0), state, keep=1)
    assert list(tmp_path.iterdir()) == []


def test_parts_that_the_main_process_cannot_complete_leave_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_path: Path) -> str:
        raise OSError("the disk is gone")

    monkeypatch.setattr(checkpoint, "sha256_file", broken)
    with pytest.raises(OSError, match="is gone"), checkpoint.Saver(tmp_path, 1, True, ALONE) as saver:
        saver.save(*fresh(0), checkpoint.State(3, 1.5, "a", "b", "c"))
    assert checkpoints(tmp_path) == []
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(checkpoint.processes, "any_process", lambda *_: True)  # what the others hear of it
    with pytest.raises(OutputError, match="cannot be written by the main process"):
        save_parts(tmp_path, *fresh(0), checkpoint.State(3, 1.5, "a", "b", "c"), keep=1, rank=1)


# What is refused, in one line that names the file.


def refused(path: Path) -> str:
    model, optimizer = fresh(9)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path, model, optimizer)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not optimizer.state
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_one_changed_byte_anywhere_is_found(tmp_path: Path, name: str) -> None:
    model, optimizer = fresh(0)
    advance(model, optimizer, seed=1)
    path = save(tmp_path, model, optimizer)
    data = (path / name).read_bytes()
    for at in (0, 20, len(data) // 2, len(data) - 1):
        (path / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        message = refused(path)
        assert str(path / name) in message and "resume_intact" in message
        if name == "model.safetensors":
            with pytest.raises(CheckpointError, match="is damaged"):
                checkpoint.read_model(path)
    (path / name).write_bytes(data[:-1])
    refused(path)
    (path / name).unlink()
    assert str(path / name) in refused(path)


def test_one_changed_bit_anywhere_in_the_state_is_found(tmp_path: Path) -> None:
    path = save(tmp_path, *fresh(0))
    data = (path / "state.json").read_bytes()
    for at in range(0, len(data) - 1, 7):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        (path / "state.json").write_bytes(changed)
        try:
            same = json.loads(changed) == json.loads(data)  # white space became other white space
        except ValueError:
            same = False
        if not same:
            assert str(path / "state.json") in refused(path), changed


def test_a_state_without_a_hash_of_its_own_is_an_older_one(tmp_path: Path) -> None:
    path = save(tmp_path, *fresh(0))
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    for later in ("sha256", "metrics", "skipped", "rollbacks"):
        del state[later]
    (path / "state.json").write_text(json.dumps(state), encoding="utf-8")
    assert checkpoint.load(path, *fresh(9)).step == 3


def test_what_is_newer_than_the_newest_intact_one_is_set_aside(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, *fresh(0), step=step, keep=3)
    assert checkpoint.quarantine(tmp_path) == []
    (tmp_path / "step-00000003" / "model.safetensors").write_bytes(b"broken")
    (tmp_path / "step-00000002" / "optimizer.safetensors").unlink()
    first, second = checkpoint.quarantine(tmp_path)
    assert "step-00000003/model.safetensors is missing or damaged" in first and "step-00000002" in second
    assert [path for _, path in checkpoints(tmp_path)] == [tmp_path / "step-00000001"]
    assert sorted(path.name for path in tmp_path.glob("damaged-*")) == [
        "damaged-step-00000002",
        "damaged-step-00000003",
    ]
    save(tmp_path, *fresh(0), step=3, keep=3)  # the run went on, to the same step
    (tmp_path / "step-00000003" / "model.safetensors").write_bytes(b"broken again")
    assert len(checkpoint.quarantine(tmp_path)) == 1
    assert (tmp_path / "damaged-step-00000003-2" / "model.safetensors").read_bytes() == b"broken again"
    (tmp_path / "step-00000001" / "state.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"no checkpoint under .* is intact"):
        checkpoint.quarantine(tmp_path)
    assert (tmp_path / "step-00000001").is_dir()


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"step": 3}'])
def test_a_damaged_state_file_is_refused(tmp_path: Path, text: str) -> None:
    path = save(tmp_path, *fresh(0))
    (path / "state.json").write_text(text, encoding="utf-8")
    assert str(path / "state.json") in refused(path)
    with pytest.raises(CheckpointError):
        checkpoint.read_model(path)


@pytest.mark.parametrize("junk", [None, "x", [], {}, 3])
def test_a_state_file_with_wrong_values_is_refused(tmp_path: Path, junk: object) -> None:
    path = save(tmp_path, *fresh(0))
    good = json.loads((path / "state.json").read_text(encoding="utf-8"))
    (path / "state.json").write_text(json.dumps({**good, "files": junk}), encoding="utf-8")
    refused(path)
    with pytest.raises(CheckpointError):
        checkpoint.read_model(path)


def test_a_model_of_other_sizes_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, *fresh(0))
    other = TrainConfig(context_length=8, emb_dim=8, n_layers=3, n_heads=2, qkv_bias=True).model(20)
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit this model: [^\n]*$"):
        checkpoint.load(path, *fresh(9, sizes=other))
