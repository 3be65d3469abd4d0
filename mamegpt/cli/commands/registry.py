"""The commands of ``mamegpt``: a function each, whose docstring and parameters are its help and its options.

Heavy libraries are imported inside them, so that ``--help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import tyro

from mamegpt.cli.commands.data import clean, download, extract, tokenizer, tokenizer_report
from mamegpt.cli.commands.models import evaluate, export, generate, play, report
from mamegpt.cli.commands.training import demo, doctor, plan, train
from mamegpt.system.console import output_must_succeed

__all__ = ["COMMANDS", "PARSING"]


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]) -> None:
    """Print a script with which a shell completes commands and options; save it where the shell looks for such.

    Args:
        shell: Shell to write for: bash looks in ~/.local/share/bash-completion/completions/mamegpt, zsh for _mamegpt
            in the folders of $fpath, fish in ~/.config/fish/completions/mamegpt.fish.
    """
    with output_must_succeed():
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="mamegpt", args=["--tyro-write-completion", shell, "-"], config=PARSING
        )


PARSING = (tyro.conf.FlagConversionOff,)
"""How tyro reads every command line: a switch may be followed by True or False."""

COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "download": download,
    "extract": extract,
    "clean": clean,
    "tokenizer": tokenizer,
    "tokenizer-report": tokenizer_report,
    "plan": plan,
    "train": train,
    "eval": evaluate,
    "generate": generate,
    "play": play,
    "report": report,
    "export": export,
    "doctor": doctor,
    "completion": completion,
}
