"""What help says of a command, as its source has it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

from cyclopts.help.help import docstring_parse

from mamegpt.cli.parsing import program

__all__ = ["help_texts", "sentences"]


def sentences(cls: type) -> dict[str, str]:
    """The sentence below each field of a dataclass in its source."""
    (tree,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
            assert isinstance(field.target, ast.Name) and isinstance(after.value, ast.Constant)
            found[field.target.id] = str(after.value.value)
    return found


def help_texts(command: Callable[..., Any]) -> set[str]:
    """The paragraphs that describe a command and its groups of options, and the sentence of each option."""
    about = docstring_parse(command.__doc__, "plaintext")
    found = [str(about.short_description), *(about.long_description or "").split("\n\n")]
    arguments = program("program", command).assemble_argument_collection(parse_docstring=True)
    found += [argument.parameter.help or "" for argument in arguments]
    found += [group.help for argument in arguments if argument.show for group in argument.parameter.group]
    return set(filter(None, (" ".join(text.split()) for text in found)))
