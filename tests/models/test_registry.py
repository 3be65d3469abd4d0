"""An architecture is its folder and one line of the registry: nothing else knows its name or what is in its folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from little import ROOT

from mamegpt.models.registry import ARCHITECTURES

PACKAGE = ROOT / "mamegpt"
REGISTRY = Path("models/registry.py")
NAMED = {
    "config.py": "the default",
    "presets.py": "the original recipe",
    "exporting/convert_onnx.py": "onnxruntime-genai's name for any model without code of its own",
    "exporting/gguf.py": "llama.cpp's name for SentencePiece's tokenizers",
}
"""Modules with a string that is the name of an architecture, and what it means there."""
TAKEN = {"exporting/publish.py": "custom_gpt"}
"""Modules that import from the folder of an architecture: bare weights files are the book's."""


def outside() -> Iterator[tuple[str, ast.Module]]:
    """The modules that are in no architecture's folder, by their paths."""
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE)
        if own != REGISTRY and not (own.parts[0] == "models" and own.parts[1] in ARCHITECTURES.values()):
            yield own.as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def test_no_other_module_names_an_architecture() -> None:
    names = {*ARCHITECTURES, *ARCHITECTURES.values()}
    found = {
        path
        for path, tree in outside()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names
    }
    assert found == NAMED.keys()


def test_no_other_module_imports_from_the_folder_of_one() -> None:
    found = {
        path: node.module.split(".")[2]
        for path, tree in outside()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mamegpt.models.")
        if node.module.split(".")[2] in ARCHITECTURES.values()
    }
    assert found == TAKEN
