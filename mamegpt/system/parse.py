"""JSON and TOML, with reasons that can be translated where text is neither."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

from mamegpt.messages import Message, msg

__all__ = ["ParseError", "parse_json", "parse_toml"]

REASONS = {
    "Expecting value": msg("a value is missing"),
    "Expecting property name enclosed in double quotes": msg("a name in double quotes is missing"),
    "Expecting ':' delimiter": msg("a colon is missing"),
    "Expecting ',' delimiter": msg("a comma is missing"),
    "Illegal trailing comma before end of": msg("there is a comma too many"),
    "Extra data": msg("text follows the value"),
    "Unterminated string": msg("a string does not end"),
    "Invalid control character": msg("a line break or another control character is in a string"),
    "Found invalid character": msg("a line break or another control character is in a string"),
    "Illegal character": msg("a line break or another control character is in a string"),
    "Invalid \\": msg("a backslash must begin an escape such as \\n, or be doubled"),
    "Unescaped '\\'": msg("a backslash must begin an escape such as \\n, or be doubled"),
    "Invalid value": msg("a value must be a string in quotes, a number, true or false"),
    "Expected '=' after a key": msg("an equals sign is missing"),
    "Expected newline or end of document": msg("text follows the value"),
    "Cannot overwrite a value": msg("a name is there twice"),
    "Cannot declare": msg("a name is there twice"),
    "Expected ']'": msg("a closing bracket is missing"),
    "Unclosed array": msg("a closing bracket is missing"),
    "Invalid statement": msg("a line is not NAME = VALUE"),
    "Invalid initial character for a key": msg("a line is not NAME = VALUE"),
}
"""How the reasons of Python's parsers begin, and what we say instead; the first counts, and others stay English."""
_PLACE = re.compile(r"(?P<said>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", re.DOTALL)


class ParseError(ValueError):
    """Text is not what it is read as: why, in which line and at which character of it, both from 1 on."""

    def __init__(self, said: str, line: int, column: int) -> None:
        self.reason = next((ours for theirs, ours in REASONS.items() if said.startswith(theirs)), Message(said))
        self.line, self.column = line, column
        super().__init__(msg("line {line}, character {column}: {reason}", line=line, column=column, reason=self.reason))


def parse_json(text: str | bytes) -> Any:
    """Return the value of JSON text.

    Raises `ParseError`; or another `ValueError`, for bytes that are not text and for what is nested too deeply.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ParseError(error.msg, error.lineno, error.colno) from None
    except RecursionError:
        raise ValueError(msg("it is nested too deeply")) from None


def parse_toml(text: str) -> dict[str, Any]:
    """Return the values of TOML text. Raises `ParseError`, or another `ValueError` for what is nested too deeply."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _PLACE.fullmatch(str(error))
        said = found["said"] if found else str(error)
        before = text.rstrip()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        if found and found["line"]:
            line, column = int(found["line"]), int(found["column"])
        raise ParseError(said, line, column) from None
    except RecursionError:
        raise ValueError(msg("it is nested too deeply")) from None
