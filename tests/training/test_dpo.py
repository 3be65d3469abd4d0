"""DPO: loss and gradient equal to TRL's, pairs stay together, exact resume without the model that a run starts from."""

from __future__ import annotations

import dataclasses
import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Mame
from little import ROOT
from safetensors.torch import load_file

from mamegpt.data.conversations import PreferenceReader
from mamegpt.data.dialogues import write_preferences
from mamegpt.distributed.processes import World
from mamegpt.errors import CheckpointError, ConfigError, DataError
from mamegpt.exporting.model_card import Facts
from mamegpt.pretrained import load
from mamegpt.report.page import page
from mamegpt.report.run import ReportRun
from mamegpt.run.run import Run
from mamegpt.tokenizer.chat import chat_ids
from mamegpt.training.conversations import pairs_of
from mamegpt.training.dpo import DPOLoss, answer_log_probabilities, log_probabilities
from mamegpt.training.events import ConversationsRead, Event
from mamegpt.training.trainer import train
from mamegpt.training.tune import tune

GOLDEN = ROOT / "tests" / "golden"
PAIRS = torch.tensor([[2, 300, 310, 320, 330], [2, 300, 310, 321, 2], [2, 301, 311, 0, 0], [2, 301, 312, 322, 0]])
ANSWERS = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0]])
"""Those of tests/golden/tuning.py; here the two of a pair follow each other."""
# fmt: off
TINY: dict[str, Any] = {
    "task": "dpo", "batch_size": 8, "max_steps": 4, "eval_every_steps": 2, "save_every_steps": 2, "val_fraction": 0.2,
    "precision": "fp32", "engine": "torch", "device": "cpu", "keep_checkpoints": 9,
}
# fmt: on


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_preferences(tmp_path / "pairs.jsonl", 60, seed=1)
    return tmp_path / "pairs.jsonl"


def test_loss_and_gradient_are_those_of_trl() -> None:
    golden = load_file(GOLDEN / "tuning.safetensors")
    inputs, targets = PAIRS[:, :-1], PAIRS[:, 1:]
    learned = ANSWERS[:, 1:].flatten().nonzero().squeeze(1)
    model, reference = (load(GOLDEN / "mame", device="cpu").model for _ in range(2))
    with torch.no_grad():
        states = reference.hidden(inputs).flatten(0, 1)[learned]
        before = answer_log_probabilities(
            states, reference.out_head.weight, targets.flatten()[learned], learned // inputs.shape[1], len(PAIRS)
        )
        for p in model.parameters():
            p.add_(torch.sin(torch.arange(p.numel()).float()).view_as(p) / 20)
    loss = DPOLoss(model, "fp32")
    loss.reference, loss.beta = before, 0.3
    found = loss(inputs, targets.flatten()[learned], learned=learned, of_rows=torch.arange(4)) / 2
    torch.testing.assert_close(found, golden["dpo|loss"])
    found.backward()
    torch.testing.assert_close(model.out_head.weight.grad, golden["dpo|gradient"], rtol=1e-3, atol=1e-6)


def test_a_run_resumes_bitwise_without_the_model_that_it_starts_from(tuned: Path, data: Path, tmp_path: Path) -> None:
    start = shutil.copytree(tuned, tmp_path / "start")
    events: list[Event] = []
    straight = tune(start, data, tmp_path / "a", **TINY, watchers=[events.append])
    (read,) = [event for event in events if isinstance(event, ConversationsRead)]
    assert read.are_pairs and sum(read.n_rows.values()) + sum(read.dropped.values()) == 60  # pairs, not answers
    assert straight.losses[0] == pytest.approx(np.log(2))  # the model is the reference
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
    quality = Run(tmp_path / "a").quality
    assert quality and quality.accuracy is not None and quality.margin is not None
    assert load(tmp_path / "a", device="cpu").answers
    rows = " ".join(value for _, _, value in Facts(config=Run(tmp_path / "a").config, quality=quality, step=4).rows())
    assert "DPO(β 0.1)" in rows and " 組、" in rows and "報酬の差" in rows
    assert "会話" not in rows and "文字" not in rows
    report = page([ReportRun(tmp_path / "a")], [], datetime(2026, 1, 1))
    assert "Reward margin" in report and " pairs, float32" in report
    assert "Bits per character" not in report and "characters, float32" not in report

    (tmp_path / "b" / "reference.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="reference"):
        train(config, resume=True)


def test_the_reference_is_what_the_start_model_thinks_of_each_answer(tuned: Path, data: Path, tmp_path: Path) -> None:
    run = Run(tune(tuned, data, tmp_path / "run", **(TINY | {"max_steps": 1})).out)
    tokens = run.tokens()
    assert tokens
    pairs = pairs_of(tokens[1]["train"], run.tokenizer)
    loaded, reference = load(tuned, device="cpu"), load_file(run.folder / "reference.safetensors")["train"]
    assert len(pairs) == len(reference) and len(pairs) % 2 == 0
    found = log_probabilities(loaded.model, pairs, np.arange(len(pairs)), World(0, 1, torch.device("cpu")), None)
    torch.testing.assert_close(found, reference)
    n = int(pairs.lengths[0] - pairs.n_targets[0])
    ids = [int(one) for one in pairs.tokens[pairs.begins[0] : pairs.begins[0] + pairs.lengths[0] + 1]]
    with torch.no_grad():
        logits = loaded.model(torch.tensor([ids[:-1]]))[0].log_softmax(-1)
    expected = logits[torch.arange(len(ids) - 1), torch.tensor(ids[1:])][n:].sum()
    assert ids[: n + 1][-1] == chat_ids(run.tokenizer, [])[-1]  # then the answer begins
    torch.testing.assert_close(reference[0], expected)


def test_rows_that_are_no_pair_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows: list[Any] = [{"prompt": "豆", "chosen": "春", "rejected": "秋"}, {"prompt": "豆", "chosen": "春"}]
    rows += [{"prompt": "豆", "chosen": "春", "rejected": " 春"}, {"prompt": "豆", "chosen": "", "rejected": "秋"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    reader = PreferenceReader(str(path))
    assert [conversation[1].content for conversation in reader] == ["春", "秋"]
    assert dict(reader.dropped) == {"not text": 1, "equal answers": 1, "empty answer": 1}
    path.write_text(json.dumps({"prompt": "豆", "response": "春"}), encoding="utf-8")
    with pytest.raises(DataError, match="rename them to one of these: prompt, chosen, rejected"):
        list(PreferenceReader(str(path)))


def test_wrong_answers_are_wrong_and_settings_without_use_are_refused(
    data: Path, tuned: Path, mame: Mame, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 60 and all(row["chosen"] != row["rejected"] for row in rows)
    assert mame("dialogues", "--pairs", "--out", tmp_path / "again.jsonl", "--n", 60, "--seed", 1)[0] == 0
    assert (tmp_path / "again.jsonl").read_bytes() == data.read_bytes()
    with pytest.raises(ConfigError, match=r"text_share must be 0 with task dpo.*dpo_beta must be above 0"):
        tune(tuned, data, tmp_path / "run", task="dpo", text_share=0.1, dpo_beta=0.0)
    assert not (tmp_path / "run").exists()
