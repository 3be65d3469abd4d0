"""A classifier as an exported folder: equal in transformers for each architecture, loaded again here, and its card."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from little import Little, random_model, sizes_for

from mamegpt.cli.render.models import check_table
from mamegpt.errors import ConfigError, ExportError, ModelError
from mamegpt.evaluation.classification import measure_held_out
from mamegpt.exporting import classifier as exporting
from mamegpt.exporting.publish import export
from mamegpt.models.base import replace_head
from mamegpt.models.classifier import Classifier
from mamegpt.models.registry import ARCHITECTURES
from mamegpt.playground.catalog import entries
from mamegpt.pretrained import load, load_classifier
from mamegpt.run.run import Run

pytestmark = pytest.mark.usefixtures("warm_exports")

TEXTS = ["豆のスープはおいしかった。", "雨", "𠮷野家へ行った。" * 9]
LABELS = ("良い", "悪い", "どちらも")


def classifier_of(little: Little, architecture: str) -> Classifier:
    sizes = sizes_for(little.tokenizer)
    model = random_model(sizes, architecture=architecture)
    replace_head(model, len(LABELS))
    torch.nn.init.normal_(model.out_head.weight)
    return Classifier(model.eval(), little.tokenizer, sizes, architecture, "a model in memory", LABELS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folder_is_verified_and_loads_as_the_same_classifier(
    little: Little, architecture: str, tmp_path: Path
) -> None:
    own = classifier_of(little, architecture)
    report = export(own, tmp_path / "out", n_sentences=60)
    assert all(check.passed for check in report.checks["hf"]), check_table(report.checks["hf"])
    again = load_classifier(report.out)
    assert again.labels == LABELS
    for a, b in zip(own.classify(TEXTS), again.classify(TEXTS), strict=True):
        assert a.label == b.label and a.probabilities == pytest.approx(b.probabilities, abs=1e-6)
    config = json.loads((report.out / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"][0].endswith("ForSequenceClassification")
    card = (report.out / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: text-classification" in card and "ラベルは 良い、悪い、どちらも" in card
    with pytest.raises(ModelError, match="mamegpt classify"):
        load(report.out)
    config["id2label"] = {"0": "良い", "2": "悪い"}
    (report.out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="id2label"):
        load_classifier(report.out)


def test_the_playground_lists_nothing_that_classifies(little: Little, classifier_run: Path, tmp_path: Path) -> None:
    export(classifier_of(little, "qwen3"), tmp_path / "labels", n_sentences=8)
    shutil.copytree(little.exported, tmp_path / "text")
    assert [entry.name for entry in entries([str(tmp_path)])] == [str(tmp_path / "text")]
    for one in (tmp_path / "labels", classifier_run, Run(classifier_run).checkpoints()[-1].path):
        with pytest.raises(ModelError, match=f"{one} classifies texts and generates none; use mamegpt classify"):
            entries([str(one)])


def test_the_card_of_a_run_says_how_it_was_tuned_and_how_often_it_is_right(
    classifier_run: Path, tmp_path: Path
) -> None:
    measure_held_out(load_classifier(classifier_run), Run(classifier_run))
    card = (export(classifier_run, tmp_path / "out", n_sentences=20).out / "README.md").read_text(encoding="utf-8")
    assert "既存のモデルをラベル付きのテキストでチューニングした" in card and "正解率 / accuracy" in card
    assert "最後のトークンに分類の出力層" in card and "生成例" not in card and "ビット/文字" not in card


def test_what_is_no_folder_for_transformers_is_refused(little: Little, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="to gguf is not for"):
        export(classifier_of(little, "qwen3"), tmp_path / "out", to="gguf")
    assert not (tmp_path / "out").exists()


def test_another_head_fails_the_export(little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = classifier_of(little, "qwen3")
    write = exporting.write_hf

    def damaged(folder: Path, model: torch.nn.Module, *rest: object, **options: object) -> None:
        with torch.no_grad():
            model.out_head.weight.mul_(1.01)  # type: ignore[union-attr,operator]
        write(folder, model, *rest, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            model.out_head.weight.div_(1.01)  # type: ignore[union-attr,operator]

    monkeypatch.setattr(exporting, "write_hf", damaged)
    with pytest.raises(ExportError, match="max difference"):
        export(dataclasses.replace(own), tmp_path / "out", n_sentences=20)
    assert not (tmp_path / "out").exists()
