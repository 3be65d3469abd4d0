"""Print results of the library to standard output, as the commands do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mamegpt.cli.console import say
from mamegpt.cli.render.data import clean_table, comparison_table, download_table, extract_table, tokenizer_table
from mamegpt.cli.render.models import evaluation_table, export_line
from mamegpt.cli.render.planning import plan_table
from mamegpt.messages import msg

__all__ = ["show"]

RENDERERS: dict[str, Callable[[Any], str]] = {
    "CleanReport": clean_table,
    "Comparison": comparison_table,
    "Downloaded": download_table,
    "Evaluation": evaluation_table,
    "ExportReport": export_line,
    "ExtractReport": extract_table,
    "Plan": plan_table,
    "TokenizerReport": tokenizer_table,
}
"""The renderer of each result, by the name of its class: importing the classes would take longer than printing."""


def show(*results: object, **fields: object) -> None:
    """Print results as the command line does, in the user's language: a report as its table, text as a line.

    A result is the return value of `clean`, `download`, `evaluate`, `export`, `extract`, `plan` or `train_tokenizer`.
    Text is a message that ``fields`` fill, ``show("wrote {out}", out=out)``. Raises `TypeError` for anything else.
    """
    for result in results:
        if isinstance(result, str):
            say(msg(result, **fields))
        elif render := RENDERERS.get(type(result).__name__):
            say(render(result))
        else:
            raise TypeError(f"show() takes text and results of mamegpt (got {type(result).__name__})")
