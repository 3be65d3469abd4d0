"""A run writes what it says, equal settings give equal weights, and what cannot work is refused in one line."""

import dataclasses
import errno
import io
import itertools
import json
import math
import os
import re
import shutil
import signal
import statistics
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from training_helpers import as_options, final_weights, losses, records, start, tiny

from mamegpt.cli.main import main
from mamegpt.cli.progress import json_lines, show_progress
from mamegpt.config import TrainConfig
from mamegpt.data.shards import open_shards, write_shards
from mamegpt.data.sources import read_texts
from mamegpt.data.window_order import WindowOrder
from mamegpt.distributed.processes import World
from mamegpt.errors import CheckpointError, ConfigError, DataError, MamegptError, OutputError, TrainingError
from mamegpt.models.registry import build_model
from mamegpt.report.write import write_report
from mamegpt.run import checkpoint
from mamegpt.run.metrics import read_metrics
from mamegpt.run.run import Run
from mamegpt.system import run_files
from mamegpt.system.files import make_scratch
from mamegpt.tokenizer.tokenizer import Tokenizer, train_tokenizer
from mamegpt.training import trainer
from mamegpt.training.autotune import Probe
from mamegpt.training.events import CompileFailed, Ended, Event, StepEvent
from mamegpt.training.forward import SummedLoss
from mamegpt.training.ngram_targets import NgramTargets, true_share
from mamegpt.training.optim import OPTIMIZERS, lr_factor
from mamegpt.training.trainer import train
from mamegpt.training.validation import evaluate


@pytest.fixture(autouse=True, scope="module")
def any_text_has_counts() -> Iterator[None]:
    """Let runs here learn from the n-grams of stories, too, which are left out elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mamegpt.training.setup.REGULAR_TEXT_LOSS", 0.0)
        yield


@pytest.fixture(scope="module")
def config(stories_txt: Path, stories_model: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Settings of a run of 12 steps, with dropout and n-gram targets, that has been trained."""
    config = tiny(
        stories_txt,
        stories_model,
        tmp_path_factory.mktemp("runs") / "first",
        drop_rate=0.1,
        keep_checkpoints=9,
        ngrams=True,
    )
    train(config)
    return config


@pytest.fixture
def run(config: TrainConfig, tmp_path: Path) -> Path:
    """A copy of that run, to change."""
    return shutil.copytree(config.out, tmp_path / "run")


def resumed(run: Path) -> trainer.TrainResult:
    config = dataclasses.replace(TrainConfig.load(run / "config.json"), out=str(run))
    return train(config, resume=True, watchers=[show_progress()])


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def forget_after(run: Path, step: int) -> None:
    """Make a run one that was killed after a step was saved; its metrics may have come further."""
    for _, path in Run(run).checkpoints():
        if checkpoint.read_state(path).step > step:
            shutil.rmtree(path)


# What a run leaves.


def test_a_run_is_the_folder_its_documentation_draws(config: TrainConfig) -> None:
    run = Path(config.out)
    assert visible(run) == ["checkpoints", "config.json", "machine.json", "metrics.jsonl", "tokenizer.model", "tokens"]
    assert TrainConfig.load(run / "config.json") == config
    assert (run / "tokenizer.model").read_bytes() == Path(config.tokenizer).read_bytes()
    assert [path.name for _, path in Run(run).checkpoints()] == [f"step-{step:08d}" for step in (3, 6, 9, 12)]
    for name in visible(run):
        assert name in (run_files.__doc__ or "")


def test_metrics_hold_every_step_and_every_validation_in_order(config: TrainConfig) -> None:
    found = records(Path(config.out))
    assert list(losses(Path(config.out))) == list(range(1, 13))
    assert [record["step"] for record in found if "quality" in record] == [6, 12, 12]
    assert [record["step"] for record in found] == sorted(record["step"] for record in found)
    for record in found:
        if "loss" in record:
            factor = lr_factor(record["step"] - 1, 12, config.warmup_fraction, config.cooldown_fraction)
            assert record["lr"] == pytest.approx(config.lr * factor)
            assert record["tokens"] == record["step"] * config.batch_size * config.context_length
            assert 0 < record["grad_norm"] < 100
    elapsed = [record["elapsed_s"] for record in found if "elapsed_s" in record]
    assert elapsed == sorted(elapsed)


def test_the_norm_written_is_the_one_before_clipping(config: TrainConfig, tmp_path: Path) -> None:
    norms = []
    for grad_clip in (0.0, 1e-3):
        run = tmp_path / f"{grad_clip}"
        train(dataclasses.replace(config, out=str(run), grad_clip=grad_clip, max_steps=1, val_fraction=0.0))
        norms.append(records(run)[0]["grad_norm"])
    assert norms[0] == pytest.approx(norms[1]) and norms[0] > 1e-3


def test_the_last_validation_is_evaluate_on_the_final_weights(config: TrainConfig) -> None:
    run = Path(config.out)
    tokenizer = Tokenizer.load(run / "tokenizer.model")
    _, splits = open_shards(run / "tokens", tokenizer)
    model = build_model(config.architecture, config.model(tokenizer.vocab_size))
    newest = Run(run).latest()
    assert newest is not None
    model.load_state_dict(checkpoint.read_model(newest.path))

    val = splits["val"]

    def quality(max_tokens: int) -> dict[str, Any]:
        return evaluate(
            model,
            val.tokens,
            n_characters=val.meta.n_characters,
            n_bytes=val.meta.n_bytes,
            context_length=config.context_length,
            start_id=tokenizer.start_id,
            world=World(0, 1, torch.device("cpu")),
            max_tokens=max_tokens,
            step=12,
        ).to_dict()

    middle, last, whole = (record["quality"] for record in records(run) if "quality" in record)
    assert last == quality(config.val_tokens) and whole == quality(max_tokens=0)
    assert whole["n_tokens"] == len(val.tokens) > config.val_tokens >= middle["n_tokens"] > config.val_tokens * 0.9
    assert [figure["step"] for figure in (middle, last, whole)] == [6, 12, 12]
    assert {name: middle[name] for name in ("n_tokens", "n_characters", "dtype")} == {
        name: last[name] for name in ("n_tokens", "n_characters", "dtype")
    }
    assert whole["n_characters"] == whole["of_n_characters"] == val.meta.n_characters


def test_the_result_says_what_the_folder_says(config: TrainConfig) -> None:
    result = resumed(Path(config.out))  # of a finished run: nothing is left to do
    assert (result.out, result.step, result.interrupted) == (Path(config.out), 12, False)
    assert result.losses == list(losses(Path(config.out)).values())
    assert result.quality is not None and result.quality == result.run.quality
    assert result.quality.to_dict() == records(Path(config.out))[-1]["quality"]
    model = checkpoint.read_model(Path(config.out) / "checkpoints" / "step-00000012")
    assert result.n_parameters == sum(tensor.numel() for tensor in model.values())
    assert result.n_tokens == 12 * 8 * 16


def test_what_is_printed_is_what_happened(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(dataclasses.replace(config, out=str(tmp_path / "run"), samples_per_epoch=48), watchers=[show_progress()])
    printed = capsys.readouterr().out
    loss = losses(tmp_path / "run")
    for step in (5, 10, 12):
        assert f"step {step}/12 - loss {loss[step]:.4f} - " in printed
    for epoch in (1, 2):  # 48 windows are 6 steps
        mean = statistics.fmean(loss[step] for step in range(6 * epoch - 5, 6 * epoch + 1))
        assert f"epoch {epoch} ends at step {6 * epoch} - mean loss {mean:.4f}\n" in printed
    last = records(tmp_path / "run")[-1]["quality"]
    assert f"step 12/12 - validation loss {last['loss']:.4f} - {last['bits_per_byte']:.4f} bits/byte" in printed
    assert "48 sequences per epoch" in printed


def test_the_loss_goes_down(stories_txt: Path, stories_model: Path, tmp_path: Path) -> None:
    result = train(tiny(stories_txt, stories_model, tmp_path / "run", max_steps=80, emb_dim=32, eval_every_steps=20))
    assert abs(result.losses[0] - math.log(1000)) < 0.5
    assert statistics.fmean(result.losses[-5:]) < result.losses[0] - 1.5
    validations = [record["quality"]["loss"] for record in records(tmp_path / "run") if "quality" in record]
    assert len(validations) == 5 and validations[-1] < validations[0]


def test_token_shards_as_data_train_the_same_weights(config: TrainConfig, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(Path(config.tokenizer))
    write_shards(tmp_path / "tokens", {"train": read_texts(config.data)}, tokenizer, val_fraction=config.val_fraction)
    train(dataclasses.replace(config, data=str(tmp_path / "tokens"), out=str(tmp_path / "run")))
    assert "tokens" not in visible(tmp_path / "run")
    assert final_weights(tmp_path / "run", 12) == final_weights(Path(config.out), 12)


def test_without_validation_text_there_is_no_validation(config: TrainConfig, tmp_path: Path) -> None:
    result = train(dataclasses.replace(config, out=str(tmp_path / "run"), val_fraction=0.0))
    assert result.quality is None
    assert not any("quality" in record for record in records(tmp_path / "run"))


def test_validation_text_of_its_own_is_used(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("豆の木町に住むハナは、やさしい女の子でした。\n", encoding="utf-8")
    result = train(
        dataclasses.replace(config, out=str(tmp_path / "run"), val_data=str(tmp_path / "val.txt"), val_split="train")
    )
    assert result.quality is not None
    assert result.quality.n_characters == len("豆の木町に住むハナは、やさしい女の子でした。")


# Equal settings give equal weights.


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_the_same_settings_give_the_same_weights_and_another_seed_others(
    config: TrainConfig, tmp_path: Path, optimizer: str
) -> None:
    weights = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(hash(name))  # what happened before in the process does not matter
        train(dataclasses.replace(config, out=str(tmp_path / name), optimizer=optimizer, seed=seed))
        weights[name] = final_weights(tmp_path / name, 12)
    assert weights["a"] == weights["b"] != weights["c"]
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")


@pytest.mark.parametrize("setting", [{"log_every_steps": 1}, {"eval_every_steps": 1}, {"save_every_steps": 5}], ids=str)
def test_watching_a_run_does_not_change_it(config: TrainConfig, tmp_path: Path, setting: dict[str, int]) -> None:
    train(dataclasses.replace(config, out=str(tmp_path / "run"), **setting))
    assert final_weights(tmp_path / "run", 12) == final_weights(Path(config.out), 12)


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_micro_batches_do_not_change_the_objective(config: TrainConfig, tmp_path: Path, optimizer: str) -> None:
    found = []
    for micro in (0, 4, 2, 1):
        changed = dataclasses.replace(
            config,
            out=str(tmp_path / str(micro)),
            micro_batch_size=micro,
            drop_rate=0.0,
            optimizer=optimizer,
            architecture="custom-gpt",  # qwen3 begins with zeros, whose first gradients Muon magnifies, rounding too
        )
        found.append(train(changed).losses)
    for losses_ in found[1:]:
        assert losses_ == pytest.approx(found[0], rel=1e-5)


def test_a_step_follows_the_gradient_of_the_mean_loss(config: TrainConfig, tmp_path: Path) -> None:
    """One step of AdamW by hand, from the same initial weights, on the batch the order names."""
    changed = dataclasses.replace(
        config,
        out=str(tmp_path / "run"),
        optimizer="adamw",
        drop_rate=0.0,
        max_steps=1,
        weight_decay=0.0,
        warmup_fraction=0.0,
        cooldown_fraction=0.0,
        grad_clip=0.5,
        lr=1e-3,
        architecture="custom-gpt",
        ngrams=False,
    )
    result = train(changed)
    tokenizer = Tokenizer.load(Path(config.tokenizer))
    torch.manual_seed(config.seed)
    model = build_model(changed.architecture, changed.model(tokenizer.vocab_size))
    _, splits = open_shards(tmp_path / "run" / "tokens")
    tokens = splits["train"].tokens
    order = WindowOrder(len(tokens), config.context_length, config.batch_size, config.seed)
    x, y = (torch.from_numpy(np.ascontiguousarray(a)) for a in order.batch(tokens, 0))
    loss = torch.nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
    assert result.losses == pytest.approx([loss.item()], rel=1e-5)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norm = torch.stack([g.norm() for g in gradients.values()]).norm()
    clip = min(1.0, 0.5 / (norm.item() + 1e-6))
    assert clip < 1  # else clipping would not be looked at
    trained = checkpoint.read_model(tmp_path / "run" / "checkpoints" / "step-00000001")
    for name, parameter in model.named_parameters():
        g = gradients[name] * clip
        expected = parameter.detach() - 1e-3 * g / (g.abs() + 1e-8)  # what Adam's first step comes to
        sure = g.abs() > 1e-5
        torch.testing.assert_close(trained[name][sure], expected[sure], rtol=1e-4, atol=1e-6)


def test_counts_have_their_share_until_the_model_predicts_better_than_they_do(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []
    plain = SummedLoss.forward

    def forward(self: SummedLoss, ids: torch.Tensor, targets: torch.Tensor, *soft: Any) -> torch.Tensor:
        if soft:
            shares.append(soft[1])
        return plain(self, ids, targets, *soft)

    monkeypatch.setattr(SummedLoss, "forward", forward)
    monkeypatch.setattr(trainer, "OUTGROWN_EVERY_STEPS", 5)
    run = Path(train(dataclasses.replace(config, out=str(tmp_path / "run"), max_steps=20, val_fraction=0.0)).out)
    expected = [true_share(step / 20, step) for step in range(20)]
    assert shares == expected  # the n-gram model of so simple a text is better than a model of 20 steps

    shares.clear()
    monkeypatch.setattr(NgramTargets, "_loss", lambda *_: 100.0)
    out = str(tmp_path / "outgrown")
    train(dataclasses.replace(config, out=out, max_steps=20, val_fraction=0.0))
    assert shares == expected[:5] + [1.0] * 15
    assert [checkpoint.read_state(path).ngrams_outgrown for _, path in Run(Path(out)).checkpoints()][:2] == [
        False,
        True,
    ]
    weights = final_weights(Path(out), 20)
    for step in (6, 3):  # after it and before it
        shares.clear()
        forget_after(Path(out), step)
        resumed(Path(out))
        assert final_weights(Path(out), 20) == weights
        assert shares == ([*expected[:5], *[1.0] * 15])[step:]
    assert checkpoint.read_state(run / "checkpoints" / "step-00000020").ngrams_outgrown is False

    # The mean of the steps since the last comparison counts, also of those before a resume: here it and the mean of the
    # steps after the resume would decide differently.
    losses = [record["loss"] for record in Run(run).metrics if "loss" in record]
    means = {end: statistics.fmean(losses[end - 5 : end]) for end in (5, 10, 15, 20)}
    between = {end: (means[end] + statistics.fmean(losses[end - 2 : end])) / 2 for end in (5, 10, 15)}
    compared = next(end for end in between if all(means[before] > between[end] for before in means if before < end))
    monkeypatch.setattr(NgramTargets, "_loss", lambda *_: between[compared])
    end = compared if means[compared] < between[compared] else compared + 5
    shares.clear()
    train(dataclasses.replace(config, out=(out := str(tmp_path / "later")), max_steps=20, val_fraction=0.0))
    assert shares[: compared + 5] == (expected[:end] + [1.0] * 20)[: compared + 5]
    weights, before = final_weights(Path(out), 20), shares[compared - 2 :]
    shares.clear()
    forget_after(Path(out), compared - 2)
    resumed(Path(out))
    assert shares == before and final_weights(Path(out), 20) == weights


# Going on.


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_a_run_that_goes_on_ends_as_one_that_never_stopped(config: TrainConfig, tmp_path: Path, optimizer: str) -> None:
    run = tmp_path / "run"
    train(dataclasses.replace(config, out=str(run), optimizer=optimizer))
    weights, before = final_weights(run, 12), losses(run)
    for step in (9, 6, 3, 0):
        forget_after(run, step)
        result = resumed(run)
        assert final_weights(run, 12) == weights
        assert losses(run) == before and result.losses == list(before.values())
        assert [record["step"] for record in records(run) if "quality" in record] == [6, 12, 12]


def test_a_half_written_line_of_metrics_does_not_matter(run: Path, config: TrainConfig) -> None:
    for half in ('{"step": 12, "quality": {"loss": 1.0}', '{"step": 1', '{"step": 12, "loss": 3.14, "名": "豆'):
        forget_after(run, 9)
        with (run / "metrics.jsonl").open("ab") as file:
            file.write(half.encode()[:-1])
        resumed(run)
        assert losses(run) == losses(Path(config.out))


def test_a_line_that_no_run_writes_is_named(tmp_path: Path) -> None:
    quality = {"loss": 1, "bits_per_byte": 1, "bits_per_character": 1, "n_tokens": 9, "n_characters": 9, "n_bytes": 9}
    fine = {"step": 1, "quality": quality}
    for odd in ({"x": 1}, {**fine, "loss": 6.4}, {**fine, "quality": {}}, {**fine, "quality": quality | {"loss": "1"}}):
        (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(fine)}\n{json.dumps(odd)}\n", encoding="utf-8")
        with pytest.raises(CheckpointError, match="line 2 is not a metrics record"):
            read_metrics(tmp_path)


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(run: Path) -> None:
    theirs = [".tokens.x.partial", ".venv.old", "checkpoints/.step-00000003.old", ".mamegpt-mine"]
    for folder in ("", "checkpoints"):
        make_scratch(run / folder, 7)
    for name in theirs:
        (run / name).mkdir()
        (run / name / "notes.txt").write_text("mine", encoding="utf-8")
    resumed(run)
    assert not (run / ".mamegpt-7").exists() and not (run / "checkpoints" / ".mamegpt-7").exists()
    assert [(run / name / "notes.txt").read_text(encoding="utf-8") for name in theirs] == ["mine"] * len(theirs)


def test_time_goes_on_and_speed_is_of_this_process(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forget_after(run, 9)
    checkpoint.skip_batches(run / "checkpoints" / "step-00000009", 0, elapsed_s=1e9)
    result = resumed(run)
    assert result.elapsed_s > 1e9
    assert all(record["elapsed_s"] > 1e9 for record in records(run)[-4:] if "loss" in record)
    speeds = re.findall(r"step \d+/12 - loss [\d.]+ - ([\d,]+) tokens/s", capsys.readouterr().out)
    assert speeds and all(int(speed.replace(",", "")) > 0 for speed in speeds)


def test_a_run_goes_on_with_the_threads_it_began_with(
    run: Path, config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_num_threads()
    forget_after(run, 6)
    try:
        torch.set_num_threads(before + 1)
        resumed(run)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    printed = capsys.readouterr().out
    assert f"threads: {before}, with which the run began, instead of {before + 1}, so" in printed
    assert "warning" not in printed and f"{before} threads\n" in printed
    assert final_weights(run, 12) == final_weights(Path(config.out), 12)


def test_what_else_decides_the_last_bits_is_named_if_it_is_other_now(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "machine.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    for changed, named in (
        ({}, ""),
        ({"device": "cuda", "processes": 2}, "device cuda, processes 2 and continues with device cpu, processes 1"),
        ({"version": "PyTorch 1.0"}, "version PyTorch 1.0 and"),
    ):
        path.write_text(json.dumps(facts | changed), encoding="utf-8")
        resumed(run)
        assert (f"warning: the run began with {named}" in capsys.readouterr().out) == bool(named)
    earlier = {name: facts[name] for name in ("machine", "processes", "PyTorch")}  # a run of an earlier version
    path.write_text(json.dumps(earlier), encoding="utf-8")
    resumed(run)
    assert "warning" not in capsys.readouterr().out
    for damaged in ('{"threads": "2"}', '{"threads": 0}', '{"threads": 1.5}', "[]", "{"):
        path.write_text(damaged, encoding="utf-8")
        assert "machine.json is damaged" in refused(CheckpointError, run)


# Extending a finished run.


def extended(run: Path, **more: Any) -> trainer.TrainResult:
    config = dataclasses.replace(TrainConfig.load(run / "config.json"), out=str(run))
    return train(config, resume=True, watchers=[show_progress()], **more)


def test_a_finished_run_is_extended_and_an_interrupted_extension_ends_bitwise_the_same(
    run: Path, config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resumed(run)
    assert (
        f"{run} is finished; to train it for longer: mamegpt train --resume {run} --more-min" in capsys.readouterr().out
    )
    before = final_weights(run, 12)
    result = extended(run, more_steps=8)
    assert (result.step, result.interrupted, len(result.losses)) == (20, False, 20)
    assert "steps: 12/20" in capsys.readouterr().out
    rates = [record["lr"] / config.lr for record in records(run) if "loss" in record]
    assert rates[12:] == pytest.approx([lr_factor(step, 8, 0.25, config.cooldown_fraction) for step in range(8)])
    assert rates[:12] == pytest.approx([lr_factor(step, 12, 0.25, config.cooldown_fraction) for step in range(12)])
    weights, text = final_weights(run, 20), losses(run)
    for step in (18, 15, 12, 9):  # also to before the extension
        forget_after(run, step)
        assert resumed(run).step == 20
        assert (final_weights(run, 20), losses(run)) == (weights, text)
    assert final_weights(run, 12) == before
    assert extended(run, more_steps=3).step == 23  # and once more
    page = write_report([run], tmp_path / "report.html") or (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "12 + 8, 20 + 3" in page


def test_what_torchrun_starts_again_is_not_extended_twice(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    for n_restarts in (0, 1):  # a process died after the last checkpoint of the extension
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(n_restarts))
        assert extended(run, more_steps=3).step == 15
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert extended(run, more_steps=3).step == 18


def test_only_a_finished_run_is_extended(run: Path) -> None:
    forget_after(run, 9)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "metrics.jsonl"}
    with pytest.raises(ConfigError, match=r"is not finished \(step 9\); first resume it: mamegpt train --resume "):
        extended(run, more_steps=3)
    assert all(path.read_bytes() == data for path, data in before.items())
    resumed(run)
    extended(run, more_steps=3)
    (run / "extensions.json").write_text('[{"from_step": 12, "from_s": 1, "steps": 0}]', encoding="utf-8")
    assert "extensions.json is damaged" in refused(CheckpointError, run)


def test_an_extension_or_a_rest_without_time_for_a_step_takes_one(
    run: Path, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extended(run, more_minutes=1e-6)
    assert extended(run, more_steps=2).step == 15
    timed = dataclasses.replace(
        config,
        out=str(tmp_path / "timed"),
        max_steps=TrainConfig.max_steps,
        minutes=0.01,
        save_every_steps=1,
        keep_checkpoints=99,
    )
    step = train(timed).step
    shutil.rmtree(tmp_path / "timed" / "checkpoints" / f"step-{step:08d}")  # as after a stop just before the end
    monkeypatch.setattr(Probe, "seconds_per_step", lambda *_: [1e9])
    step = train(timed, resume=True).step
    assert extended(tmp_path / "timed", more_steps=2).step == step + 2


def test_minutes_are_not_added_to_a_model_that_no_process_holds_whole(config: TrainConfig, tmp_path: Path) -> None:
    train(shared := dataclasses.replace(config, out=str(tmp_path / "run"), sharding="full", max_steps=3))
    with pytest.raises(ConfigError, match="more_minutes needs the whole model"):
        train(shared, resume=True, more_minutes=0.01)
    assert train(shared, resume=True, more_steps=1).step == 4


def test_a_run_of_minutes_is_finished_when_it_says_so_and_extended_by_minutes(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timed = dataclasses.replace(config, out=str(tmp_path / "run"), max_steps=TrainConfig.max_steps, minutes=0.03)
    first = train(timed)
    weights = final_weights(tmp_path / "run", first.step)
    assert train(timed, resume=True).step == first.step  # nothing is left, whatever a measurement says now
    assert final_weights(tmp_path / "run", first.step) == weights
    capsys.readouterr()
    longer = train(timed, resume=True, more_minutes=0.02, watchers=[show_progress()])
    assert longer.step > first.step and longer.elapsed_s > first.elapsed_s + 0.5
    printed = capsys.readouterr().out
    assert re.search(rf"\nstep {first.step + 1} - loss [\d.]+ - [\d,]+ tokens/s - 0:0\d left\n", printed)
    lefts = [int(left) for left in re.findall(r" - 0:(\d\d) left\n", printed)]
    assert lefts == sorted(lefts, reverse=True)


def test_a_run_may_move(run: Path, config: TrainConfig) -> None:
    forget_after(run, 6)
    moved = run.rename(run.parent / "elsewhere")
    resumed(moved)
    assert final_weights(moved, 12) == final_weights(Path(config.out), 12)


# What is refused.


def refused(kind: type[MamegptError], run: Path, **changes: Any) -> str:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    config = dataclasses.replace(TrainConfig.load(run / "config.json"), out=str(run), **changes)
    with pytest.raises(kind) as caught:
        train(config, resume=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_other_settings_than_the_run_has_are_refused(run: Path) -> None:
    assert "other settings" in refused(CheckpointError, run, lr=1e-9)


def test_edited_settings_are_refused(run: Path) -> None:
    settings = json.loads((run / "config.json").read_text(encoding="utf-8"))
    (run / "config.json").write_text(json.dumps({**settings, "lr": 1e-9}), encoding="utf-8")
    assert "made with other settings" in refused(CheckpointError, run)


def test_other_tokens_are_refused(run: Path, config: TrainConfig) -> None:
    shutil.rmtree(run / "tokens")
    write_shards(
        run / "tokens",
        {"train": ["豆の木町に住むハナは、やさしい女の子でした。"] * 9},
        Tokenizer.load(run / "tokenizer.model"),
    )
    assert "made with other tokens" in refused(CheckpointError, run)


def test_damaged_tokens_are_refused(run: Path) -> None:
    data = bytearray((run / "tokens" / "train.bin").read_bytes())
    data[100] ^= 1
    (run / "tokens" / "train.bin").write_bytes(data)
    assert "train.bin is damaged" in refused(DataError, run)


def test_another_tokenizer_is_refused(run: Path, config: TrainConfig, tmp_path: Path) -> None:
    other = train_tokenizer(read_texts(config.data), tmp_path / "other", vocab_size=900).path
    shutil.copy(other, run / "tokenizer.model")
    assert "another tokenizer" in refused(DataError, run)
    shutil.rmtree(run / "tokens")
    write_shards(run / "tokens", {"train": read_texts(config.data)}, Tokenizer.load(other))
    assert "made with other" in refused(CheckpointError, run)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_serves(run: Path, config: TrainConfig) -> None:
    newest = run / "checkpoints" / "step-00000012"
    (newest / "model.safetensors").write_bytes(b"broken")
    message = refused(CheckpointError, run)
    assert f"{newest / 'model.safetensors'} is missing or damaged" in message and "resume_intact" in message
    train(dataclasses.replace(config, out=str(run)), resume=True, skip_damaged=True)
    assert (run / "checkpoints" / f"damaged-{newest.name}" / "model.safetensors").read_bytes() == b"broken"
    assert final_weights(run, 12) == final_weights(Path(config.out), 12)


def test_a_folder_without_a_run_cannot_go_on(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no run in .*nothing"):
        train(dataclasses.replace(config, out=str(tmp_path / "nothing")), resume=True)


def test_an_existing_folder_is_refused_and_named(run: Path, config: TrainConfig) -> None:
    before = sorted(run.rglob("*"))
    with pytest.raises(OutputError, match=r"already exists.*mamegpt train --resume"):
        train(dataclasses.replace(config, out=str(run)))
    assert sorted(run.rglob("*")) == before


def test_what_is_no_run_is_refused_without_advice_to_resume_it(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("豆", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    for name in ("s.txt", "folder"):
        with pytest.raises(OutputError, match=rf"{name} already exists; choose another out$"):
            train(dataclasses.replace(config, out=str(tmp_path / name)))


def test_a_run_does_not_begin_inside_another(run: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(run.rglob("*"))
    monkeypatch.chdir(run)
    for inside in (run / "second", run / "checkpoints" / "a" / "b", Path("second")):
        with pytest.raises(OutputError, match=f"would lie in the run {re.escape(str(run))}; choose another out"):
            train(dataclasses.replace(config, out=str(inside)))
    assert sorted(run.rglob("*")) == before


def test_an_empty_folder_is_not_in_the_way(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    train(dataclasses.replace(config, out=str(tmp_path / "run"), max_steps=1))


@pytest.mark.parametrize("resume", [True, False])
def test_two_runs_in_one_folder_are_refused(run: Path, config: TrainConfig, tmp_path: Path, resume: bool) -> None:
    folder = run if resume else tmp_path / "new"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / ".lock"), pytest.raises(OutputError, match="is being trained by another process"):
        train(dataclasses.replace(config, out=str(folder)), resume=resume)
    train(dataclasses.replace(config, out=str(folder)), resume=resume)


def test_problems_with_settings_leave_no_folder(config: TrainConfig, tmp_path: Path) -> None:
    bad = dataclasses.replace(config, out=str(tmp_path / "run"), architecture="rnn", optimizer="sgd", max_steps=0)
    with pytest.raises(ConfigError, match=r"architecture .*rnn.*optimizer .*sgd.*max_steps"):
        train(bad)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"data": "nothing.txt"}, r"nothing\.txt"),
        ({"tokenizer": "nothing.model"}, r"nothing\.model"),
        ({"context_length": 10**6}, r"one sequence needs 1000001 "),
    ],
    ids=str,
)
def test_the_corrected_command_may_use_the_same_folder(
    config: TrainConfig, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    good = dataclasses.replace(config, out=str(tmp_path / "run"))
    with pytest.raises(MamegptError, match=message):
        train(dataclasses.replace(good, **wrong))
    assert not (tmp_path / "run").exists()
    train(good)


def test_a_loss_that_is_no_number_ends_the_run(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss is nan at step \d+ .*lr \(lr is 1e\+30\)"):
        train(
            dataclasses.replace(
                config, out=str(tmp_path / "run"), optimizer="adamw", lr=1e30, warmup_fraction=0.0, max_steps=50
            )
        )
    assert list(losses(tmp_path / "run"))  # what happened before is told


def test_metrics_that_were_changed_are_refused_and_can_be_done_without(run: Path, config: TrainConfig) -> None:
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    (run / "metrics.jsonl").write_text(text.replace('"loss": ', '"loss": 1', 1), encoding="utf-8")
    shutil.rmtree(run / "checkpoints" / "step-00000012")
    assert "metrics.jsonl is damaged" in refused(CheckpointError, run)
    (run / "metrics.jsonl").unlink()
    resumed(run)
    assert final_weights(run, 12) == final_weights(Path(config.out), 12)


def bad_from(monkeypatch: pytest.MonkeyPatch, batches: range) -> None:
    """Text that no model can learn anything from: the loss of these batches is not a number."""
    plain = SummedLoss.forward
    seen = {"batch": -1}
    whole = WindowOrder.batch

    def batch(order: WindowOrder, tokens: Any, step: int, rank: int = 0, world: int = 1) -> Any:
        seen["batch"] = step
        return whole(order, tokens, step, rank, world)

    def forward(self: SummedLoss, ids: torch.Tensor, targets: torch.Tensor, *soft: Any) -> torch.Tensor:
        loss = plain(self, ids, targets, *soft)
        return loss * math.nan if seen["batch"] in batches else loss

    monkeypatch.setattr(WindowOrder, "batch", batch)
    monkeypatch.setattr(SummedLoss, "forward", forward)


def test_a_bad_batch_is_gone_back_before_and_passed_over(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad_from(monkeypatch, range(7, 8))  # the eighth step; the checkpoint before it is of step 6
    stopped = dataclasses.replace(config, out=str(tmp_path / "run"))
    with pytest.raises(TrainingError, match=r"loss is nan at step 8 \(last finite value .*on_bad_loss rollback"):
        train(stopped)
    rolled = dataclasses.replace(stopped, on_bad_loss="rollback")
    result = train(rolled, resume=True, watchers=[show_progress()])
    assert "rolling back to step 6 and skipping 3 batches" in capsys.readouterr().out  # seen when step 9 is saved
    assert (result.step, len(result.losses)) == (12, 12) and all(map(math.isfinite, result.losses))
    assert checkpoint.read_state(tmp_path / "run/checkpoints/step-00000012").skipped == 3
    assert list(losses(tmp_path / "run")) == list(range(1, 13))
    # Killed and gone on with, it passes over the same batches.
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000012")
    assert train(rolled, resume=True).losses == result.losses


@pytest.mark.parametrize("keep", [1, 2])
def test_a_checkpoint_saved_inside_a_spike_is_not_gone_back_to(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], keep: int
) -> None:
    seen = {"batch": -1}
    whole, clipped = WindowOrder.batch, trainer._clipped

    def batch(order: WindowOrder, tokens: Any, step: int, rank: int = 0, world: int = 1) -> Any:
        seen["batch"] = step
        return whole(order, tokens, step, rank, world)

    def ruined(model: Any, grad_clip: float) -> torch.Tensor:
        if seen["batch"] == 106:  # the update of step 107; 110 is saved before the fifth high loss
            with torch.no_grad():
                model.out_head.weight += 3 * torch.randn_like(model.out_head.weight)
        return clipped(model, grad_clip)

    monkeypatch.setattr(WindowOrder, "batch", batch)
    monkeypatch.setattr(trainer, "_clipped", ruined)
    rolled = dataclasses.replace(
        config,
        out=str(tmp_path / "run"),
        on_bad_loss="rollback",
        max_steps=120,
        save_every_steps=55,
        lr=1e-3,
        eval_every_steps=1000,
        keep_checkpoints=keep,
        log_every_steps=4,
        drop_rate=0.0,
    )
    result = train(rolled, watchers=[show_progress()])
    printed = capsys.readouterr().out
    assert "5 steps in a row far above" in printed and "rolling back to step 55 and skipping 57 batches" in printed
    assert printed.count("rolling back") == 1 and result.step == 120 and max(result.losses) < 8
    assert checkpoint.read_state(tmp_path / "run/checkpoints/step-00000120").skipped == 57
    # Killed after the way back and resumed, it ends with the same weights.
    weights = final_weights(tmp_path / "run", 120)
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000120")
    train(rolled, resume=True)
    assert final_weights(tmp_path / "run", 120) == weights


def test_a_run_that_is_stopped_on_its_way_back_has_the_losses_up_to_there(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad_from(monkeypatch, range(7, 8))
    steps = itertools.count(1)
    monkeypatch.setattr(trainer.processes, "any_process", lambda *_: next(steps) == 8)  # a signal, in that very step
    monkeypatch.setattr(trainer, "weights_not_finite", lambda *_: None)
    result = train(dataclasses.replace(config, out=str(tmp_path / "run"), on_bad_loss="rollback"))
    assert (result.interrupted, result.step) == (True, 6)
    assert result.losses == list(losses(Path(config.out)).values())[:6]


def test_when_other_text_does_not_help_the_run_ends(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad_from(monkeypatch, range(7, 10**6))
    always = dataclasses.replace(config, out=str(tmp_path / "run"), on_bad_loss="rollback")
    with pytest.raises(TrainingError, match=r"rolled back to .*step-00000006 3 times, each time with other data"):
        train(always)
    bad_from(monkeypatch, range(10**6))
    with pytest.raises(TrainingError, match="there is no checkpoint to roll back to"):
        train(dataclasses.replace(always, out=str(tmp_path / "other")))


# Signals.


@pytest.fixture(scope="module")
def straight(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run of 300 steps that was never stopped; no checkpoint before its end."""
    out = tmp_path_factory.mktemp("straight") / "run"
    long = dataclasses.replace(
        config,
        out=str(out),
        max_steps=300,
        log_every_steps=1,
        save_every_steps=1000,
        eval_every_steps=100,
        n_layers=1,
        ngrams=False,
    )
    train(long)
    return long


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_the_run_goes_on_from_there(straight: TrainConfig, tmp_path: Path, number: int) -> None:
    options = as_options(dataclasses.replace(straight, out="run"))
    process = start("-m", "mamegpt", "train", *options, cwd=tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 20/"):
            process.send_signal(number)
            break
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    saved = re.search(r"saved at step (\d+); resume with: mamegpt train --resume run\n", output)
    assert saved and "stopping after this step" in output, output
    assert 20 <= int(saved[1]) < 300
    assert list(losses(tmp_path / "run")) == list(range(1, int(saved[1]) + 1))
    resumed(tmp_path / "run")
    assert final_weights(tmp_path / "run", 300) == final_weights(Path(straight.out), 300)
    assert losses(tmp_path / "run") == losses(Path(straight.out))


def test_ctrl_c_in_the_middle_of_a_printed_line_is_a_request_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(io.RawIOBase):
        """A terminal on which Ctrl-C is pressed while the first line is written."""

        def __init__(self) -> None:
            self.written = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            if not self.written:
                signal.raise_signal(signal.SIGINT)
            self.written += bytes(data)
            return len(data)

    raw, others = Interrupted(), set(threading.enumerate())
    with monkeypatch.context() as patch, trainer._stop_on_signal(show_progress()) as stop:
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8"))
        print("a line", flush=True)
        assert stop.asked
        for thread in set(threading.enumerate()) - others:
            thread.join(10)
    assert raw.written == b"a line\n\nstopping after this step (once more to stop at once)\n"


def test_a_second_ctrl_c_acts_as_ever_and_the_handlers_are_put_back() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(KeyboardInterrupt), trainer._stop_on_signal(show_progress()) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        signal.raise_signal(signal.SIGINT)
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.skipif(trainer.HANGUP is None, reason="Windows sends no SIGHUP")
def test_a_terminal_that_is_closed_is_a_request_however_often_it_is_said() -> None:
    assert trainer.HANGUP is not None
    found = signal.signal(trainer.HANGUP, signal.SIG_DFL)  # this program, too, may run under nohup
    before = signal.getsignal(trainer.HANGUP)
    with trainer._stop_on_signal(show_progress()) as stop:
        for _ in range(3):  # a shell and its terminal both send one
            signal.raise_signal(trainer.HANGUP)
        assert stop.asked
    assert signal.getsignal(trainer.HANGUP) is before
    signal.signal(trainer.HANGUP, signal.SIG_IGN)  # nohup
    try:
        with trainer._stop_on_signal(show_progress()) as stop:
            signal.raise_signal(trainer.HANGUP)
            assert not stop.asked
    finally:
        signal.signal(trainer.HANGUP, found)


@pytest.mark.skipif(trainer.HANGUP is None, reason="Windows has the real one")
def test_ctrl_break_is_a_request_as_ctrl_c_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "BREAK", signal.SIGUSR1)
    before = signal.getsignal(signal.SIGUSR1)
    with trainer._stop_on_signal(show_progress()) as stop:
        signal.raise_signal(signal.SIGUSR1)
        assert stop.asked and signal.getsignal(signal.SIGUSR1) == before
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_compiled_run_goes_on_without_a_compiler_and_a_new_one_refuses(
    stories_txt: Path, stories_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    config = tiny(stories_txt, stories_model, tmp_path / "run", compile="true", max_steps=2)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", lambda function, **_: function)
        train(config)

    def failing(*_: object, **__: object) -> list[float]:
        raise BackendCompilerFailed("inductor", RuntimeError("no Python.h"), None)

    monkeypatch.setattr(Probe, "seconds_per_step", failing)
    events: list[Event] = []
    assert train(config, resume=True, more_steps=2, watchers=[events.append]).step == 4
    assert [type(event) for event in events].count(CompileFailed) == 1
    assert Run(tmp_path / "run").config.compile == "true"  # where there is a compiler again, it is used again
    with pytest.raises(ConfigError, match=r"compile true does not work here \(no Python.h\)"):
        train(dataclasses.replace(config, out=str(tmp_path / "new")))


# Output that cannot be written.


WRITE_ERRORS = [errno.EPIPE, errno.ENOSPC, errno.EIO]


class Failing(io.StringIO):
    """Output that takes some writes and then none."""

    def __init__(self, number: int, n_writes: int, is_terminal: bool) -> None:
        super().__init__()
        self.number, self.n_writes, self.is_terminal = number, n_writes, is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    def write(self, text: str) -> int:
        self.n_writes -= 1
        if self.n_writes < 0:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("n_writes", [0, 6])
@pytest.mark.parametrize("number", WRITE_ERRORS)
def test_output_that_cannot_be_written_stops_no_training(
    config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    n_writes: int,
    is_terminal: bool,
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TERM", "xterm")
        patch.setattr(sys, "stdout", Failing(number, n_writes, is_terminal))
        words = as_options(dataclasses.replace(config, out=str(tmp_path / "run")))
        with pytest.raises(SystemExit) as end:
            main(["train", *words])
    assert end.value.code == 0
    assert final_weights(tmp_path / "run", 12) == final_weights(Path(config.out), 12)
    said = f"warning: standard output cannot be written ({os.strerror(number)}); continuing without it\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("number", WRITE_ERRORS)
def test_neither_do_output_and_errors_that_cannot_be_written(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(sys, "stderr", Failing(number, 0, False))
    monkeypatch.setattr(sys, "stdout", Failing(number, 0, False))
    assert train(dataclasses.replace(config, out=str(tmp_path / "run")), watchers=[show_progress()]).step == 12


def test_an_interrupt_while_a_logger_ends_ends_that_logger_alone(config: TrainConfig, tmp_path: Path) -> None:
    ended: list[str] = []

    def uploading(event: Event) -> None:
        if isinstance(event, Ended):
            raise KeyboardInterrupt

    result = train(
        dataclasses.replace(config, out=str(tmp_path / "run")),
        watchers=(uploading, lambda event: ended.append("view") if isinstance(event, Ended) else None),
    )
    assert (result.step, result.interrupted, ended) == (12, False, ["view"])


def test_a_watcher_that_cannot_write_ends_alone(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[str] = []

    def full(event: Event) -> None:
        if isinstance(event, StepEvent | Ended):
            heard.append(type(event).__name__)
            name = "page.html" if isinstance(event, StepEvent) else "last.html"
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    steps: list[int] = []
    other = json_lines(lambda facts: steps.append(facts["step"]))
    result = train(dataclasses.replace(config, out=str(tmp_path / "run")), watchers=(full, other))
    assert (result.step, heard, steps[-1]) == (12, ["StepEvent", "Ended"], 12)
    assert final_weights(tmp_path / "run", 12) == final_weights(Path(config.out), 12)
    printed = capsys.readouterr().out
    assert all(f"warning: {name} cannot be written (No space left" in printed for name in ("page.html", "last.html"))
