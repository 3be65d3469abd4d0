"""Tuning a model to classify: the objective, exact resume, what is counted, and where a classifier is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command import Mame
from little import LABELLED, Little, random_model, sizes_for

from mamegpt.config import TuneConfig
from mamegpt.data.conversation_order import ConversationOrder, LabelledTexts, label_token
from mamegpt.data.labelled import LabelledText, sorted_labels
from mamegpt.errors import ConfigError, DataError, ModelError
from mamegpt.evaluation.classification import kept_confusion, measure_held_out, measure_texts
from mamegpt.models.base import replace_head
from mamegpt.models.registry import ARCHITECTURES
from mamegpt.pretrained import load, load_classifier
from mamegpt.run.run import Run
from mamegpt.training.batches import ConversationBatches
from mamegpt.training.events import Event, LabelledTextsRead
from mamegpt.training.forward import SummedLoss
from mamegpt.training.init_from import tuned_config
from mamegpt.training.trainer import train

# fmt: off
TINY: dict[str, Any] = {
    "task": "classify", "batch_size": 8, "max_steps": 8, "eval_every_steps": 4, "save_every_steps": 2,
    "log_every_steps": 4, "val_fraction": 0.2, "precision": "fp32", "engine": "torch", "device": "cpu",
}
# fmt: on
TEXTS = [LabelledText(*pair) for pair in LABELLED]


@pytest.fixture
def data(classifier_run: Path) -> Path:
    return classifier_run.with_name("texts.jsonl")


def settings(model: Path, data: Path, out: Path, **changed: Any) -> TuneConfig:
    given = {**TINY, **changed}
    return tuned_config(TuneConfig(init_from=str(model), data=str(data), out=str(out), **given), given.keys())


def test_labels_are_in_the_order_of_numbers_or_of_strings() -> None:
    assert sorted_labels(["10", "9", "-1", "9"]) == ("-1", "9", "10")
    assert sorted_labels(["b", "10", "9"]) == ("10", "9", "b")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_loss_of_a_step_is_the_mean_over_labels_of_the_last_tokens(little: Little, architecture: str) -> None:
    eos_id = little.tokenizer.eos_id
    assert eos_id is not None
    rows, n_labels = [little.tokenizer.encode(text) for text, _ in TEXTS], eos_id + 3  # so that one label is eos_id
    labels = [i % n_labels for i in range(len(rows))]
    tokens = [
        token for ids, label in zip(rows, labels, strict=True) for token in [*ids, label_token(label, eos_id), eos_id]
    ]
    texts = LabelledTexts(np.array(tokens, np.uint16), eos_id)
    assert texts.labels.tolist() == labels and texts.lengths.tolist() == list(map(len, rows))
    batches = ConversationBatches(texts, ConversationOrder(len(texts), 8, seed=1), 3)
    model = random_model(sizes_for(little.tokenizer), architecture=architecture)
    replace_head(model, n_labels)
    torch.nn.init.normal_(model.out_head.weight)
    summed, found = SummedLoss(model, "fp32"), 0.0
    with torch.no_grad():
        for one in batches.passes(2, 0, 1):
            inputs, targets, learned = (torch.from_numpy(it) for it in (one.inputs, one.targets, one.learned))
            found += summed(inputs, targets, learned=learned).item() / one.divisor
        expected = [
            F.cross_entropy(model(torch.tensor([rows[i]]))[0, -1], torch.tensor(labels[i]))
            for i in batches.order.conversations(2)
        ]
    assert found == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def test_a_run_that_was_stopped_ends_bitwise_as_one_that_never_was(classifier_run: Path, tmp_path: Path) -> None:
    shutil.copytree(classifier_run, tmp_path / "b")
    for step in (8, 6):
        shutil.rmtree(tmp_path / "b" / "checkpoints" / f"step-{step:08d}", ignore_errors=True)
    resumed = train(dataclasses.replace(Run(classifier_run).config, out=str(tmp_path / "b")), resume=True)
    last = Path("checkpoints", "step-00000008", "model.safetensors")
    assert (classifier_run / last).read_bytes() == (tmp_path / "b" / last).read_bytes()
    assert resumed.losses == [step["loss"] for step in Run(classifier_run).steps]
    assert resumed.losses[0] == pytest.approx(np.log(2))  # a head of zeros
    quality = Run(classifier_run).quality
    assert quality and quality.accuracy is not None and "accuracy" in Run(classifier_run).metrics[-1]["quality"]


def test_what_validation_finds_is_what_the_classifier_finds(classifier_run: Path, data: Path) -> None:
    classifier, run = load_classifier(classifier_run), Run(classifier_run)
    assert classifier.labels == run.labels == ("春", "秋")
    confusion = measure_held_out(classifier, run)
    assert confusion and run.quality and confusion.accuracy.share == pytest.approx(run.quality.accuracy)
    assert kept_confusion(run, Path(classifier.origin)) == confusion
    whole = measure_texts(classifier, TEXTS)
    found = [one.label for one in classifier.classify([text for text, _ in TEXTS])]
    right = sum(a == label for a, (_, label) in zip(found, TEXTS, strict=True))
    assert whole.n == len(TEXTS) and whole.accuracy.share * whole.n == pytest.approx(right)
    assert whole.baseline[0] == "春" and whole.baseline[1].share == pytest.approx(26 / 40)
    alone = [classifier.classify(text)[0].probabilities["春"] for text, _ in TEXTS[:9]]  # batches change nothing
    assert alone == pytest.approx([one.probabilities["春"] for one in classifier.classify([t for t, _ in TEXTS[:9]])])
    with pytest.raises(DataError, match="冬"):
        measure_texts(classifier, [LabelledText("豆", "冬")], "x")
    with pytest.raises(ConfigError, match="empty"):
        classifier.classify(" ")


def test_rows_without_text_or_label_are_counted_and_long_texts_cut(little: Little, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows: list[Any] = [{"text": "豆" * 99, "label": True}, {"text": "豆", "label": 0}, {"text": "木", "label": 1}]
    rows += [{"text": " ", "label": 1}, {"text": "木", "label": None}, {"text": 3, "label": 1}, [1]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    events: list[Event] = []
    train(settings(little.run, path, tmp_path / "run", max_steps=1, val_fraction=0.0), watchers=[events.append])
    (read,) = [event for event in events if isinstance(event, LabelledTextsRead)]
    assert read.labels == {"0": 1, "1": 1, "True": 1} and read.n_cut == 1
    assert read.dropped == {"empty text": 1, "no label": 1, "not text": 1, "not an object with columns": 1}
    path.write_text('{"text": "豆", "label": 1}\n{"text": "", "label": 2}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"1 labels; .*empty text 1"):
        train(settings(little.run, path, tmp_path / "other"))
    path.write_text('{"prompt": "豆", "response": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match="lacks the columns text and label"):
        train(settings(little.run, path, tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_a_classifier_generates_nothing_and_a_generator_has_no_labels(little: Little, classifier_run: Path) -> None:
    with pytest.raises(ModelError, match="mamegpt classify"):
        load(classifier_run)
    with pytest.raises(ModelError, match="--task classify"):
        load_classifier(little.run)
    with pytest.raises(ConfigError, match="text_share must be 0"):
        TuneConfig(data="a", tokenizer="b", out="c", task="classify", text_share=0.1).validate()


def test_the_command_measures_and_classifies(mame: Mame, classifier_run: Path, data: Path, tmp_path: Path) -> None:
    def printed(*words: object) -> str:
        code, out, err = mame("classify", "--model", classifier_run, *words)
        assert code == 0, err
        return out

    found = json.loads(printed("--json"))
    assert found["labels"] == ["春", "秋"] and found["n"] == sum(map(sum, found["counts"])) < len(TEXTS)
    table = printed("--data", data, "--split", "train")
    assert "accuracy: " in table and "if all were given the label 春" in table
    assert "probability" in printed("--text", TEXTS[0].text)
    (tmp_path / "texts.txt").write_text("豆\n雨\n", encoding="utf-8")
    lines = printed("--texts", tmp_path / "texts.txt").splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["豆", "雨"]
    code, _, err = mame("classify", "--model", classifier_run, "--text", "a", "--data", data)
    assert code == 2 and "give one of --text, --texts and --data" in err
