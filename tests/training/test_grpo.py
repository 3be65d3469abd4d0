"""GRPO: loss and gradient equal to TRL's, rewards, exact resume, and code of the user that runs only if it is named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from command import Mame
from little import ROOT
from safetensors.torch import load_file

from mamegpt.data.conversations import PreferenceReader, QuestionReader
from mamegpt.data.dialogues import write_dialogues
from mamegpt.errors import CheckpointError, ConfigError, TrainingError
from mamegpt.exporting.model_card import Facts
from mamegpt.pretrained import load
from mamegpt.report.page import page
from mamegpt.report.run import ReportRun
from mamegpt.run.run import Run
from mamegpt.training.grpo import GRPOLoss, advantages
from mamegpt.training.rewards import REWARDS, load_reward, morae
from mamegpt.training.trainer import train
from mamegpt.training.tune import tune

GOLDEN = ROOT / "tests" / "golden"
ROWS = torch.tensor([[2, 300, 310, 320, 330], [2, 300, 310, 321, 2], [2, 301, 311, 0, 0], [2, 301, 312, 322, 0]])
ANSWERS = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0]])
"""Those of tests/golden/tuning.py."""
TINY: dict[str, Any] = {
    "task": "grpo",
    "reward": "hiragana",
    "batch_size": 4,
    "group_size": 3,
    "answer_tokens": 4,
    "max_steps": 4,
    "eval_every_steps": 2,
    "save_every_steps": 2,
    "val_fraction": 0.2,
    "precision": "fp32",
    "engine": "torch",
    "device": "cpu",
    "keep_checkpoints": 9,
    "kl_beta": 0.05,
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_dialogues(tmp_path / "questions.jsonl", 60, seed=1)
    return tmp_path / "questions.jsonl"


def test_advantages_are_standard_scores_in_a_group() -> None:
    found = advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5]]))
    spread = (4 * 0.25 / 3) ** 0.5 + 1e-4  # of a sample, as TRL has it
    torch.testing.assert_close(found[0], torch.tensor([0.5, -0.5, -0.5, 0.5]) / spread)
    assert found[1].tolist() == [0.0] * 4


@pytest.mark.parametrize("kl_beta", [0.0, 0.3])
def test_loss_and_gradient_are_those_of_trl(kl_beta: float) -> None:
    golden = load_file(GOLDEN / "tuning.safetensors")
    inputs, targets = ROWS[:, :-1], ROWS[:, 1:]
    learned = ANSWERS[:, 1:].flatten().nonzero().squeeze(1)
    model, reference = (load(GOLDEN / "mame", device="cpu").model for _ in range(2))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.sin(torch.arange(p.numel()).float()).view_as(p) / 20)
    worth = advantages(torch.tensor([[1.0, 0.0], [0.2, 0.7]])).flatten()
    loss = GRPOLoss(model, "fp32")
    loss.reference, loss.kl_beta = reference, kl_beta
    found = loss(inputs, targets.flatten()[learned], learned=learned, of_rows=worth) / len(learned)
    found.backward()
    assert model.out_head.weight.grad is not None

    # The same from the definition: probabilities of whole rows, one token after another.
    expected = torch.zeros(())
    with torch.no_grad():
        logits, before = model(inputs).log_softmax(-1), reference(inputs).log_softmax(-1)
    for row, place in ANSWERS[:, 1:].nonzero().tolist():
        token = targets[row, place]
        gain = before[row, place, token] - logits[row, place, token]
        expected += -worth[row] + kl_beta * (gain.exp() - gain - 1)
    torch.testing.assert_close(found.detach(), expected / ANSWERS.sum())
    torch.testing.assert_close(found.detach(), golden[f"grpo|{kl_beta}|loss"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.out_head.weight.grad, golden[f"grpo|{kl_beta}|gradient"], rtol=1e-3, atol=1e-6)


def test_a_run_resumes_bitwise_without_the_model_that_it_starts_from(tuned: Path, data: Path, tmp_path: Path) -> None:
    start = shutil.copytree(tuned, tmp_path / "start")
    straight = tune(start, data, tmp_path / "a", **TINY)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(start)
    last = Path("checkpoints", "step-00000004")
    shutil.rmtree(tmp_path / "b" / last)
    config = dataclasses.replace(Run(tmp_path / "b").config, out=str(tmp_path / "b"))
    resumed = train(config, resume=True)
    assert resumed.losses == straight.losses
    assert (tmp_path / "a" / last / "model.safetensors").read_bytes() == (
        tmp_path / "b" / last / "model.safetensors"
    ).read_bytes()
    run = Run(tmp_path / "a")
    steps, quality = run.steps, run.quality
    assert all(0 <= step["reward"] <= 1 and 1 <= step["answer_tokens"] <= 4 for step in steps)
    assert [step["reward"] for step in Run(tmp_path / "b").steps] == [step["reward"] for step in steps]
    assert quality and quality.reward is not None and quality.kl is not None and quality.kl > 0
    assert quality.loss == pytest.approx(0.05 * quality.kl - quality.reward)
    rows = " ".join(value for _, _, value in Facts(config=run.config, quality=quality, step=4).rows())
    assert "GRPO(報酬 hiragana" in rows and "4 問 × 3 個の答え" in rows and "報酬の平均" in rows
    assert "会話" not in rows and "文字" not in rows
    report = page([ReportRun(tmp_path / "a")], [], datetime(2026, 1, 1))
    assert "KL divergence" in report and " questions, float32" in report and "Different answers" in report
    assert "Bits per character" not in report and "Loss (nats" not in report

    (tmp_path / "b" / "reference.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="reference"):
        train(config, resume=True)


def test_rewards() -> None:
    names = {"right", "hiragana", "haiku", "desu"}
    assert set(REWARDS) == names
    help_ = (ROOT / "mamegpt" / "config.py").read_text(encoding="utf-8").split("GRPO: how answers are rewarded")[1]
    assert all(f"{name} (" in help_.split('"""')[0] for name in names)
    assert [morae(text) for text in ("きょう", "がっこう", "ラーメン", "しんぶん")] == [2, 4, 4, 4]
    assert morae("山") == float("inf")
    haiku = REWARDS["haiku"]
    assert haiku("", "ふるいけや かわずとびこむ みずのおと", "") == 1.0
    assert haiku("", "ふるいけや、かわずとびこむ", "") == pytest.approx(12 / 17)
    assert haiku("", "古池や", "") == haiku("", "", "") == 0.0
    assert REWARDS["hiragana"]("", "はい、春。", "") == pytest.approx(2 / 3)
    assert REWARDS["desu"]("", "春です。", "") == 1.0 and REWARDS["desu"]("", "春", "") == 0.0
    assert REWARDS["right"]("", "春です。", "春です。") == 1.0 and REWARDS["right"]("", "夏です。", "春です。") == 0.0
    story = "ユイは本を読みました。つづきを一文で書いてください。「笛」という言葉を使ってください"
    assert REWARDS["right"](story, "ユイは笛を拾いました。", "ユイは笛を見つけました。") == 1.0
    assert REWARDS["right"](story, "ユイは鈴を拾いました。", "ユイは笛を見つけました。") == 0.0


def test_code_of_the_user_runs_only_if_it_is_named(tuned: Path, data: Path, mame: Mame, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("def score(question, answer, expected):\n    return len(answer) / (1 + len(expected))\n")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name != "reward"]
    reward = f"{file}:score"
    out = tmp_path / "run"
    assert mame("tune", "--model", tuned, "--data", data, "--out", out, *options, "--reward", reward)[0] == 0
    shutil.rmtree(out / "checkpoints" / "step-00000004")
    code, _, error = mame("train", "--resume", out)
    assert code == 2 and "own.py:score is Python code" in error
    assert mame("train", "--resume", out, "--reward", reward)[0] == 0
    assert tune(tuned, data, tmp_path / "api", **{**TINY, "reward": lambda _q, answer, _e: len(answer)}).step == 4

    for name, text, problem in (
        (f"{tmp_path / 'none.py'}:f", None, "cannot be run"),
        (f"{file}:other", None, "no function other"),
        ("hiragna", None, "right, hiragana, haiku, desu or FILE.py:FUNCTION"),
        (reward, "1 / 0", "division by zero"),
        (reward, "def score(*_): return 'many'", "the reward failed"),
        (reward, "def score(*_): return float('nan')", "must be a finite number"),
    ):
        if text:
            file.write_text(text)
        with pytest.raises((ConfigError, TrainingError), match=problem):
            tune(tuned, data, tmp_path / "no", **{**TINY, "reward": name})
            load_reward(name)
        shutil.rmtree(tmp_path / "no", ignore_errors=True)


def test_settings_without_use_and_models_that_never_answered_are_refused(
    little: Any, tuned: Path, data: Path, tmp_path: Path
) -> None:
    wrong = {**TINY, "reward": "", "group_size": 1, "answer_tokens": 99, "kl_beta": -1.0}
    with pytest.raises(ConfigError, match=r"needs a reward.*group_size.*answer_tokens.*kl_beta"):
        tune(tuned, data, tmp_path / "run", **wrong)
    for task, settings in (("grpo", TINY), ("dpo", {"task": "dpo"})):
        with pytest.raises(ConfigError, match=f"task {task} needs a model that answers"):
            tune(little.run, data, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_questions_and_pairs_are_read_as_trl_has_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    asked, said = [{"role": "user", "content": "豆"}], [{"role": "assistant", "content": "春"}]
    other = [{"role": "assistant", "content": "秋"}]

    def read(kind: Any, *rows: Any) -> list[list[str]]:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        reader = kind(str(path))
        found = [[message.content for message in conversation] for conversation in reader]
        return [*found, [f"{reason} {n}" for reason, n in reader.dropped.items()]]

    pair = [["豆", "春"], ["豆", "秋"], []]
    assert read(PreferenceReader, {"prompt": asked, "chosen": said, "rejected": other}) == pair
    assert read(PreferenceReader, {"chosen": asked + said, "rejected": asked + other}) == pair
    assert read(PreferenceReader, {"prompt": "豆", "chosen": said, "rejected": other}) == pair
    assert read(PreferenceReader, {"prompt": "豆", "chosen": asked + said, "rejected": asked + other}) == pair
    assert read(PreferenceReader, {"prompt": asked, "chosen": "春", "rejected": other}) == [["not text 1"]]
    assert read(QuestionReader, {"prompt": asked}, {"prompt": "山"}, {"prompt": ""}) == [
        ["豆", ""],
        ["山", ""],
        ["empty question 1"],
    ]
    assert read(QuestionReader, {"prompt": "豆", "response": "春"}) == [["豆", "春"], []]
