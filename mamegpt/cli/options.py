"""How parameters of commands become options, and what is refused of those that were typed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, TypeVar

from cyclopts import Parameter

from mamegpt.errors import ConfigError
from mamegpt.messages import join, msg

__all__ = ["REPEATED", "Flat", "Given", "Repeatable", "Switch", "refuse_idle"]

T = TypeVar("T")

Flat = Annotated[T, Parameter(name="*")]
"""A dataclass of settings, each of whose fields is an option."""
REPEATED = "STR"
Repeatable = Annotated[tuple[str, ...], Parameter(consume_multiple=False, metavar=REPEATED)]
"""Values of an option that is repeated, one each; those of another tuple may also follow one name."""
Switch = Annotated[bool | None, Parameter(negative=None, show_default=False)]
"""An option that has an opposite, --private and --no-private; its help says which of both holds if it is left out."""
Given = Annotated[frozenset[str], Parameter(parse=False)]
"""Parameters of a command whose options were typed; a command that takes these as ``given`` is handed them."""


def refuse_idle(given: Iterable[str], cases: Iterable[tuple[bool, Sequence[str], str]]) -> None:
    """Refuse options that were typed and would do nothing.

    A case is whether it holds, the parameters that then do nothing, and where that is so ("with --optimizer adamw").
    Raises `ConfigError` that names all of them.
    """
    found = []
    for holds, names, where in cases:
        if idle := [f"--{name.replace('_', '-')}" for name in names if holds and name in given]:
            found.append(msg("leave out {names}, which would do nothing {where}", names=", ".join(idle), where=where))
    if found:
        raise ConfigError(join("; ", found))
