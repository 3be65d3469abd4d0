"""How help is drawn: in the user's language, by the cells that characters take in a terminal."""

from __future__ import annotations

import math
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cyclopts.help import HelpEntry, HelpPanel
from cyclopts.help.formatters import DefaultFormatter
from cyclopts.help.specs import ColumnSpec, NameRenderer
from rich.console import Console, ConsoleOptions
from rich.text import Text

from mamegpt.cli.console import n_cells, output_must_succeed
from mamegpt.cli.messages import is_japanese, translated
from mamegpt.cli.parsing import Program

__all__ = ["NARROWEST", "show_help"]

NARROWEST = 60
"""Columns that help is drawn in at least: in fewer it grows to thousands of lines."""
WORDS = {
    "Usage:": "使い方:",
    "commands": "コマンド",
    "Arguments": "引数",
    "options": "オプション",
    "text options": "文章の設定",
    "model options": "モデルの設定",
    "training options": "学習の長さの設定",
    "optimizer options": "最適化の設定",
    "running options": "実行の設定",
    "sampling options": "選び方の設定",
    "schema options": "ファイルの読み方の設定",
    "Display this message and exit.": "この説明を表示して終わります。",
    "(required)": "(必須)",
    "choices:": "選択肢:",
    "default:": "既定:",
}
"""The words of help that are of no command."""
DEFAULTS = {"None": "なし", "False": "しない", "True": "する"}
NOTHING = (None, "", '""', "()", "[]")
"""Defaults that go without saying, as cyclopts writes them."""
PIECE = re.compile(r"[(「『【]*(?:(?:[!-'*-~]|\((?=[!-~])|\))+|.)[、。)」』】ー…]*\s*")
"""What stays on one line: a word of Latin letters or one character, with the brackets and punctuation around it."""


def show_help(app: Program) -> None:
    """Print the help of a command, or of all. Raises `OSError` if it cannot be written."""
    width = max(NARROWEST, shutil.get_terminal_size().columns)
    names = math.ceil(width * 0.35)
    columns = ColumnSpec(NameRenderer(names), style="cyclopts.name", max_width=names), ColumnSpec(_about)
    app.help_formatter = _Formatter(column_specs=columns)
    with output_must_succeed():
        app.help_print([], console=Console(file=sys.stdout, width=width))


def _word(text: str, words: Mapping[str, str] = WORDS) -> str:
    return words.get(text, text) if is_japanese() else text


class _Formatter(DefaultFormatter):
    """What cyclopts has found out of commands, drawn."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        about = _sentences(getattr(panel.description, "primary_renderable", ""))
        drawn = panel.copy(title=_word(str(panel.title)), description=_Wrapped(f"{about}\n") if about else Text())
        super().__call__(console, options, drawn)

    def render_usage(self, console: Console, _options: ConsoleOptions, usage: Any) -> None:
        console.print(Text(f"{_word('Usage:')} {usage}"))

    def render_description(self, console: Console, _options: ConsoleOptions, description: Any) -> None:
        console.print(_Wrapped(_sentences(description.primary_renderable) + "\n"))


def _sentences(text: object) -> str:
    """Return paragraphs in the user's language, a line each, without marks of code."""
    paragraphs = (translated(" ".join(paragraph.split())) for paragraph in str(text).strip().split("\n\n"))
    return "\n\n".join(paragraphs).replace("`", "")


def _about(entry: HelpEntry) -> _Wrapped:
    """Return the sentence of an option, with what it may be and what it is by default."""
    sentence = _sentences(entry.description.primary_renderable)
    notes = [_word("(required)")] if entry.required else []
    if entry.choices:
        notes.append(f"({_word('choices:')} {', '.join(entry.choices)})")
    if entry.default not in NOTHING:
        notes.append(f"({_word('default:')} {_word(entry.default, DEFAULTS)})")
    return _Wrapped(_word(sentence), notes)


class _Wrapped:
    """Text in lines as wide as there is room for; Japanese is broken between any two letters, a note nowhere."""

    def __init__(self, text: str, notes: Sequence[str] = ()) -> None:
        self.text, self.notes = text, notes

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        lines = []
        for paragraph in self.text.split("\n"):
            lines.append("")
            for piece in [*PIECE.findall(paragraph), *(f" {note}" for note in self.notes)]:
                if n_cells(f"{lines[-1]}{piece}".rstrip()) > options.max_width:
                    lines.append("")
                lines[-1] += piece
        yield Text("\n".join(line.strip() for line in lines), overflow="fold")
