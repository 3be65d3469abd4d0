"""The last line of a command, which suggests the next command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mamegpt.messages import msg
from mamegpt.system.shell import command

if TYPE_CHECKING:
    from mamegpt.planning.plan import Plan

__all__ = ["next_chat", "next_step", "next_text", "next_training", "next_use"]


def next_step(*words: object) -> str:
    """Return the line that suggests the next command."""
    return msg("next: {command}", command=command(*words))


def next_text(model: object, prompt: str = "") -> str:
    """Return the line that suggests generating text; without a suitable prompt, from nothing.

    It suggests sampling, because greedy text of small models repeats itself.
    """
    return next_step("generate", "--model", model, "--prompt", prompt, "--temperature", 0.7, "--top-p", 0.9)


def next_chat(model: object) -> str:
    """Return the line that suggests a chat with a model that was tuned to answer."""
    return next_step("chat", "--model", model)


def next_use(model: str | Path) -> str:
    """Return the line that suggests a chat with a run or an exported folder that answers, else generating text."""
    from mamegpt.pretrained import has_chat_template
    from mamegpt.run.run import Run

    run = Run.find(str(model))
    answers = run.config.answers if run else Path(model).is_dir() and has_chat_template(Path(model))
    return next_chat(model) if answers else next_text(model)


def next_training(
    plan: Plan, data: str, tokenizer: str, reading: Sequence[str] = (), training: Sequence[str] = ()
) -> str:
    """Return the line that suggests training the best size of a plan, after training a tokenizer if there is none.

    ``reading`` are options for reading ``data``, ``training`` those of ``train`` alone.
    """
    text = ["--data", data or "corpus.txt", *reading]
    train = command(
        "train",
        *text,
        "--tokenizer",
        tokenizer or "jp_tok.model",
        "--out",
        "runs/first",
        "--size",
        plan.best.size,
        "--minutes",
        f"{plan.minutes:g}",
        *training,
    )
    if tokenizer:
        return msg("next: {train}", train=train)
    size = ("--for-minutes", f"{plan.minutes:g}") if plan.is_vocab_size_chosen else ("--vocab-size", plan.vocab_size)
    return msg(
        "next: {command}, then {train}", command=command("tokenizer", *text, "--out", "jp_tok", *size), train=train
    )
