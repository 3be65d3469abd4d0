"""Pages of parquet read as they lie in the file: the same rows and texts as Arrow's own reader has."""

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mamegpt.data.readers.parquet_pages import can_read, read_pages
from mamegpt.data.readers.prefilter import rows_with_any
from mamegpt.data.readers.read import read_file
from mamegpt.data.schema import Schema
from mamegpt.errors import DataError

NEEDLES = [b"\0", "京都".encode(), b"\x03\0"]


def rows(null_share: float, n: int = 700) -> list[str | None]:
    """Texts of all lengths, many of them twice; some with a NUL, one with the bytes of a length."""
    dice = random.Random(n)
    words = ["京都", "東京", "a", "", "\0", "\3\0", "の" * 90, "京"]
    texts = ["".join(dice.choices(words, (1, 9, 9, 9, 0.1, 0.1, 5, 5), k=dice.randrange(9))) for _ in range(n // 2)]
    return [None if dice.random() < null_share else dice.choice(texts) for _ in range(n)]


def read(path, needles):
    """(the texts of all rows, whether each has a needle), and how many pages there were."""
    texts, found, n_pages = [], [], 0
    metadata = pq.read_metadata(path)
    column = metadata.schema.column(0)
    with path.open("rb") as file:
        for group in range(metadata.num_row_groups):
            chunk = metadata.row_group(group).column(0)
            assert can_read(chunk, column)
            for page in read_pages(file, chunk, column):
                n_pages += 1
                found += page.with_any(needles).tolist()
                texts += [page.text(row) for row in range(page.n_rows)]
    return texts, found, n_pages


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("null_share", [None, 0, 0.3, 1])
def test_rows_and_hits_are_those_of_arrow(tmp_path, compression, version, dictionary, null_share):
    expected = rows(null_share or 0)
    schema = pa.schema([pa.field("text", pa.string(), nullable=null_share is not None)])
    pq.write_table(
        pa.table({"text": expected}, schema),
        tmp_path / "a.parquet",
        compression=compression,
        row_group_size=400,
        data_page_version=version,
        use_dictionary=dictionary,
        data_page_size=1000,
        write_batch_size=50,
    )
    texts, found, n_pages = read(tmp_path / "a.parquet", NEEDLES)
    assert texts == expected
    assert found == [row is not None and any(needle in row.encode() for needle in NEEDLES) for row in expected]
    assert n_pages > 2 or dictionary or null_share == 1
    assert null_share == 1 or 0 < sum(found) < len(expected)


def test_one_value_long_headers_and_a_needle_like_a_length(tmp_path, monkeypatch):
    monkeypatch.setattr("mamegpt.data.readers.parquet_pages.HEADER_BYTES", 2)
    pq.write_table(pa.table({"text": ["京都"] * 9}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", ["京都".encode()])[1] == [True] * 9
    # the needle stands over the end of the first value and the length of the second
    pq.write_table(pa.table({"text": ["ab", "cd", "ab\2"]}), tmp_path / "a.parquet", use_dictionary=False)
    assert read(tmp_path / "a.parquet", [b"b\2"])[1] == [False, False, True]


@pytest.mark.parametrize(
    ("column", "options"),
    [
        (["京都"], {"column_encoding": "DELTA_BYTE_ARRAY", "use_dictionary": False}),
        (["京都"], {"compression": "lz4"}),
        ([["京都"]], {}),
        ([1], {}),
    ],
)
def test_what_is_not_known_is_left_to_arrow(tmp_path, column, options):
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet", **options)
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    assert not can_read(metadata.row_group(0).column(0), metadata.schema.column(0))
    if column == ["京都"]:
        (batch,) = read_file(tmp_path / "a.parquet", Schema(), [["京都".encode()]])
        assert batch.records == [(0, "", "京都")]


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"data_page_version": "2.0"}])
def test_damage_anywhere_is_one_clear_error_or_none(tmp_path, options):
    """Any byte of a page may be wrong: what then cannot be read is said in one line, and never a crash."""
    path = tmp_path / "a.parquet"
    table = pa.table({"title": [f"{i}" for i in range(60)], "text": [f"{i}番の京都" for i in range(60)]})
    pq.write_table(table, path, row_group_size=20, compression="none", **options)
    whole = path.read_bytes()
    pages_end = (
        len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    )  # then comes the footer, which is Arrow's affair
    dice, said = random.Random(0), 0
    for at in dice.sample(range(4, pages_end), 150):
        damaged = bytearray(whole)
        damaged[at] ^= dice.choice([1, 0x80, 0xFF])
        path.write_bytes(damaged)
        try:
            list(read_file(path, Schema(), [["京都".encode()]]))
        except DataError as error:
            said += 1
            assert "\n" not in str(error) and str(path) in str(error)
    assert said


def test_titles_and_numbers_of_rows_go_along(tmp_path):
    table = pa.table({"title": [f"題{i}" for i in range(90)], "text": ["東京"] * 40 + [None] + ["京都"] * 49})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=30)
    wanted = [["題7".encode(), "京都".encode()]]
    batches = list(read_file(tmp_path / "a.parquet", Schema(), wanted))
    found = [record for batch in batches for record in batch.records]
    assert sum(batch.n_read for batch in batches) == 90
    assert [number for number, _, _ in found] == [7, *range(41, 90)]
    assert found[0] == (7, "題7", "東京") and found[1] == (41, "題41", "京都")
    assert np.all([title == f"題{number}" for number, title, _ in found])


@pytest.mark.parametrize("needles", [[], [["京都".encode()]]])
def test_text_that_is_not_utf8_is_one_clear_error(tmp_path, needles):
    raw = pa.array([b"\xff" + "京都".encode()], pa.binary())
    column = pa.StringArray.from_buffers(1, raw.buffers()[1], raw.buffers()[2])
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet holds text that is not UTF-8"):
        list(read_file(tmp_path / "a.parquet", Schema(), needles))


@st.composite
def needles_and_rows(draw):
    """Byte strings to look for, and rows made of their own pieces, so that they also stand over the ends of rows."""
    wanted = draw(st.lists(st.text("豆鈴木ab\0\3", min_size=1, max_size=3), min_size=1, max_size=4, unique=True))
    pieces = [word[a:b] for word in wanted for a in range(len(word)) for b in range(a + 1, len(word) + 1)]
    row = st.lists(st.sampled_from([*pieces, "。"]), max_size=4).map("".join)
    return [word.encode() for word in wanted], draw(st.lists(st.none() | row, max_size=12))


def naive(needles, rows):
    """The search that the fast ones are held to."""
    return [row is not None and any(needle in row.encode() for needle in needles) for row in rows]


@settings(max_examples=300, deadline=None)
@given(needles_and_rows())
@example(([*map(str.encode, ["豆", "鈴木"])], ["豆まつりの朝、鈴", "木の橋をわたる。豆だ。"]))
def test_a_search_is_the_naive_one_and_monotone(drawn):
    needles, rows = drawn
    column = pa.array(["鈴", *rows, "木"])[1:-1]
    assert rows_with_any(column, needles).tolist() == naive(needles, rows)
    each = [rows_with_any(column, [needle]) for needle in needles]
    assert rows_with_any(column, needles).tolist() == np.logical_or.reduce(each).tolist()


@settings(max_examples=100, deadline=None)
@given(
    needles_and_rows(),
    st.sampled_from(["none", "snappy", "gzip", "brotli", "zstd", "lz4"]),
    st.sampled_from(["1.0", "2.0"]),
    st.booleans(),
    st.booleans(),
)
@example(([b"ab", b"ba"], ["xab", "bax", "ab\2"]), "none", "1.0", False, True)
def test_a_file_is_filtered_as_by_the_naive_search(tmp_path_factory, drawn, codec, version, dictionary, by_arrow):
    """Both ways of reading a column, in both columns: a record is left out only if neither has any of the needles."""
    needles, texts = drawn
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
    with pytest.MonkeyPatch.context() as patch:
        if by_arrow:
            patch.setattr("mamegpt.data.readers.parquet.can_read", lambda chunk, column: False)
        read = [number for batch in read_file(path, Schema(), [needles]) for number, _, _ in batch.records]
    both = zip(naive(needles, titles), naive(needles, texts), strict=True)
    assert read == [number for number, found in enumerate(both) if any(found)]
