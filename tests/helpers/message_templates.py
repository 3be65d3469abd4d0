"""Every message the program can print, as a template with {} for what is filled in, read from its source."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

from little import ROOT

from mamegpt import errors

__all__ = ["printed", "template"]

PACKAGE = ROOT / "mamegpt"
ERRORS = {name for name, value in vars(errors).items() if inspect.isclass(value)}
SPEAKERS = {
    "say", "show", "answer", "warn", "busy", "translated", "headings",
    "Check", "check", "close", "logits_check", "greedy_check",
}  # fmt: skip
"""Functions whose strings are printed."""
LISTS = {"found", "refused", "problems", "PHENOMENA", "ODDITIES"}
"""Names of what ends in a message: lists of problems, what a check found, kinds that are labels of rows."""
LABELLED = {
    "cli/commands/data",
    "cli/commands/training",
    "cli/demo",
    "system/hardware",
    "data/clean/page",
    "cli/render/data",
    "cli/render/models",
}
"""Modules in which a pair in a list that begins with a string is a row of a table."""
RENDERED = "cli/render/"
"""The modules whose functions return what others print."""
FOREIGN = {"data/stories", "exporting/model_card"}
"""Modules in which ``say`` is what people in stories do, or which write in two languages themselves."""


def printed() -> dict[str, str]:
    """Every template that is raised, said, or the label of a row, with the file and line where it stands."""
    found: dict[str, str] = {}
    for path in [*sorted(PACKAGE.rglob("*.py")), *sorted(ROOT.glob("*.py"))]:
        name = path.relative_to(PACKAGE if PACKAGE in path.parents else ROOT).with_suffix("").as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            for text in _of(node, tree, name):
                if any(character.isalpha() for character in text.replace("{}", "")):
                    found.setdefault(text, f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}")
    return found


def _of(node: ast.AST, tree: ast.Module, name: str) -> Iterator[str]:
    """What one node of a module's tree prints."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and _name(node.exc) in ERRORS:
        yield from _arguments(node.exc, tree)
    elif name in FOREIGN:
        return
    elif isinstance(node, ast.Call) and _name(node) in SPEAKERS:
        yield from _arguments(node, tree)
    elif isinstance(node, ast.Call) and _name(node) == "append" and isinstance(node.func, ast.Attribute):
        if getattr(node.func.value, "id", "") in LISTS:
            yield from template(node.args[0])
        elif name in LABELLED and isinstance(node.args[0], ast.Tuple):
            yield from template(node.args[0].elts[0])
    elif isinstance(node, ast.Assign | ast.AugAssign | ast.NamedExpr):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(getattr(target, "id", "") in LISTS for target in targets):
            yield from template(node.value)
    if name.startswith(RENDERED) and isinstance(node, ast.Return) and node.value is not None:
        yield from template(node.value)
    if name in LABELLED and isinstance(node, ast.List | ast.ListComp):
        for row in node.elts if isinstance(node, ast.List) else [node.elt]:
            if isinstance(row, ast.Tuple) and len(row.elts) == 2:
                yield from template(row.elts[0])


def _arguments(call: ast.Call, tree: ast.Module) -> Iterator[str]:
    """What is handed to a call: strings, and what functions of the same module return that make them."""
    for argument in call.args:
        yield from template(argument)
        if isinstance(argument, ast.Call):
            for function in ast.walk(tree):
                if isinstance(function, ast.FunctionDef) and function.name == _name(argument):
                    for inner in ast.walk(function):
                        if isinstance(inner, ast.Return) and inner.value is not None:
                            yield from template(inner.value)


def _name(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def template(node: ast.expr) -> Iterator[str]:
    """The templates an expression may become; of what is no text, none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from template(node.body)
        yield from template(node.orelse)
    elif isinstance(node, ast.List | ast.Tuple):
        for one in node.elts:
            yield from template(one)
    elif isinstance(node, ast.ListComp | ast.GeneratorExp):
        yield from template(node.elt)
    elif isinstance(node, ast.Starred):
        yield from template(node.value)
