"""JSON and TOML: values as Python's parsers read them; of anything else a reason and its place, in both languages."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamegpt.errors import ConfigError
from mamegpt.messages import translate
from mamegpt.system.parse import ParseError, parse_json, parse_toml

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_json_is_read_as_by_python(value: Any) -> None:
    text = json.dumps(value)
    assert parse_json(text) == parse_json(text.encode()) == value


@given(st.text("{}[]=,.:\"'\\nul 1a\n#", max_size=12))
def test_what_python_reads_is_read_and_what_it_refuses_is_refused(text: str) -> None:
    for ours, theirs in ((parse_json, json.loads), (parse_toml, tomllib.loads)):
        try:
            expected = theirs(text)
        except ValueError:
            with pytest.raises(ParseError, match=r"^line \d+, character \d+: "):
                ours(text)
        else:
            assert ours(text) == expected


@pytest.mark.parametrize(
    ("parse", "text", "line", "column", "reason", "japanese"),
    [
        (parse_json, "", 1, 1, "a value is missing", "値がありません"),
        (parse_json, '{\n"a" 1}', 2, 5, "a colon is missing", "コロン"),
        (parse_json, '{"a": 1 "b": 2}', 1, 9, "a comma is missing", "カンマ"),
        (parse_json, "{'a': 1}", 1, 2, "a name in double quotes is missing", "二重引用符"),
        (parse_json, "1 2", 1, 3, "text follows the value", "値の後"),
        (parse_json, '"豆', 1, 1, "a string does not end", "閉じられていません"),
        (parse_json, '"豆\n"', 1, 3, "a line break or another control character is in a string", "制御文字"),
        (parse_json, r'"\q"', 1, 2, "a backslash must begin an escape such as \\n, or be doubled", "エスケープ"),
        (parse_toml, "lr =", 1, 5, "a value must be a string in quotes, a number, true or false", "引用符で囲んだ"),
        (parse_toml, "a = 1\nlr 3", 2, 4, "an equals sign is missing", "等号"),
        (parse_toml, "a = 1 b = 2", 1, 7, "text follows the value", "値の後"),
        (parse_toml, "a = 1\na = 2\n", 2, 6, "a name is there twice", "2 回"),
        (parse_toml, 'a = "豆', 1, 7, "a string does not end", "閉じられていません"),
        (parse_toml, "[t", 1, 3, "a closing bracket is missing", "閉じ括弧"),
        (parse_toml, "= 3", 1, 1, "a line is not NAME = VALUE", "名前 = 値"),
    ],
)
def test_a_reason_is_a_sentence_of_ours_with_its_place(
    parse: Callable[[str], Any], text: str, line: int, column: int, reason: str, japanese: str
) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    error = caught.value
    assert (error.line, error.column, error.reason) == (line, column, reason)
    assert str(error) == f"line {line}, character {column}: {reason}"
    told = translate(ConfigError("--cluster {path} is not TOML: {reason}", path="a", reason=error).message, "ja")
    assert f"{line} 行目の {column} 文字目: " in told and japanese in told
    assert not re.search(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}", told)


@pytest.mark.parametrize("parse", [parse_json, parse_toml])
def test_what_is_nested_too_deeply_is_refused(parse: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse("a = " * (parse is parse_toml) + "[" * 100_000)
