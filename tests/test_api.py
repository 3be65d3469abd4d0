"""The names of the package's root are its promise: each is there, typed, explained, and loaded only when asked for."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from little import ROOT, Little
from public_names import public_functions

import mamegpt

# fmt: off
VERBS = {
    "Add", "Clean", "Estimate", "Export", "Fetch", "Load", "Measure", "Parse",
    "Print", "Raise", "Read", "Return", "Say", "Show", "Train", "Watch", "Write", "Yield",
}
# fmt: on
"""What a public function does; docstrings begin with a verb in the imperative (PEP 257)."""


def test_type_checkers_see_the_names_where_they_are() -> None:
    tree = ast.parse(Path(mamegpt.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    assert seen == {name: f"{module}.{name}" for name, module in mamegpt._MODULES.items()}


def test_python_computes_as_the_commands_do() -> None:
    """Else PyTorch's threads wait in a loop, and other programs make training twenty times slower."""
    code = "import os, mamegpt; before = set(os.environ); mamegpt.load; print(*sorted(set(os.environ) - before))"
    names = ["ARROW_DEFAULT_MEMORY_POOL", "GOMP_SPINCOUNT"]
    for given in ({}, {names[1]: "7"}):
        environment = {name: value for name, value in os.environ.items() if name not in names} | given
        environment["OMP_NUM_THREADS"] = "1"
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8")
        assert {*done.stdout.split()} >= {*names} - {*given}, done.stderr
        assert not {*given} & {*done.stdout.split()}


@pytest.mark.parametrize("name", mamegpt.__all__)
def test_every_name_is_there_and_explained(name: str) -> None:
    found = getattr(mamegpt, name)
    assert found.__name__ == name and found.__module__ == mamegpt._MODULES[name]
    assert inspect.getdoc(found)
    assert f"`{name}`" in (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert not (ROOT / "mamegpt" / name).exists()  # importing a package sets its name, which would hide this one


@pytest.mark.parametrize(("name", "function"), [*public_functions()])
def test_every_function_says_what_it_does(name: str, function: Callable[..., Any]) -> None:
    assert (inspect.getdoc(function) or "").split()[0] in VERBS


PARTS = {"Run.tokens", "Tokenizer.stream", "Topic.judge", "TrainConfig.model", "CleanReport.provenance"}
"""Methods for other modules of ours."""


def test_what_public_functions_return_has_a_public_name() -> None:
    run = {f"Run.{name}": it.fget for name, it in inspect.getmembers(mamegpt.Run) if isinstance(it, property)}
    missing = []
    for name, function in {**dict(public_functions()), **run}.items():
        made = inspect.unwrap(function)
        for word in re.findall(r"\w+", str(inspect.signature(made).return_annotation)):
            found = made.__globals__.get(word)
            if inspect.isclass(found) and found.__module__.startswith("mamegpt") and word not in mamegpt.__all__:
                missing.append(f"{name}: {word}")
    assert [it for it in missing if it.partition(":")[0] not in PARTS] == []


def test_what_a_user_looks_at_says_what_it_is(little: Little) -> None:
    model = mamegpt.load(little.run)
    assert 50_000 < model.n_parameters < 200_000
    assert repr(model) == (
        f"Pretrained({model.origin!r}, architecture='custom-gpt', n_parameters={model.n_parameters:_}, "
        f"vocab_size=1_000, tokenizer={str(little.run / 'tokenizer.model')!r})"
    )
    assert repr(model.tokenizer) == f"Tokenizer({str(little.run / 'tokenizer.model')!r}, vocab_size=1_000)"


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(AttributeError, match="module 'mamegpt' has no attribute 'trian'"):
        mamegpt.trian  # type: ignore[attr-defined]  # noqa: B018
    assert dir(mamegpt) == sorted([*mamegpt.__all__, "__version__"])


@pytest.mark.usefixtures("warm_exports")
@pytest.mark.parametrize("page", ["README.md", "README.en.md", "docs/reference.md"])
def test_the_python_of_the_pages_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word, but for a shorter training and a shorter comparison."""
    text = (ROOT / page).read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    if page != "README.md":
        assert code in (ROOT / "README.md").read_text(encoding="utf-8")
        return
    monkeypatch.chdir(tmp_path)
    shorter = {
        "minutes=1": 'max_steps=2, precision="fp32", compile="false"',
        '"stories.txt")\n': '"stories.txt", 300)\n',
        "=2000": "=1000",
        'to="hf"': 'to="hf", n_sentences=100',
    }
    for long, short in shorter.items():
        assert long in code
        code = code.replace(long, short, 1)
    exec(code, {})
    assert (tmp_path / "hf" / "model.safetensors").is_file()
