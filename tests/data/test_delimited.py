"""Rows of csv and tsv files: quoting, columns, encodings, limits, and what is no such file."""

from __future__ import annotations

import csv
import io
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamegpt.data.readers.read import Layout, describe, has_text, read_file
from mamegpt.data.schema import Schema
from mamegpt.data.sources import read_documents
from mamegpt.errors import DataError


def records(path: Path, **schema: str) -> list[tuple[str, str]]:
    return [(title, text) for batch in read_file(path, Schema(**schema)) for _, title, text in batch.records]


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_fields_may_hold_delimiters_quotes_and_line_ends(tmp_path: Path, suffix: str, delimiter: str) -> None:
    lines = ["title|text", '"豆| 京都"|"「""豆""」は|\r\n\r\n食べ物。"', "|終", ""]
    path = written(tmp_path / f"a{suffix}", "\r\n".join(lines).replace("|", delimiter))
    expected = [(f"豆{delimiter} 京都", f'「"豆"」は{delimiter}\n\n食べ物。'), ("", "終")]
    assert records(path) == expected
    assert [document.id for document in read_documents(path)] == [f"a{suffix}#0", f"a{suffix}#1"]


FIELDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\ufeff"), max_size=9)


@given(rows=st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=5), suffix=st.sampled_from(["csv", "tsv"]))
def test_what_the_csv_module_writes_is_read(rows: list[tuple[str, str]], suffix: str, tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.getbasetemp() / f"rows.{suffix}"
    file = io.StringIO()
    csv.writer(file, "excel" if suffix == "csv" else "excel-tab").writerows([("title", "text"), *rows])
    assert records(written(path, file.getvalue())) == rows


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp932", "euc-jp", "utf-16"])
def test_encodings_and_byte_order_marks(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path / "a.csv", "title,text\n豆,京都の豆。\n" * 1, encoding)
    named = "utf-8" if encoding == "utf-8-sig" else encoding
    assert records(path, encoding=named) == [("豆", "京都の豆。")]
    if named != "utf-8":
        with pytest.raises(DataError, match=r"a\.csv is not UTF-8 text at byte \d+"):
            records(path)


@pytest.mark.parametrize(
    ("head", "row", "schema", "layout"),
    [
        ("id,body,score", "7,犬,0.5", {}, ("body", "")),
        ("id,title,body", ",猫,犬", {}, ("body", "title")),
        ("url,body", "http://x/,犬", {"text_column": "body"}, ("body", "")),
        ("head,text", "猫,犬", {"title_column": "head"}, ("text", "head")),
        ("text,text2", "犬,3", {}, ("text", "")),
    ],
)
def test_columns_are_named_or_guessed(
    tmp_path: Path, head: str, row: str, schema: dict[str, str], layout: tuple[str, str]
) -> None:
    path = written(tmp_path / "a.csv", f"{head}\n{row}\n\n{row}\n")
    assert records(path, **schema) == [("猫" if layout[1] else "", "犬")] * 2
    assert describe(path, Schema(**schema)) == Layout("column", *layout)


def test_what_holds_no_text_is_known(tmp_path: Path) -> None:
    assert not has_text(written(tmp_path / "a.csv", "id,score\n1,0.5\n"), Schema())
    assert not has_text(written(tmp_path / "b.csv", "url,license\nx,y\n"), Schema())
    assert not has_text(written(tmp_path / "c.csv", ""), Schema())
    assert has_text(written(tmp_path / "d.csv", "id,body\n1,y\n"), Schema())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text\n犬\n猫,鳥\n", "line 3: 2 fields, where the first row has 1"),
        ("title,text\n犬,猫\n\n鳥\n", "line 4: 1 fields, where the first row has 2"),
        ('text\n犬\n"猫\n鳥', r"line 3: not quoted as csv is \(unexpected end of data\)"),
        ('text\n"犬"猫\n', r"line 2: not quoted as csv is \(',' expected after '\"'\)"),
        ("id,score\n1,2\n", r"none of \['id', 'score'\] contains strings"),
        ("a,b\n犬,猫\n", r"cannot tell which of \['a', 'b'\] is the text"),
        ("text,text\n犬,猫\n", "2 columns are called 'text'"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(DataError, match=rf"a\.csv(, |: ){said}"):
        records(written(tmp_path / "a.csv", content))


@pytest.mark.parametrize("content", ["", "text\n", "\n\ntitle,text\n"])
def test_a_table_without_rows_holds_no_text(tmp_path: Path, content: str) -> None:
    assert records(written(tmp_path / "a.csv", content)) == []


def test_a_line_of_very_many_fields_is_refused_and_one_long_field_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "犬,。" * 100_000
    assert records(written(tmp_path / "a.csv", f'text\n"{long}"\n')) == [("", long)]
    monkeypatch.setattr("mamegpt.data.readers.delimited.MAX_FIELDS", 10)
    assert records(tmp_path / "a.csv") == [("", long)]
    with pytest.raises(DataError, match=r"a\.csv, line 1 has more than 10 fields"):
        records(written(tmp_path / "a.csv", "," * 100))


def test_a_field_without_an_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mamegpt.data.readers.delimited.MAX_LINE_CHARACTERS", 200_000)
    with pytest.raises(DataError, match=r"line 2: not quoted as csv is \(field larger than field limit \(200000\)"):
        records(written(tmp_path / "a.csv", 'text\n"' + "犬。\n" * 100_000))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for n in (2_000, 20_000):
        path = written(tmp_path / f"{n}.csv", "title,text\n" + f"豆,{'京都の豆。' * 40}\n" * n)
        tracemalloc.start()
        assert sum(batch.n_read for batch in read_file(path, Schema())) == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
