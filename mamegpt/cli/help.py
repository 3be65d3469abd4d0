"""Rendering of the help, in the user's language and by the cells that characters take in a terminal."""

from __future__ import annotations

import math
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any, get_origin

from cyclopts.help import HelpEntry, HelpPanel
from cyclopts.help.formatters import DefaultFormatter
from cyclopts.help.specs import ColumnSpec, NameRenderer
from rich.console import Console, ConsoleOptions
from rich.text import Text

from mamegpt.cli.console import n_cells, output_must_succeed
from mamegpt.cli.language import label
from mamegpt.cli.options import REPEATED
from mamegpt.cli.parsing import Program
from mamegpt.messages import msg

__all__ = ["NARROWEST", "show_help"]

NARROWEST = 60
"""Least width of the help in columns; in fewer it would have thousands of lines."""
# fmt: off
WORDS = (
    msg("Usage:"), msg("commands"), msg("Arguments"), msg("options"), msg("text options"), msg("model options"),
    msg("training options"), msg("optimizer options"), msg("running options"), msg("tuning options"),
    msg("sampling options"),
    msg("schema options"), msg("Display this message and exit."), msg("(required)"), msg("(repeatable)"),
    msg("choices:"), msg("default:"), msg("False"), msg("True"),
)
# fmt: on
"""The words of the help that belong to no command."""
NOTHING = (None, "None", "", '""', "()", "[]")
"""Defaults that are not shown, as cyclopts writes them."""
PIECE = re.compile(
    r"[(「『【]*(?:(?:[!-'*-~ｦ-ﾟ]|\((?=[!-~])|\))+|.)[、。:)」』】・ー…ぁぃぅぇぉっゃゅょァィゥェォッャュョ]*\s*"
)
"""A unit without a line break: a word of Latin letters or one character, with adjacent punctuation."""


def show_help(app: Program) -> None:
    """Print the help of one command, or of all. Raises `OSError` if it cannot be written."""
    width = max(NARROWEST, shutil.get_terminal_size().columns)
    names = math.ceil(width * 0.35)
    columns = ColumnSpec(NameRenderer(names), style="cyclopts.name", max_width=names), ColumnSpec(_about)
    app.help_formatter = formatter = _Formatter(column_specs=columns)
    for argument in app.assemble_argument_collection() if app.default_command else ():
        if argument.field_info.kind is argument.field_info.VAR_POSITIONAL:
            formatter.several = argument.name.lstrip("-").upper()
    with output_must_succeed():
        app.help_print([], console=Console(file=sys.stdout, width=width))


class _Formatter(DefaultFormatter):
    """Draws the panels of the help that cyclopts provides."""

    several = "ARGS"
    """The name of an argument that may be given several times."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        about = _sentences(getattr(panel.description, "primary_renderable", ""))
        title = label(str(panel.title))
        drawn = panel.copy(
            title=title[:1].upper() + title[1:],
            description=_Wrapped(f"{about}\n") if about else Text(),
            entries=[entry.copy(metavar=(entry.metavar or "").removeprefix("CHOICE|")) for entry in panel.entries],
        )
        super().__call__(console, options, drawn)

    def render_usage(self, console: Console, _options: ConsoleOptions, usage: Any) -> None:
        console.print(Text(f"{label('Usage:')} {usage}".replace("[ARGS...]", f"[{self.several}...]")))

    def render_description(self, console: Console, _options: ConsoleOptions, description: Any) -> None:
        console.print(_Wrapped(_sentences(description.primary_renderable) + "\n"))


def _sentences(text: object) -> str:
    """Return paragraphs in the user's language, one per line, without code marks."""
    paragraphs = (label(" ".join(paragraph.split())) for paragraph in str(text).strip().split("\n\n"))
    return "\n\n".join(paragraphs).replace("`", "")


def _about(entry: HelpEntry) -> _Wrapped:
    """Return the sentence of an option, with its choices and its default."""
    sentence = _sentences(entry.description.primary_renderable)
    notes = [label("(required)")] if entry.required else []
    if get_origin(entry.type) is tuple and entry.metavar == REPEATED:
        notes.append(label("(repeatable)"))
    if entry.choices and entry.metavar != "STR":  # where other values are possible too, the sentence names all
        notes.append(f"({label('choices:')} {', '.join(entry.choices)})")
    if entry.default not in NOTHING:
        default = label(entry.default) if entry.default in ("False", "True") else entry.default  # as it is typed
        notes.append(f"({label('default:')} {default})")
    return _Wrapped(sentence, notes)


class _Wrapped:
    """Text wrapped to the available width; Japanese may be broken between any two characters, a note nowhere."""

    def __init__(self, text: str, notes: Sequence[str] = ()) -> None:
        self.text, self.notes = text, notes

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        paragraphs = [PIECE.findall(paragraph) for paragraph in self.text.split("\n")]
        paragraphs[-1] += [f" {note}" for note in self.notes]
        lines = []
        for pieces in paragraphs:
            lines.append("")
            for piece in pieces:
                if n_cells(f"{lines[-1]}{piece}".rstrip()) > options.max_width:
                    lines.append("")
                lines[-1] += piece
        yield Text("\n".join(line.strip() for line in lines), overflow="fold")
