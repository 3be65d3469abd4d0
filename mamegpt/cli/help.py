"""The help of commands and options in Japanese, as tyro is given it; in English tyro reads the code itself."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import io
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_type_hints

import docstring_parser
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from mamegpt.cli.console import n_cells
from mamegpt.cli.messages import is_japanese, translated

__all__ = ["add_rule", "command_texts", "in_japanese", "in_user_language", "sentences"]

FILLER = "\u200b"
"""tyro lays help out by characters, but a terminal draws Japanese ones two cells wide. While tyro counts, a character
without width stands after each; `in_japanese` takes them out of what is printed."""


WORDS = {
    "usage: ": "使い方: ",
    "positional arguments": "引数",
    "text options": "文章の設定",
    "model options": "モデルの設定",
    "training options": "学習の長さの設定",
    "optimizer options": "最適化の設定",
    "running options": "実行の設定",
    "sampling options": "選び方の設定",
    "╭─ options": "╭─ オプション",
    "╭─ subcommands": "╭─ コマンド",
    "show this help message and exit": "この説明を表示して終わります",
    "(required)": "(必須)",
    "(repeatable)": "(何度でも)",
    "(default: None)": "(既定: なし)",
    "(default: '')": "(既定: 空)",
    "(default: )": "(既定: 空)",
    "(default: False)": "(既定: しない)",
    "(default: True)": "(既定: する)",
    "(default:": "(既定:",
    "{None}|": "",
}
"""What tyro says itself. But for titles no translation is wider, so that what stands in a box goes on to fit in."""


@contextlib.contextmanager
def in_japanese() -> Iterator[None]:
    """Print, at the end, what was printed in this block, without fillers and with tyro's own words translated."""
    terminal, printed = sys.stdout, _Held()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        terminal.write("".join(map(_piece, re.split("(?<=[│╮\n])", printed.getvalue()))))


def _piece(text: str) -> str:
    """Return a piece of help up to the right side of a box, without fillers, translated, and as wide as tyro meant."""
    found = text.replace(FILLER, "")
    for english, japanese in WORDS.items():
        found = found.replace(english, japanese)
    if text[-1:] not in ("│", "╮"):
        return found
    lack = len(text) - n_cells(found)  # below 0 for a title, or where a filler was wrapped: there is a space or a dash
    return found[: min(lack, 0) - 1] + (" " if text[-1] == "│" else "─") * lack + text[-1]


class _Held(io.StringIO):
    """What is printed, held back; it draws boxes as a terminal of UTF-8 does."""

    encoding = "utf-8"


def _filled(text: str) -> str:
    """Return a translated text, as many characters long as it is cells wide."""
    return "".join(one + FILLER if n_cells(one) == 2 else one for one in translated(text))


def command_texts(command: Callable[..., Any]) -> tuple[list[str], dict[str, str]]:
    """Return the paragraphs that describe a command, and the sentence of each of its options."""
    found = docstring_parser.parse(command.__doc__ or "")
    paragraphs = [" ".join(paragraph.split()) for paragraph in (found.description or "").split("\n\n")]
    return paragraphs, {param.arg_name: " ".join((param.description or "").split()) for param in found.params}


def sentences(settings: type[Any]) -> dict[str, str]:
    """Return the sentence below each field of a dataclass of settings."""
    (tree,) = ast.parse(inspect.getsource(settings)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = str(after.value.value)
    return found


def in_user_language(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command whose docstring is in the user's language."""
    if not is_japanese():
        return command
    if isinstance(command, functools.partial):
        return functools.partial(in_user_language(command.func), *command.args, **command.keywords)
    assert isinstance(command, types.FunctionType)
    paragraphs, options = command_texts(command)
    if any(translated(text) == text for text in (*paragraphs, *options.values())):
        return command  # rather all in English than in both
    settings = {name: kind for name, kind in get_type_hints(command).items() if dataclasses.is_dataclass(kind)}
    options |= {name: inspect.cleandoc(kind.__doc__ or "") for name, kind in settings.items()}
    twin = types.FunctionType(
        command.__code__, command.__globals__, command.__name__, command.__defaults__, command.__closure__
    )
    twin.__annotations__, twin.__kwdefaults__ = command.__annotations__, command.__kwdefaults__
    twin.__doc__ = "\n\n".join(map(_filled, paragraphs))
    if options:
        lines = (f"    {name}: {_filled(sentence)}" for name, sentence in options.items())
        twin.__doc__ += "\n\nArgs:\n" + "\n".join(lines)
    return twin


def add_rule(registry: ConstructorRegistry) -> None:
    """Let tyro read dataclasses of settings: in their sections, if they have any, and in the user's language."""

    @registry.struct_rule
    def settings(info: StructTypeInfo) -> StructConstructorSpec | None:
        kind = info.type
        ours = dataclasses.is_dataclass(kind) and kind.__module__.startswith("mamegpt.")
        sections = getattr(kind, "SECTIONS", {})
        if not ours or not (sections or is_japanese()):
            return None
        kinds, helps = get_type_hints(kind), sentences(kind)
        defaults = info.default if isinstance(info.default, kind) else kind()
        if not sections:
            return StructConstructorSpec(instantiate=kind, fields=_fields([*helps], kinds, helps, defaults))
        parts = tuple(
            StructFieldSpec(
                name=title, type=_Section, default=_Section(_fields(names, kinds, helps, defaults)), helptext=""
            )
            for title, names in sections.items()
        )
        return StructConstructorSpec(
            instantiate=lambda **parts: kind(**{name: one for part in parts.values() for name, one in part.items()}),
            fields=parts,
        )

    @registry.struct_rule
    def section(info: StructTypeInfo) -> StructConstructorSpec | None:
        return StructConstructorSpec(dict, info.default.fields) if info.type is _Section else None


@dataclasses.dataclass(frozen=True)
class _Section:
    """Some settings of a dataclass, which help shows in a box of their own."""

    fields: tuple[StructFieldSpec, ...]


def _fields(
    names: Iterable[str], kinds: Mapping[str, Any], helps: Mapping[str, str], defaults: object
) -> tuple[StructFieldSpec, ...]:
    """Return how tyro reads these settings."""
    return tuple(
        StructFieldSpec(
            name=name, type=kinds[name], default=getattr(defaults, name),
            helptext=_filled(helps[name]) if is_japanese() else helps[name],
        )
        for name in names
    )  # fmt: skip
