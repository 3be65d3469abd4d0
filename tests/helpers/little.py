"""A text, its tokenizer, a run of a few steps, its weights and its exported folder: all made once a session."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # tests of other things need not wait for torch and transformers
    from mamegpt.config import ModelConfig
    from mamegpt.exporting.export import ExportReport
    from mamegpt.models.base import LanguageModel
    from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = [
    "LABELLED",
    "N_SENTENCES",
    "ROOT",
    "Little",
    "classifier_run",
    "export_here",
    "folder_of",
    "little",
    "prompt_whose_place_matters",
    "random_model",
    "run_mamegpt",
    "run_script",
    "sizes_for",
    "tuned",
]

ROOT = Path(__file__).resolve().parents[2]
VOCAB_SIZE = 1000
CONTEXT_LENGTH = 32
N_SENTENCES = 500  # 20,000 take a second or two in every export


@dataclass(frozen=True)
class Little:
    """Paths of what was made; tests copy what they want to change."""

    text: Path
    spm: Path
    run: Path
    weights: Path
    exported: Path
    report: ExportReport
    tokenizer: Tokenizer
    sizes: ModelConfig
    printed: str = ""
    """What was printed meanwhile."""


@pytest.fixture(scope="session")
def little(tmp_path_factory: pytest.TempPathFactory) -> Little:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        made = _make(tmp_path_factory.mktemp("little"))
    return replace(made, printed=printed.getvalue())


def _make(folder: Path) -> Little:
    import torch

    from mamegpt.config import TrainConfig
    from mamegpt.data.stories import stories
    from mamegpt.exporting.publish import export_weights
    from mamegpt.run import checkpoint
    from mamegpt.run.run import Run
    from mamegpt.text.articles import format_article
    from mamegpt.tokenizer.tokenizer import Tokenizer, train_tokenizer
    from mamegpt.training.trainer import train

    text = folder / "stories.txt"
    texts = [format_article(title, story) for title, story in stories(seed=1, n=120)]
    text.write_text("".join(texts), encoding="utf-8", newline="\n")
    # Stories hold no space, and the tokenizer is to have a piece for it.
    spm = train_tokenizer([*texts, "豆 の 木"], folder / "jp_tok_wiki", vocab_size=VOCAB_SIZE).path
    config = TrainConfig(
        data=str(text),
        tokenizer=str(spm),
        out=str(folder / "run"),
        architecture="custom-gpt",
        emb_dim=32,
        context_length=CONTEXT_LENGTH,
        n_layers=2,
        n_heads=4,
        batch_size=4,
        max_steps=12,
        device="cpu",
        val_fraction=0.1,
    )
    run = train(config).out
    newest = Run(run).latest()
    assert newest is not None
    weights = folder / "model.pth"
    torch.save(checkpoint.read_model(newest.path), weights)
    report = export_weights(weights, spm, folder / "exported", n_sentences=N_SENTENCES)
    sizes = config.model(VOCAB_SIZE)
    return Little(text, spm, run, weights, report.out, report, Tokenizer.load(spm), sizes)


@pytest.fixture(scope="session")
def tuned(little: Little, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `little`, tuned for two steps."""
    from mamegpt.config import TuneConfig
    from mamegpt.data.dialogues import write_dialogues
    from mamegpt.training.init_from import tuned_config
    from mamegpt.training.trainer import train

    folder = tmp_path_factory.mktemp("tuned")
    write_dialogues(folder / "pairs.jsonl", 60, seed=1)
    config = TuneConfig(
        init_from=str(little.run),
        data=str(folder / "pairs.jsonl"),
        out=str(folder / "run"),
        max_steps=2,
        batch_size=4,
        val_fraction=0.0,
        device="cpu",
        precision="fp32",
        engine="torch",
    )
    return train(tuned_config(config, {"max_steps"})).out


LABELLED = [(f"豆{'の' * (i % 5)}{i}", "春" if i % 3 else "秋") for i in range(40)]
"""Texts with labels."""


@pytest.fixture(scope="session")
def classifier_run(little: Little, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `little`, tuned for eight steps to classify `LABELLED`, which are in a file beside it."""
    from mamegpt.config import TuneConfig
    from mamegpt.training.init_from import tuned_config
    from mamegpt.training.trainer import train

    folder = tmp_path_factory.mktemp("classifier")
    rows = [json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in LABELLED]
    (folder / "texts.jsonl").write_text("".join(rows), encoding="utf-8")
    config = TuneConfig(
        task="classify",
        init_from=str(little.run),
        data=str(folder / "texts.jsonl"),
        out=str(folder / "run"),
        max_steps=8,
        batch_size=8,
        eval_every_steps=4,
        save_every_steps=2,
        val_fraction=0.2,
        device="cpu",
        precision="fp32",
        engine="torch",
    )
    return train(tuned_config(config, {"max_steps", "val_fraction"})).out


def sizes_for(tokenizer: Tokenizer, **changed: int | float | bool) -> ModelConfig:
    """Very small sizes for a tokenizer, some of them changed."""
    from mamegpt.config import TrainConfig

    few = {"context_length": 24, "emb_dim": 32, "n_layers": 2, "n_heads": 4, "drop_rate": 0.0}

    return TrainConfig(**(few | changed)).model(tokenizer.vocab_size)  # type: ignore[arg-type]


def random_model(
    sizes: ModelConfig, seed: int = 0, architecture: str = "custom-gpt", spread: float = 0.3
) -> LanguageModel:
    """A model whose greedy text does not repeat one token: sharper attention than a fresh model has."""
    import torch

    from mamegpt.models.registry import build_model

    torch.manual_seed(seed)
    model = build_model(architecture, sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return model.eval()


def export_here(
    out: Path,
    model: LanguageModel,
    sizes: ModelConfig,
    tokenizer: Tokenizer,
    architecture: str = "custom-gpt",
    **options: Any,
) -> ExportReport:
    """Export a model that was never in a file."""
    from mamegpt.exporting.export import export_model
    from mamegpt.pretrained import Pretrained

    loaded = Pretrained(model, tokenizer, sizes, architecture, "a model in memory")
    return export_model(out, loaded, n_sentences=N_SENTENCES, **options)


def run_script(
    script: str, *arguments: object, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of the root scripts as a person does, from another folder."""
    return _run([str(ROOT / script), *map(str, arguments)], cwd, env)


def run_mamegpt(*arguments: object, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``mamegpt``, whether the package is installed or not."""
    return _run(["-m", "mamegpt", *map(str, arguments)], cwd, (env or dict(os.environ)) | {"PYTHONPATH": str(ROOT)})


def _run(command: list[str], cwd: Path, env: dict[str, str] | None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ if env is None else env) | {"COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, encoding="utf-8", timeout=240
    )


def folder_of(little: Little, out: Path, model_type: str, **changed: float) -> Path:
    """A folder as the exporter writes it, of a model with random weights."""
    from mamegpt.exporting.hf import write_hf
    from mamegpt.models.registry import hf_formats

    sizes, hf_format = sizes_for(little.tokenizer, **changed), hf_formats()[model_type]
    out.mkdir()
    model = random_model(sizes, architecture=hf_format.architecture)
    write_hf(out, model, sizes, little.tokenizer, hf_format)
    return out


def prompt_whose_place_matters(run: Path, n_tokens: int) -> str:
    """Return a prompt that a run continues otherwise at the start of a text than within it, greedily.

    A model of a few steps goes on alike after most prompts.
    """
    from mamegpt.generation.stream import generate
    from mamegpt.pretrained import load

    loaded = load(run)

    def text_of(prompt: str, at_start: bool) -> str:
        return generate(loaded.model, loaded.tokenizer, prompt, n_tokens, at_start=at_start)

    return next(char for char in "昔春町朝日雨人犬川山" if text_of(char, True) != text_of(char, False))
