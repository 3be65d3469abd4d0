"""What was typed on a command line, as opposed to what its defaults fill in."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Annotated

import tyro

from mamegpt.errors import ConfigError

__all__ = ["Given", "is_option", "option_name", "refuse_idle", "typed"]

Given = Annotated[frozenset[str], tyro.conf.Fixed, tyro.conf.Suppress]
"""Parameters of a command whose options were typed; a command that takes these as ``given`` is handed them."""


def is_option(word: str) -> bool:
    """Return whether a word is meant as the name of an option; -1 is a number, and a dash alone may be text."""
    return word.startswith("--") or (len(word) == 2 and word[0] == "-" and word[1].isalpha())


def option_name(word: str) -> str:
    """Return an option as help lists it: with dashes, without its value."""
    return word.partition("=")[0].replace("_", "-")


def typed(words: Sequence[str]) -> dict[str, str]:
    """Return the options that a command line names, as parameters are spelled, each with the first word of its value.

    An option without a value has "". Of an option that is repeated, the last value counts.
    """
    found = {}
    for word, following in itertools.pairwise([*words, "--"]):
        if is_option(word):
            _, equals, value = word.partition("=")
            name = option_name(word).lstrip("-").replace("-", "_")
            found[name] = value if equals else "" if is_option(following) else following
    return found


def refuse_idle(given: Iterable[str], cases: Iterable[tuple[bool, Sequence[str], str]]) -> None:
    """Refuse options that were typed and would do nothing.

    A case is whether it holds, the parameters that then do nothing, and where that is so ("with --optimizer adamw").
    Raises `ConfigError` that names all of them.
    """
    found = []
    for holds, names, where in cases:
        if idle := [f"--{name.replace('_', '-')}" for name in names if holds and name in given]:
            found.append(f"leave out {', '.join(idle)}, which would do nothing {where}")
    if found:
        raise ConfigError("; ".join(found))
