"""The commands of ``mamegpt``: one function each, whose docstring and parameters are its help and options.

Heavy libraries are imported inside them, so that ``--help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from mamegpt.cli.commands.data import (
    clean_command,
    dialogues_command,
    download_command,
    extract_command,
    reviews_command,
    tokenizer_command,
    tokenizer_report_command,
)
from mamegpt.cli.commands.models import (
    chat_command,
    classify_command,
    evaluate_command,
    export_command,
    generate_command,
    play_command,
    report_command,
)
from mamegpt.cli.commands.training import demo_command, doctor_command, plan_command, train_command, tune_command
from mamegpt.cli.console import deliver
from mamegpt.cli.parsing import program

__all__ = ["COMMANDS"]


def completion_command(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script with which a shell completes commands and options; save it where the shell looks for such.

    Args:
        shell: Shell to write for: bash looks in ~/.local/share/bash-completion/completions/mamegpt, zsh for _mamegpt
            in the folders of $fpath, fish in ~/.config/fish/completions/mamegpt.fish.
    """
    deliver(program("mamegpt", COMMANDS).generate_completion(shell=shell), end="")


COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo_command,
    "download": download_command,
    "extract": extract_command,
    "clean": clean_command,
    "dialogues": dialogues_command,
    "reviews": reviews_command,
    "tokenizer": tokenizer_command,
    "tokenizer-report": tokenizer_report_command,
    "plan": plan_command,
    "train": train_command,
    "tune": tune_command,
    "eval": evaluate_command,
    "generate": generate_command,
    "chat": chat_command,
    "classify": classify_command,
    "play": play_command,
    "report": report_command,
    "export": export_command,
    "doctor": doctor_command,
    "completion": completion_command,
}
