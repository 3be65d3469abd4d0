"""The packages, their order of import, held against the code; and that what is light stays light."""

from __future__ import annotations

import ast
import graphlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from little import ROOT

import mamegpt
from mamegpt.cli.commands.registry import COMMANDS

PACKAGE = ROOT / "mamegpt"
ROWS = [
    {"messages"},
    {"errors"},
    {"arguments"},
    {"text"},
    {"system"},
    {"pages"},
    {"tokenizer"},
    {"data"},
    {"config", "native"},
    {"presets", "models"},
    {"generation", "distributed"},
    {"run"},
    {"pretrained"},
    {"training", "playground"},
    {"evaluation"},
    {"exporting", "report", "planning"},
    {"cli"},
    {"", "__main__"},
]
"""The packages and modules of the root, in import layers: each imports only from rows further up."""
# fmt: off
HEAVY = {
    "torch", "transformers", "numpy", "sentencepiece", "tokenizers", "pyarrow", "huggingface_hub", "safetensors",
    "pydantic",
}
# fmt: on


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
        if full.split(".")[0] == "mamegpt" and full not in ("mamegpt.__doc__", "mamegpt.__version__"):
            below = full.removeprefix("mamegpt").lstrip(".")
            # "models.registry.build_model" is from models.registry.
            found.add(below if below in MODULES else below.rpartition(".")[0])
    return found


def row_of(module: str) -> int:
    """The row of the package, or of the root's module, that a module belongs to."""
    (number,) = (i for i, row in enumerate(ROWS) if module.partition(".")[0] in row)
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


def test_every_package_has_its_row_and_no_row_names_another() -> None:
    assert sorted(name for row in ROWS for name in row) == sorted({name.partition(".")[0] for name in MODULES})


def test_the_page_shows_the_packages_in_this_order() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.split("| package | contents |\n| --- | --- |\n")[1].split("\n\n")[0]
    shown = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in table.splitlines()]
    assert len(shown) == 10
    order = iter(itertools.chain.from_iterable(shown))  # within a line of the page from left to right
    for row in ROWS:
        assert set(itertools.islice(order, len(row - {""}))) == row - {""}
    assert list(order) == []


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_its_own_package_and_higher_rows(name: str) -> None:
    own = name.partition(".")[0]
    others = {other for other in our_imports(name) if other.partition(".")[0] != own}
    assert {other for other in others if row_of(other) >= row_of(name)} == set()


def test_no_module_imports_itself_through_others() -> None:
    graphlib.TopologicalSorter({name: our_imports(name) for name in MODULES}).prepare()  # raises CycleError


def test_packages_hold_nothing_in_their_init_files() -> None:
    for path in PACKAGE.rglob("*/__init__.py"):
        assert [type(node) for node in ast.parse(path.read_text(encoding="utf-8")).body] == [ast.Expr], path


def test_the_root_holds_eight_files_at_most() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_and_what_is_public(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    targets = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if name in (
        "",
        "__main__",
        "errors",
        "models.custom_gpt.modeling_custom_gpt",
        "exporting.verify_classifier",
        "exporting.verify_hf",
        "exporting.verify_gguf",
        "exporting.verify_html",
        "exporting.convert_onnx",
        "exporting.verify_onnx",
    ):
        return  # all of it is public, or none
    public = ast.literal_eval(targets["__all__"])
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    imported = {
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    annotated = {
        node.target.id for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert public == sorted(public, key=_isort)
    assert set(public) <= defined | imported | set(targets) | annotated


def _isort(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions, as ruff sorts them."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("models.custom_gpt.modeling_custom_gpt", {"torch", "transformers"}),
        ("exporting.verify_classifier", {"torch", "transformers"}),
        ("exporting.verify_hf", {"torch", "transformers"}),
        ("exporting.verify_gguf", {"xllamacpp"}),
        ("exporting.verify_html", set()),
        ("exporting.convert_onnx", {"onnx_ir", "torch", "transformers"}),
        ("exporting.verify_onnx", {"numpy", "onnxruntime", "transformers"}),
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


def test_nobody_waits_for_what_only_some_models_or_several_processes_need() -> None:
    script = """
import sys
import mamegpt.training.trainer, mamegpt.pretrained, mamegpt.exporting.hf
from mamegpt.config import TrainConfig
from mamegpt.models.registry import ARCHITECTURES, build_model, build_without_memory
for name in ("llama", "qwen3"):
    build_without_memory(name, TrainConfig(emb_dim=8).model(9))
for name in ("torch._dynamo", "torch.distributed.tensor", "torch.distributed.checkpoint"):
    print(name, name in sys.modules)
for name in sorted(ARCHITECTURES, key="custom-gpt".__eq__):
    build_model(name, TrainConfig(emb_dim=8).model(9))
    print(name, "transformers" in sys.modules)
"""
    printed = dict(line.split() for line in run_alone(script).splitlines())
    assert [name for name, loaded in printed.items() if loaded == "True"] == ["custom-gpt"]


def test_scripts_use_nothing_but_the_public_names() -> None:
    for path in ROOT.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert set(imports(path)) <= {"mamegpt", "pathlib.Path", "typing.Literal"}, path.name
        used = {
            node.attr
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mamegpt"
        }
        assert used <= set(mamegpt.__all__) and "run_command_line" in used, path.name
        assert len(text.splitlines()) <= 80, path.name  # one screen


def test_the_notebook_and_the_end_to_end_test_import_nothing_else_of_ours() -> None:
    notebook = json.loads((ROOT / "examples" / "mamegpt.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for code in ("\n".join(cells), (ROOT / "tests" / "test_end_to_end.py").read_text(encoding="utf-8")):
        assert "import mamegpt\n" in code and "from mamegpt" not in code and "import mamegpt." not in code


def test_no_test_file_imports_another() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        assert not any(full.startswith("test_") for full in imports(path)), path


def test_the_formatter_has_every_line_but_tables_of_constants() -> None:
    folders = ("mamegpt", "tests", "benchmarks", "fuzz", "examples", "release")
    for path in [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]:
        text = path.read_text(encoding="utf-8")
        assert "# fmt: " + "skip" not in text, path
        marks = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip().startswith("# fmt: ")]
        assert [line for _, line in marks] == ["# fmt: off", "# fmt: on"] * (len(marks) // 2), path
        for (begin, _), (end, _) in zip(marks[::2], marks[1::2], strict=True):
            inside = [one for one in ast.parse(text).body if one.lineno <= end and (one.end_lineno or 0) >= begin]
            assert inside and all(isinstance(one, ast.Assign | ast.AnnAssign | ast.Expr) for one in inside), path


def test_no_function_and_no_class_has_a_second_name() -> None:
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if name and isinstance(node, ast.ImportFrom):
                renamed = {f"{node.module}.{alias.name}": alias.name for alias in node.names if alias.asname}
                assert not [
                    own
                    for full, own in renamed.items()
                    if not (own.isupper() or own == "__doc__" or full.removeprefix("mamegpt.") in MODULES)
                ], name
