"""How parameters of commands become options, and checks for options without effect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, TypeVar

from cyclopts import Parameter

from mamegpt.errors import ConfigError
from mamegpt.messages import join, msg

__all__ = ["REPEATED", "Flat", "Given", "Repeatable", "Switch", "refuse_idle"]

T = TypeVar("T")

Flat = Annotated[T, Parameter(name="*")]
"""A dataclass of settings; each field is an option."""
REPEATED = "STR"
Repeatable = Annotated[tuple[str, ...], Parameter(consume_multiple=False, metavar=REPEATED)]
"""A repeatable option with one value each time; other tuples may take several values after one name."""
Switch = Annotated[bool | None, Parameter(negative=None, show_default=False)]
"""An option with an opposite, --private and --no-private; its help states the default."""
Given = Annotated[frozenset[str], Parameter(parse=False)]
"""The names of the parameters that were typed; a command with a parameter ``given`` gets them."""


def refuse_idle(given: Iterable[str], cases: Iterable[tuple[bool, Sequence[str], str]]) -> None:
    """Refuse options that were typed but have no effect.

    A case is a condition, the parameters without effect under it, and its description ("with --optimizer adamw").
    Raises `ConfigError` that names all of them.
    """
    found = []
    for holds, names, where in cases:
        if idle := [f"--{name.replace('_', '-')}" for name in names if holds and name in given]:
            found.append(msg("leave out {names}, which would do nothing {where}", names=", ".join(idle), where=where))
    if found:
        raise ConfigError(join("; ", found))
