"""The public names by kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import mamegpt

__all__ = ["public_functions"]


def public_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public functions, and the public methods of public classes that are made to be used."""
    for name in mamegpt.__all__:
        found = getattr(mamegpt, name)
        if inspect.isfunction(found):
            yield name, found
        elif not issubclass(found, Exception):
            methods = inspect.getmembers(found, lambda it: inspect.isfunction(it) or inspect.ismethod(it))
            yield from ((f"{name}.{method}", it) for method, it in methods if not method.startswith("_"))
