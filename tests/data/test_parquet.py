"""Rows of parquet files: those that are wanted, with their numbers, whoever wrote the file and however."""

import random
import re
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mamegpt.data.readers.parquet import CALLS_AHEAD, THREADS, _pieces
from mamegpt.data.readers.read import read_file
from mamegpt.data.schema import Schema
from mamegpt.errors import DataError

CODECS = ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]


def records(path, *expressions):
    wanted = [[one] for one in expressions]
    return [record for batch in read_file(path, Schema(), wanted) for record in batch.records]


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"data_page_version": "2.0"}])
def test_damage_anywhere_is_one_clear_error_or_none(tmp_path, options):
    """Any byte of a page may be wrong: what then cannot be read is said in one line, and never a crash."""
    path = tmp_path / "a.parquet"
    table = pa.table({"title": [f"{i}" for i in range(60)], "text": [f"{i}番の京都" for i in range(60)]})
    pq.write_table(table, path, row_group_size=20, compression="none", **options)
    whole = path.read_bytes()
    pages_end = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")  # then comes the footer
    dice, said = random.Random(0), 0
    for at in dice.sample(range(4, pages_end), 150):
        damaged = bytearray(whole)
        damaged[at] ^= dice.choice([1, 0x80, 0xFF])
        path.write_bytes(damaged)
        try:
            records(path, "京都")
        except DataError as error:
            said += 1
            assert "\n" not in str(error) and str(path) in str(error)
    assert said


def test_titles_and_numbers_of_rows_go_along(tmp_path):
    table = pa.table({"title": [f"題{i}" for i in range(90)], "text": ["東京"] * 40 + [None] + ["京都"] * 49})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=30)
    batches = list(read_file(tmp_path / "a.parquet", Schema(), [["題7$", "京都"]]))
    found = [record for batch in batches for record in batch.records]
    assert sum(batch.n_read for batch in batches) == 90
    assert found == [(7, "題7", "東京"), *((i, f"題{i}", "京都") for i in range(41, 90))]
    assert records(tmp_path / "a.parquet", "題7", "京都") == [(i, f"題{i}", "京都") for i in range(70, 80)]


@pytest.mark.parametrize("expressions", [[], ["京都"]])
def test_text_that_is_not_utf8_is_one_clear_error(tmp_path, expressions):
    raw = pa.array([b"\xff" + "京都".encode()], pa.binary())
    column = pa.StringArray.from_buffers(1, raw.buffers()[1], raw.buffers()[2])
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet has text that is not UTF-8"):
        records(tmp_path / "a.parquet", *expressions)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_every_kind_of_string_is_searched(tmp_path, kind):
    pq.write_table(pa.table({"text": pa.array(["東京", None, "京都"], kind)}), tmp_path / "a.parquet")
    assert records(tmp_path / "a.parquet", "京都") == [(2, "", "京都")]
    assert records(tmp_path / "a.parquet") == [(0, "", "東京"), (1, "", ""), (2, "", "京都")]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.none() | st.lists(st.sampled_from(["京都", "京", "都", "a", "\0", "。"]), max_size=4).map("".join),
        max_size=12,
    ),
    st.lists(st.sampled_from(["京[都a]", "a|\\x00", "。$"]), min_size=1, max_size=2, unique=True),
    st.sampled_from(CODECS),
    st.sampled_from(["1.0", "2.0"]),
    st.booleans(),
)
def test_a_file_is_filtered_as_by_the_naive_search(tmp_path_factory, texts, expressions, codec, version, dictionary):
    """In both columns: a record is left out only if an expression is in neither."""
    path = tmp_path_factory.getbasetemp() / "filtered.parquet"
    titles = [None, *texts][: len(texts)]
    pq.write_table(
        pa.table({"title": pa.array(titles, pa.string()), "text": pa.array(texts, pa.string())}),
        path,
        compression=codec,
        data_page_version=version,
        use_dictionary=dictionary,
        row_group_size=5,
        data_page_size=20,
        write_batch_size=2,
    )
    both = [[string or "" for string in pair] for pair in zip(titles, texts, strict=True)]
    wanted = [all(any(re.search(e, string) for string in pair) for e in expressions) for pair in both]
    assert [number for number, _, _ in records(path, *expressions)] == [i for i, found in enumerate(wanted) if found]


@pytest.mark.parametrize(("row_group_size", "most_ahead"), [(1000, THREADS + 1), (250, CALLS_AHEAD * (THREADS + 1))])
def test_row_groups_are_read_as_streams_and_little_ahead(tmp_path, monkeypatch, row_group_size, most_ahead):
    monkeypatch.setattr("mamegpt.data.readers.parquet.BATCH_BYTES", 4_000)
    texts = [f"京都{i}" + "の" * 300 for i in range(1000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=row_group_size)
    decoded, before = [], threading.active_count()
    monkeypatch.setattr("mamegpt.data.readers.parquet._plain", lambda column: decoded.append(len(column)) or column)
    batches = read_file(tmp_path / "a.parquet", Schema(), [["京都"]])
    first = next(batches)
    assert 1 < len(first.records) < 20
    batches.close()
    assert sum(decoded) <= (most_ahead + CALLS_AHEAD + 1) * len(first.records) < 500
    assert threading.active_count() == before
    assert records(tmp_path / "a.parquet", "京都") == [(i, "", text) for i, text in enumerate(texts)]


def test_after_a_long_dictionary_few_rows_are_read_at_once(tmp_path, monkeypatch):
    """A row group too large to say how long its texts are at most: its dictionary is asked."""
    monkeypatch.setattr("mamegpt.data.readers.parquet.MAX_BATCH_BYTES", 100_000)
    monkeypatch.setattr("mamegpt.data.readers.parquet._arrays", _pieces)
    long = ["犬" * 10_000, *(f"猫{i}" + "の" * 300 for i in range(1000))]
    pq.write_table(
        pa.table({"text": long}), tmp_path / "a.parquet", dictionary_pagesize_limit=40_000, write_batch_size=1
    )
    sizes = [len(batch.records) for batch in read_file(tmp_path / "a.parquet", Schema())]
    assert sum(sizes) == 1001 and set(sizes[:-1]) == {2}
