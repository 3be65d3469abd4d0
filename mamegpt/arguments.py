"""Type checks of the arguments of public functions, from their annotations, at each call.

A mistake in Python (a string instead of a list, a number that is not whole, an empty path) therefore becomes one line
that names the argument, before anything is read or written.
"""

from __future__ import annotations

import functools
import inspect
import numbers
import os
import reprlib
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, overload

from mamegpt.errors import ConfigError
from mamegpt.messages import join, msg

__all__ = ["AtLeast", "checked"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")

_PATH = msg("a path")
_KINDS = {
    int: msg("a whole number"),
    float: msg("a number"),
    bool: msg("True or False"),
    str: msg("a string"),
    Callable: msg("a function"),
}
_PLURALS = {
    "a whole number": msg("whole numbers"),
    "a string": msg("strings"),
    "a function": msg("functions"),
    "a path": msg("paths"),
}


@dataclass(frozen=True)
class AtLeast:
    """The minimum of an argument: ``Annotated[int, AtLeast(1)]``."""

    value: int


@overload
def checked(function: type[C]) -> type[C]: ...
@overload
def checked(function: Callable[P, R]) -> Callable[P, R]: ...
def checked(function: Any) -> Any:
    """Return a function, or a dataclass, that raises `ConfigError` for arguments that its annotations do not allow.

    All problems are in one line. A path must not be empty, unless that is the parameter's default.
    """
    if isinstance(function, type):
        function.__init__ = checked(function.__init__)  # type: ignore[misc]
        return function
    parameters = inspect.signature(function).parameters
    positional = [name for name, it in parameters.items() if it.kind is it.POSITIONAL_OR_KEYWORD]
    defaults = {name: it.default for name, it in parameters.items()}

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(positional, args, strict=False)) | kwargs
        hints = _hints(function)
        found = [
            problem
            for name, value in given.items()
            if name in hints and value is not defaults.get(name, inspect.Parameter.empty)
            if (problem := _problem(f"--{name.replace('_', '-')}", value, hints[name]))
        ]
        if found:
            raise ConfigError(join("; ", found))
        return function(*args, **kwargs)

    return call


@functools.cache
def _hints(function: Any) -> Mapping[str, Any]:
    """Return the type hints of a function's parameters, with those of ``**options: Unpack[...]``."""
    parameters = inspect.signature(function).parameters
    annotated = {name: it.annotation for name, it in parameters.items() if it.annotation is not it.empty}
    # Return types may be imported for type checkers only.
    of_parameters: Any = SimpleNamespace(__annotations__=annotated)
    hints = typing.get_type_hints(of_parameters, function.__globals__, include_extras=True)
    for name, it in parameters.items():
        if it.kind is it.VAR_KEYWORD and (options := get_args(hints.pop(name, None))):
            hints |= typing.get_type_hints(options[0])
    return hints


def _problem(option: str, value: object, hint: Any) -> str | None:
    """Return the problem of an argument; None if it is valid."""
    found: list[str] = []
    types = _alternatives(hint)
    least = next((it.value for it in getattr(hint, "__metadata__", ()) if isinstance(it, AtLeast)), None)
    if not _is_one(value, types):
        of_elements = [one for it in types for part in get_args(it)[:1] for one in _alternatives(part)]
        wrong = next((one for one in _elements(value) if not _is_one(one, of_elements)), value)
        if choices := _choices(types) or (_elements(value) and _choices(of_elements)):
            found.append(
                msg(
                    "{option} must be one of {names} (got {value})",
                    option=option,
                    value=reprlib.repr(wrong),
                    names=", ".join(map(str, choices)),
                )
            )
        else:
            found.append(
                msg(
                    "{option} must be {kind} (got {value})", option=option, kind=_kind(types), value=reprlib.repr(value)
                )
            )
    elif _PATH in _kind(types) and any(isinstance(one, str) and not one for one in (value, *_elements(value))):
        found.append(msg("{option} is an empty path; give a name, or . for the current folder", option=option))
    elif least is not None and isinstance(value, numbers.Real) and not float(value) >= least:
        found.append(msg("{option} must be at least {least} (got {value})", option=option, least=least, value=value))
    return next(iter(found), None)


def _choices(types: Sequence[Any]) -> list[Any]:
    return [choice for it in types if get_origin(it) is Literal for choice in get_args(it)]


def _alternatives(hint: Any) -> list[Any]:
    """Return the alternatives of a type hint."""
    if get_origin(hint) is Annotated:
        return _alternatives(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return [one for part in get_args(hint) for one in _alternatives(part)]
    return [hint]


def _is_one(value: object, types: Sequence[Any]) -> bool:
    return any(_is_of(value, one) for one in types)


def _is_of(value: object, hint: Any) -> bool:
    """Return whether a value and its elements have a type; the elements of iterators are not checked."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if kind is int or kind is float:  # NumPy's numbers too; an int is a valid float
        is_number = isinstance(value, numbers.Integral if kind is int else numbers.Real)
        return is_number and not isinstance(value, bool)
    if not isinstance(kind, type) or kind is object:
        return True  # such as Any
    if not parts or not issubclass(kind, Iterable) or issubclass(kind, Mapping):
        return isinstance(value, kind)
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence if kind is list else kind):
        return False
    of_elements, elements = _alternatives(parts[0]), _elements(value)
    if not any(map(get_args, of_elements)):  # the type of an element decides, and a million have few types
        elements = {type(element): element for element in elements}.values()
    return all(_is_one(element, of_elements) for element in elements)


def _elements(value: object) -> Collection[object]:
    """Return the elements of a collection; empty for other values and for iterators."""
    return value if isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping) else ()


def _kind(types: Sequence[Any]) -> str:
    """Return a description of values of these types."""
    names = [_name(one) for one in types if one is not NoneType]
    different = dict.fromkeys(name for name in names if name != "a string" or _PATH not in names)
    return functools.reduce(lambda some, other: msg("{some} or {other}", some=some, other=other), different)


def _name(hint: Any) -> str:
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in _KINDS or kind is Literal:
        return _KINDS.get(kind, _KINDS[str])
    if issubclass(kind, os.PathLike):
        return _PATH
    if parts and issubclass(kind, Iterable):
        elements = _PLURALS.get(_kind(_alternatives(parts[0])), msg("these"))
        if kind is tuple:
            return msg("a tuple of {elements}", elements=elements)
        return msg("a list of {elements}", elements=elements)
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
