import json
from dataclasses import replace
from pathlib import Path

import pytest

from mamegpt.errors import ConfigError, DataError, OutputError
from mamegpt.extract import extract
from mamegpt.sources import read_documents
from mamegpt.text import fold, parse_wiki40b

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
ROWS = [
    {"title": "ファミコン", "text": "家庭用ゲーム機。"},
    {"title": "任天堂", "text": "\nﾌｧﾐｺﾝを\r\n発売した。か\u3099っき▁\n"},
    {"title": "京都", "text": "みやこ。"},
    {"title": "写し", "text": "ファミコンを発売した。 がっき_"},
    {"title": "ファミコン", "text": " \u3000\n\u0000"},
    {"title": "", "text": "題のないファミコンの文。"},
]
EXPECTED = (
    "【ファミコン】\n家庭用ゲーム機。\n\n"
    "【任天堂】\nﾌｧﾐｺﾝを\n発売した。がっき_\n\n"
    "【無題】\n題のないファミコンの文。\n\n"
)


@pytest.fixture
def corpus(tmp_path) -> str:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return str(path)


def test_what_is_kept_what_is_dropped_and_why(corpus, tmp_path):
    out = tmp_path / "new" / "topic.txt"
    progress = []
    report = extract(corpus, "train", "ﾌｧﾐｺﾝ", out, on_progress=lambda read, kept: progress.append((read, kept)))
    assert out.read_bytes().decode("utf-8") == EXPECTED
    assert (report.read, report.kept) == (6, 3)
    assert report.dropped == {"empty": 1, "no keyword": 1, "duplicate": 1}
    assert report.read == report.kept + sum(report.dropped.values())
    assert (report.n_characters, report.n_bytes) == (len(EXPECTED), out.stat().st_size)
    assert report.out == out
    assert progress == [(6, 3)]


def test_the_table(corpus, tmp_path):
    report = extract(corpus, "train", "ファミコン", tmp_path / "topic.txt")
    report = replace(report, read=12345, out=Path("topic.txt"), elapsed_s=1.26)
    assert report.table().splitlines() == [
        "read                 12,345",
        "kept                      3",
        "dropped, empty            1",
        "dropped, no keyword       1",
        "dropped, duplicate        1",
        f"characters               {report.n_characters}",
        f"bytes                   {report.n_bytes}",
        "wrote topic.txt in 1.3 s",
    ]


def test_the_output_is_a_source_that_gives_itself(corpus, tmp_path):
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    extract(corpus, "train", "ファミコン", first)
    report = extract(str(first), "train", "ファミコン", second)
    assert second.read_bytes() == first.read_bytes()
    assert (report.read, report.kept) == (3, 3)


def test_progress_comes_every_thousand_documents(tmp_path):
    source = tmp_path / "many.jsonl"
    source.write_text("".join(f'{{"text": "京都{i}"}}\n' for i in range(2500)), encoding="utf-8")
    progress = []
    extract(str(source), "train", "京都", tmp_path / "out.txt", on_progress=lambda *now: progress.append(now))
    assert progress == [(1000, 1000), (2000, 2000), (2500, 2500)]


def test_an_existing_file_is_replaced_unless_that_is_refused(corpus, tmp_path):
    out = tmp_path / "topic.txt"
    out.write_text("old", encoding="utf-8")
    with pytest.raises(OutputError, match="already exists"):
        extract(corpus, "train", "ファミコン", out, overwrite=False)
    assert out.read_text(encoding="utf-8") == "old"
    extract(corpus, "train", "ファミコン", out)
    assert out.read_text(encoding="utf-8") == EXPECTED


class Interrupted(Exception):
    """Stands for Ctrl-C."""


def interrupt(read: int, kept: int) -> None:
    raise Interrupted


def test_whatever_goes_wrong_the_old_file_stays_and_nothing_else_is_left(corpus, tmp_path):
    out = tmp_path / "out" / "topic.txt"
    out.parent.mkdir()
    out.write_text("old", encoding="utf-8")
    with pytest.raises(DataError, match=r"none of the 6 documents of .*corpus\.jsonl \(train\) .* 'ドリキャス'"):
        extract(corpus, "train", "ドリキャス", out)

    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text('{"text": "京都"}\n' * 1000 + "{", encoding="utf-8")
    with pytest.raises(DataError, match="line 1001"):
        extract(str(damaged), "train", "京都", out)
    with pytest.raises(Interrupted):
        extract(str(damaged), "train", "京都", out, on_progress=interrupt)
    with pytest.raises(DataError, match="no split 'test'"):
        extract(corpus, "test", "京都", out)
    assert out.read_text(encoding="utf-8") == "old"
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("keyword", ["", " ", "\u3000"])
def test_an_empty_keyword_is_refused(corpus, tmp_path, keyword):
    with pytest.raises(ConfigError, match="--keyword is empty"):
        extract(corpus, "train", keyword, tmp_path / "topic.txt")


def test_a_place_that_cannot_be_written_is_an_error(corpus, tmp_path):
    with pytest.raises(OutputError, match="is a folder"):
        extract(corpus, "train", "京都", tmp_path)
    with pytest.raises(OutputError, match="cannot be written"):
        extract(corpus, "train", "京都", Path(corpus) / "below_a_file.txt")


@pytest.mark.skipif(not (DATA / "wiki_ja").is_dir(), reason="the data folder is not there")
def test_real_wiki_against_the_plain_loop(tmp_path):
    import pyarrow.parquet as pq

    out = tmp_path / "kyoto.txt"
    report = extract(str(DATA / "wiki_ja"), "validation", "京都", out)
    raw = pq.read_table(DATA / "wiki_ja" / "validation.parquet")["text"].to_pylist()
    expected = [parse_wiki40b(row) for row in raw if "京都" in fold(row)]
    written = out.read_text(encoding="utf-8")
    assert report.read == len(raw)
    assert report.kept == len(expected) > 100
    assert [d.title for d in read_documents(out)] == [title for title, _ in expected]
    assert not any(part in written for part in ("_START_", "_NEWLINE_", "【】", "【無題】\n", "\r"))
