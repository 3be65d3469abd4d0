"""Validation of data from outside against types; all problems, with their places, in one line.

The schema is a type: ``list[Extension]``, ``dict[str, float]``, a dataclass of `FromJSON`. pydantic validates in strict
mode: "7" and true are not numbers. It is imported at first use; the messages are our own.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from mamegpt.errors import first_line
from mamegpt.messages import join, msg
from mamegpt.system.parse import parse_json

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

__all__ = ["Count", "FromJSON", "Lax", "Number", "Positive", "Within", "problems", "read_json", "validated"]

MOST = 5
"""Most problems in one message."""
KINDS = {
    "int_type": msg("a whole number"),
    "int_parsing": msg("a whole number"),
    "float_type": msg("a number"),
    "finite_number": msg("a finite number"),
    "string_type": msg("a string"),
    "string_unicode": msg("text that UTF-8 can encode"),
    "bool_type": msg("true/false"),
    "list_type": msg("a list"),
    "tuple_type": msg("a list"),
    "dict_type": msg("a JSON object"),
    "mapping_type": msg("a JSON object"),
    "dataclass_type": msg("a JSON object"),
}
"""Descriptions of valid values, by pydantic's name of the error."""

T = TypeVar("T")
Schema = dict[str, Any]
"""A schema of pydantic's core."""


class Within:
    """Bounds of a number: ``Annotated[int, Within(ge=1, lt=10)]``."""

    def __init__(self, **bounds: float) -> None:
        self.bounds = bounds

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Schema]) -> Schema:
        return {**handler(source), **self.bounds}


Count = Annotated[int, Within(ge=0, lt=1 << 63)]
Positive = Annotated[int, Within(ge=1, lt=1 << 63)]
Number = Annotated[float, Within(gt=-1e18, lt=1e18)]
"""A finite number of a size that arithmetic can handle."""


class FromJSON:
    """A dataclass that `validated` makes from a JSON object with values of its types; only fields with a default may be
    missing.

    Other keys are refused; with ``extra="ignore"`` they are ignored.
    """

    __pydantic_config__ = MappingProxyType({"strict": True, "extra": "forbid", "allow_inf_nan": False})

    def __init_subclass__(cls, extra: str = "forbid", allow_inf_nan: bool = False) -> None:
        cls.__pydantic_config__ = MappingProxyType({"strict": True, "extra": extra, "allow_inf_nan": allow_inf_nan})

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Callable[[Any], Schema]) -> Schema:
        """Accept a dict for the object, which strict mode would refuse; its values are validated strictly."""
        return {**handler(source), "strict": False}


class Lax:
    """Marks types that JSON lacks: a tuple, which is a list there, or a number as a key, ``Annotated[int, Lax()]``."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Schema]) -> Schema:
        return {**handler(source), "strict": False}


def read_json(path: Path, shape: type[T]) -> T:
    """Read a JSON file as a type. Raises `OSError`, and `ValueError` as `validated` does."""
    return validated(shape, parse_json(path.read_text(encoding="utf-8-sig")))


def validated(shape: type[T], value: object) -> T:
    """Return a JSON value as a type. Raises `ValueError` with all problems in one line."""
    from pydantic import ValidationError

    adapter: TypeAdapter[T] = _adapter(shape)  # type: ignore[arg-type]  # types are hashable
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise ValueError(join("; ", _problems(error))) from None


def problems(shape: type[T], value: object, named: Callable[[str], str] = str) -> list[str]:
    """Return the problems of a JSON value, one message each; ``named`` formats the place of a value."""
    from pydantic import ValidationError

    adapter: TypeAdapter[T] = _adapter(shape)  # type: ignore[arg-type]
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        return _problems(error, named)
    return []


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    is_own = isinstance(shape, type) and issubclass(shape, FromJSON)
    return TypeAdapter(shape, config=None if is_own else ConfigDict(strict=True, allow_inf_nan=False))


def _problems(raised: ValidationError, named: Callable[[str], str] = str) -> list[str]:
    found: list[str] = []
    errors = raised.errors(include_url=False)
    for error in errors[:MOST]:
        place, got, about = _place(error["loc"]), _shown(error["input"]), error.get("ctx", {})
        name = named(place) if place else msg("it")
        match error["type"]:
            case kind if kind in KINDS:
                found.append(msg("{name} must be {kind} (got {got})", name=name, kind=KINDS[kind], got=got))
            case "greater_than_equal":
                found.append(
                    msg("{name} must be at least {least} (got {got})", name=name, least=_bound(about["ge"]), got=got)
                )
            case "greater_than":
                found.append(
                    msg("{name} must be above {least} (got {got})", name=name, least=_bound(about["gt"]), got=got)
                )
            case "less_than_equal":
                found.append(
                    msg("{name} must be at most {most} (got {got})", name=name, most=_bound(about["le"]), got=got)
                )
            case "less_than":
                found.append(
                    msg("{name} must be below {most} (got {got})", name=name, most=_bound(about["lt"]), got=got)
                )
            case "literal_error":
                choices = re.sub("'(.*?)'", r"\1", about["expected"].replace(" or ", ", "))
                found.append(msg("{name} must be one of {choices} (got {got})", name=name, got=got, choices=choices))
            case "missing":
                found.append(msg("{name} is missing", name=name))
            case "too_long":
                found.append(
                    msg(
                        "{name} must hold at most {max_length:,} (got {actual_length:,})",
                        name=name,
                        max_length=about["max_length"],
                        actual_length=about["actual_length"],
                    )
                )
            case "unexpected_keyword_argument":
                found.append(msg("{name} is unknown", name=name))
            case "value_error":
                found.append(first_line(about["error"]))
            case _:
                found.append(msg("{name} has a value that cannot be used (got {got})", name=name, got=got))
    if len(errors) > MOST:
        found.append(msg("{n} more of this kind", n=len(errors) - MOST))
    return found


def _place(keys: Iterable[str | int]) -> str:
    """Return the place of a value, ``splits.train.n_tokens`` or ``steps[0]``; "" for the whole."""
    known = (key for key in keys if key != "[key]")  # pydantic's name for an invalid key
    named = ((key, key if isinstance(key, int) or _PLAIN.fullmatch(key) else _shown(key)) for key in known)
    parts = (f"[{name}]" if isinstance(key, int) else f".{name}" for key, name in named)
    return "".join(parts).removeprefix(".")


_PLAIN = re.compile(r"[\w-]{1,40}")
"""Keys that are shown without quotes."""


def _bound(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _shown(value: object) -> str:
    """Return a value as Python writes it, shortened if it is long."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python does not write numbers of more than 4300 digits
        return "thousands of digits"
