"""The import layers, held against the code; and that what is light stays light."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from little import ROOT

from mamegpt.cli.commands.registry import COMMANDS

PACKAGE = ROOT / "mamegpt"
# A module may import only from lower layers (rows further up). Within a row nothing imports anything.
LAYERS: dict[str, set[str]] = {
    "nothing of ours": {
        "",
        "text.characters",
        "data.clean.steps",
        "data.extract.hash_set",
        "data.readers.parallel",
        "data.readers.parquet_pages",
        "data.schema",
        "models.dropout",
        "errors",
        "evaluation.proportion",
        "export.verify_gguf",
        "export.verify_hf",
        "system.limits",
        "models.loss",
        "system.messages",
        "models.custom_gpt.modeling_custom_gpt",
        "models.qwen3.modeling_qwen3",
        "training.muon",
        "playground.connection",
        "export.prompts",
        "report.chart",
        "system.run_files",
        "planning.scaling_law",
        "system.shell",
        "text.subsample",
        "text.normalize",
        "tokenizer.sentencepiece_file",
    },
    "words and files": {
        "config",
        "system.console",
        "data.clean.counts",
        "data.clean.dedup",
        "data.clean.edits",
        "data.clean.filters",
        "text.folding",
        "data.readers.lines",
        "distributed.processes",
        "export.evaluation_card",
        "system.files",
        "cli.given",
        "system.hub",
        "system.hardware",
        "generation.settings",
        "training.sharded_muon",
        "data.stories",
        "tokenizer.trainer",
    },
    "one job each": {
        "planning.cluster_cost",
        "data.clean.page",
        "data.provenance",
        "data.readers.prefilter",
        "data.extract.resumable",
        "data.readers.mediawiki",
        "data.writers",
        "cli.help",
        "models.hf_format",
        "cli.argument_errors",
        "models.registry",
        "generation.fast_decode",
        "system.outputs",
        "presets",
        "tokenizer.tokenizer",
        "tokenizer.vocab_size",
    },
    "two of them together": {
        "data.readers.read",
        "data.extract.topic",
        "training.validation",
        "generation.stream",
        "training.optim",
        "data.shards",
        "distributed.sharding",
        "tokenizer.hf",
        "tokenizer.report",
    },
    "larger parts": {
        "generation.batch",
        "run.checkpoint",
        "export.checks",
        "export.model_card",
        "run.metrics",
        "data.sources",
        "training.forward",
        "training.events",
    },
    "whole tasks": {
        "data.clean.clean",
        "evaluation.texts",
        "export.hf",
        "data.extract.extract",
        "training.loggers",
        "training.autotune",
        "planning.plan",
        "playground.catalog",
        "pretrained",
        "training.loss_spikes",
        "training.progress",
    },
    "with a model in hand": {
        "data.clean.tasks",
        "cli.commands.data",
        "evaluation.scorer",
        "export.gguf",
        "training.init_from",
        "playground.engine",
        "report.run",
        "training.setup",
    },
    "what a command does": {
        "evaluation.cloze",
        "evaluation.memorisation",
        "evaluation.minimal_pairs",
        "evaluation.ngram",
        "export.export",
        "playground.api",
        "report.page",
        "training.trainer",
    },
    "what stands on a run": {
        "evaluation.evaluate",
        "cli.original",
        "playground.server",
        "export.publish",
        "report.write",
        "report.live",
    },
    "nearly all of it": {"cli.demo", "playground.play"},
    "one command each": {"cli.commands.models", "cli.commands.training"},
    "all of it": {"cli.commands.registry"},
    "the command line": {"cli.main"},
    "its door": {"__main__"},
}
HEAVY = {"torch", "transformers", "numpy", "sentencepiece", "tokenizers", "pyarrow", "huggingface_hub", "safetensors"}


def modules() -> dict[str, Path]:
    """Every module of the package by its name below ``mamegpt``; the package itself is ""."""
    paths = {path.relative_to(PACKAGE).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
    named = {".".join(name.parts).removesuffix("__init__").rstrip("."): path for name, path in paths.items()}
    return {name: path for name, path in named.items() if name == "" or path.name != "__init__.py"}


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """The full names a file imports, wherever in it, functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def our_imports(name: str) -> set[str]:
    """The modules of ours that a module imports."""
    found = set()
    for full in imports(MODULES[name]):
        if full.split(".")[0] == "mamegpt":
            below = full.removeprefix("mamegpt").lstrip(".")
            # "models.build_model" is from models, "__version__" from the package.
            found.add(below if below in MODULES else below.rpartition(".")[0])
    return found


def layer_of(name: str) -> int:
    (number,) = (i for i, row in enumerate(LAYERS.values()) if name in row)
    return number


def run_alone(script: str) -> str:
    """What a script prints in a process of its own, where nothing is imported yet."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout


def test_every_module_has_its_place_and_no_place_is_empty() -> None:
    placed = [name for row in LAYERS.values() for name in row]
    assert sorted(placed) == sorted(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_lower_layers(name: str) -> None:
    assert {other for other in our_imports(name) if layer_of(other) >= layer_of(name)} == set()


def test_the_layers_are_as_low_as_they_can_be() -> None:
    for row in list(LAYERS.values())[1:]:
        for name in row:
            assert max(map(layer_of, our_imports(name)), default=-1) == layer_of(name) - 1, name


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_and_what_is_public(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    targets = {target.id: node.value for node in tree.body if isinstance(node, ast.Assign)
               for target in node.targets if isinstance(target, ast.Name)}  # fmt: skip
    if name in (
        "",
        "__main__",
        "errors",
        "models.custom_gpt.modeling_custom_gpt",
        "export.verify_hf",
        "export.verify_gguf",
    ):
        return  # all of it is public, or none
    public = ast.literal_eval(targets["__all__"])
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    imported = {alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom)
                for alias in node.names}  # fmt: skip
    annotated = {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)
                 and isinstance(node.target, ast.Name)}  # fmt: skip
    assert public == sorted(public, key=_isort)
    assert set(public) <= defined | imported | set(targets) | annotated


def _isort(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions, as ruff sorts them."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("models.custom_gpt.modeling_custom_gpt", {"torch", "transformers"}),
        ("export.verify_hf", {"torch", "transformers"}),
        ("export.verify_gguf", {"xllamacpp"}),
    ],
)
def test_what_runs_without_the_package_imports_public_packages_only(name: str, packages: set[str]) -> None:
    roots = {full.split(".")[0] for full in imports(MODULES[name])}
    assert roots - sys.stdlib_module_names == packages


def test_every_help_answers_without_the_heavy_libraries() -> None:
    script = """
import contextlib, io, json, sys
import mamegpt
found = {"import": sorted(sys.modules)}
from mamegpt.cli.main import main
from mamegpt.cli.commands.registry import COMMANDS
for words in ([], ["--version"], *([name] for name in COMMANDS)):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(words if words == ["--version"] else [*words, "--help"])
    found[" ".join(words)] = sorted(sys.modules)
print(json.dumps(found))
"""
    printed = run_alone(script)
    found = json.loads(printed)
    assert len(found) == 3 + len(COMMANDS)
    assert {words: heavy for words, names in found.items() if (heavy := HEAVY & set(names))} == {}
    assert [name for name in found["import"] if name.startswith("mamegpt")] == ["mamegpt"]


def test_to_train_qwen3_nobody_waits_for_transformers() -> None:
    script = """
import sys
import mamegpt.training.trainer, mamegpt.pretrained, mamegpt.export.hf
from mamegpt.config import ModelConfig
from mamegpt.models.registry import build_model
build_model("qwen3", ModelConfig(vocab_size=9, emb_dim=8))
print("transformers" in sys.modules)
build_model("custom-gpt", ModelConfig(vocab_size=9, emb_dim=8))
print("transformers" in sys.modules)
"""
    printed = run_alone(script)
    assert printed.split() == ["False", "True"]


def test_scripts_import_nothing_of_ours_but_what_they_show() -> None:
    for path in ROOT.glob("*.py"):
        assert {full.split(".")[0] for full in imports(path)} <= {"mamegpt", "pathlib", "typing"}, path.name
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 80, path.name  # one screen
