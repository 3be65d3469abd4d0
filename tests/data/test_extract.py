import errno
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little import ROOT

from mamegpt.cli.render.data import extract_table, hit_line, reading_line
from mamegpt.data.events import Counted, Reading
from mamegpt.data.extract.extract import extract, preview_hits
from mamegpt.data.extract.topic import Topic
from mamegpt.data.readers.read import Layout
from mamegpt.data.sources import read_documents
from mamegpt.errors import ConfigError, DataError, OutputError
from mamegpt.text.articles import parse_wiki40b
from mamegpt.text.folding import fold

DATA = ROOT.parent / "shared" / "data"
ROWS = [
    {"title": "ファミコン", "text": "家庭用ゲーム機。"},
    {"title": "任天堂", "text": "\nﾌｧﾐｺﾝを\r\n発売した。か\u3099っき▁\n"},
    {"title": "京都", "text": "みやこ。"},
    {"title": "写し", "text": "ﾌｧﾐｺﾝを発売した。 がっき_"},
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
    events = []
    report = extract(corpus, "ﾌｧﾐｺﾝ", out, on_event=events.append)
    assert out.read_bytes().decode("utf-8") == EXPECTED
    assert (report.read, report.kept) == (6, 3)
    assert report.dropped == {"empty": 1, "no keyword": 1, "duplicate": 1}
    assert report.read == report.kept + sum(report.dropped.values())
    assert (report.n_characters, report.n_bytes) == (len(EXPECTED), out.stat().st_size)
    assert report.out == out
    assert events == [Reading("corpus.jsonl", 1, Layout("key", "text", "title")), Counted(6, 3)]


def test_the_table(corpus, tmp_path):
    report = extract(corpus, "ファミコン", tmp_path / "topic.txt")
    report = replace(report, read=12345, out=Path("topic.txt"), elapsed_s=1.26)
    assert extract_table(report).splitlines() == [
        "read                 12,345",
        "kept                      3",
        "dropped, empty            1",
        "dropped, no keyword       1",
        "dropped, duplicate        1",
        "hits, ファミコン          3 in 3 documents",
        f"characters               {report.n_characters}",
        f"bytes                   {report.n_bytes}",
        "wrote topic.txt in 1.3 s",
    ]


def test_the_output_is_a_source_that_gives_itself(corpus, tmp_path):
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    extract(corpus, "ファミコン", first)
    report = extract(str(first), "ファミコン", second)
    assert second.read_bytes() == first.read_bytes()
    assert (report.read, report.kept) == (3, 3)


@pytest.mark.parametrize("name", ["few.txt", "few.jsonl", "few.parquet"])
def test_all_that_is_kept_is_in_the_file_however_little_it_is(corpus, tmp_path, name):
    report = extract(corpus, "ファミコン", tmp_path / name)
    assert len(list(read_documents(tmp_path / name))) == report.kept == 3


def test_any_other_name_is_text_as_make_dataset_py_always_had_it(corpus, tmp_path):
    extract(corpus, "ファミコン", tmp_path / "topic.dat")
    assert (tmp_path / "topic.dat").read_text(encoding="utf-8") == EXPECTED


def test_progress_comes_every_thousand_documents(tmp_path):
    source = tmp_path / "many.jsonl"
    source.write_text("".join(f'{{"text": "京都{i}"}}\n' for i in range(2500)), encoding="utf-8")
    events = []
    extract(str(source), "京都", tmp_path / "out.txt", on_event=events.append)
    assert events[1:] == [Counted(1000, 1000), Counted(2000, 2000), Counted(2500, 2500)]


def test_an_existing_file_is_replaced_unless_that_is_refused(corpus, tmp_path):
    out = tmp_path / "topic.txt"
    out.write_text("old", encoding="utf-8")
    with pytest.raises(OutputError, match="already exists"):
        extract(corpus, "ファミコン", out, overwrite=False)
    assert out.read_text(encoding="utf-8") == "old"
    extract(corpus, "ファミコン", out, overwrite=True)
    assert out.read_text(encoding="utf-8") == EXPECTED


def test_what_is_read_is_not_written_over(corpus):
    before = Path(corpus).read_bytes()
    with pytest.raises(OutputError, match="is also read"):
        extract(corpus, "ファミコン", Path(corpus), overwrite=True)
    assert Path(corpus).read_bytes() == before


class Interrupted(Exception):
    """Stands for Ctrl-C."""


def interrupt(event: Reading | Counted) -> None:
    if isinstance(event, Counted):
        raise Interrupted


def test_whatever_goes_wrong_the_old_file_stays_and_nothing_else_is_left(corpus, tmp_path):
    out = tmp_path / "out" / "topic.txt"
    out.parent.mkdir()
    out.write_text("old", encoding="utf-8")
    with pytest.raises(DataError, match=r"none of the 6 documents of .*corpus\.jsonl \(train\) .* 'ドリキャス'"):
        extract(corpus, "ドリキャス", out, overwrite=True)

    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text('{"text": "京都"}\n' * 1000 + "{", encoding="utf-8")
    with pytest.raises(DataError, match="line 1001"):
        extract(str(damaged), "京都", out, overwrite=True)
    with pytest.raises(Interrupted):
        extract(str(damaged), "京都", out, on_event=interrupt, overwrite=True)
    with pytest.raises(DataError, match="no split 'test'"):
        extract(corpus, "京都", out, split="test", overwrite=True)
    assert out.read_text(encoding="utf-8") == "old"
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("keyword", ["", " ", "\u3000"])
def test_an_empty_keyword_is_refused(corpus, tmp_path, keyword):
    with pytest.raises(ConfigError, match="keyword is empty"):
        extract(corpus, keyword, tmp_path / "topic.txt")


def test_a_place_that_cannot_be_written_is_an_error(corpus, tmp_path):
    with pytest.raises(OutputError, match="is a folder"):
        extract(corpus, "京都", tmp_path)
    with pytest.raises(OutputError, match="cannot be written"):
        extract(corpus, "京都", Path(corpus) / "below_a_file.txt")


@pytest.mark.skipif(not (DATA / "wiki_ja").is_dir(), reason="the data folder is not there")
@pytest.mark.filterwarnings(r"ignore:.*\(attribution\.parquet\):mamegpt.errors.MamegptWarning")
def test_real_wiki_against_the_plain_loop(tmp_path):
    out = tmp_path / "kyoto.txt"
    report = extract(str(DATA / "wiki_ja"), "京都", out, split="validation")
    raw = pq.read_table(DATA / "wiki_ja" / "validation.parquet")["text"].to_pylist()
    expected = [parse_wiki40b(row) for row in raw if "京都" in fold(row)]
    written = out.read_text(encoding="utf-8")
    assert report.read == len(raw)
    assert report.kept == len(expected) > 100
    assert [d.title for d in read_documents(out)] == [title for title, _ in expected]
    assert not any(part in written for part in ("_START_", "_NEWLINE_", "【】", "【無題】\n", "\r"))


# Topics


def keep(rows: list[dict[str, str]], folder: Path, **wanted) -> list[tuple[str, str]]:
    """What is kept of these rows, from jsonl; parquet gives the same file and the same report."""
    source, out = folder / "corpus.jsonl", folder / "kept.jsonl"  # a name as long as the other
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    report = extract(str(source), Topic(**wanted), out)
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet", row_group_size=2)
    again = extract(str(folder / "rows.parquet"), Topic(**wanted), folder / "again.jsonl")
    assert (folder / "again.jsonl").read_text("utf-8").replace("rows.parquet#", "corpus.jsonl#") == out.read_text(
        "utf-8"
    )
    assert replace(again, out=out, elapsed_s=0) == replace(report, elapsed_s=0)
    assert report.read == len(rows) == report.kept + sum(report.dropped.values())
    return [(row["title"], row["text"]) for row in map(json.loads, out.read_text("utf-8").splitlines())]


GAMES = [
    {"title": "任天堂", "text": "京都の会社。\nﾌｧﾐｺﾝとＷｉｉ。\n花札。\nファミコンの後。\n終わり。"},
    {"title": "セガ", "text": "東京の会社。\nメガドライブ。"},
    {"title": "京都市", "text": "市。\n任天堂がある。"},
    {"title": "ファミコン", "text": "任天堂のゲーム機。\nwii の前。"},
]


@pytest.mark.parametrize(
    ("wanted", "titles"),
    [
        ({"keywords": ("任天堂", "セガ")}, ["任天堂", "セガ", "京都市", "ファミコン"]),
        ({"keywords": ("任天堂", "京都"), "match": "all"}, ["任天堂", "京都市"]),
        ({"keywords": ("会社",), "exclude": ("ﾒｶﾞﾄﾞﾗｲﾌﾞ",)}, ["任天堂"]),
        ({"keywords": ("wii",)}, ["任天堂", "ファミコン"]),
        ({"regex": ("wii",)}, ["ファミコン"]),
        ({"regex": ("(?i)wii|ドライブ",)}, ["セガ", "ファミコン"]),
        ({"keywords": ("任天堂",), "regex": ("^市",), "match": "all"}, ["京都市"]),
        ({"keywords": ("任天堂",), "title_only": True}, ["任天堂"]),
        ({"keywords": ("ファミコン",), "min_hits": 2}, ["任天堂"]),
    ],
)
def test_which_documents_are_of_a_topic(tmp_path, wanted, titles):
    assert [title for title, _ in keep(GAMES, tmp_path, **wanted)] == titles


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"keywords": ("ファミコン",), "window": 0}, "ﾌｧﾐｺﾝとＷｉｉ。\nファミコンの後。"),
        ({"keywords": ("花札",), "window": 1}, "ﾌｧﾐｺﾝとＷｉｉ。\n花札。\nファミコンの後。"),
        ({"keywords": ("京都",), "window": 1}, "京都の会社。\nﾌｧﾐｺﾝとＷｉｉ。"),
        ({"regex": ("Ｗｉｉ。\n花",), "window": 0}, "ﾌｧﾐｺﾝとＷｉｉ。\n花札。"),
        ({"keywords": ("任天堂",), "window": 0}, GAMES[0]["text"]),  # the title has it
    ],
)
def test_a_window_keeps_the_paragraphs_around_the_hits(tmp_path, wanted, text):
    assert keep(GAMES[:1], tmp_path, **wanted) == [("任天堂", text)]


def test_hits_are_counted_by_pattern(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in GAMES), encoding="utf-8")
    report = extract(str(source), Topic(("ﾌｧﾐｺﾝ", "Wii"), regex=("W|w", "札")), tmp_path / "a.txt")
    assert report.hits == {"ﾌｧﾐｺﾝ": 3, "Wii": 2, "/W|w/": 1, "/札/": 1}
    assert report.documents == {"ﾌｧﾐｺﾝ": 2, "Wii": 2, "/W|w/": 1, "/札/": 1}


def test_a_preview_marks_the_hits_as_they_are_written(tmp_path):
    source = tmp_path / "rows.jsonl"
    rows = [*GAMES, {"title": "", "text": "あ" * 40 + "か\u3099っこうと㌔とキロ"}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    events = []
    hits = preview_hits(str(source), Topic(("ファミコン",), regex=("札",)), 3, on_event=events.append)
    assert list(map(hit_line, hits)) == [
        "rows.jsonl#0 【任天堂】 >>ﾌｧﾐｺﾝ<<とＷｉｉ。",
        "rows.jsonl#0 【任天堂】 花>>札<<。",
        "rows.jsonl#0 【任天堂】 >>ファミコン<<の後。",
    ]
    assert list(map(reading_line, events)) == ["reading rows.jsonl: text under 'text', title under 'title'"]
    hits = preview_hits(str(source), Topic(("がっこう", "キロ")), 9)
    assert [hit.context for hit in hits] == [
        "…" + "あ" * 24 + ">>がっこう<<と㌔とキロ",
        "…" + "あ" * 19 + "がっこうと>>㌔<<とキロ",
        "…" + "あ" * 17 + "がっこうと㌔と>>キロ<<",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, "nothing to look for"),
        ({"keywords": ("a",), "exclude": (" ",)}, "exclude is empty"),
        ({"keywords": ("a\nb",)}, "contains a line feed"),
        ({"regex": ("(",)}, "is not a valid regular expression"),
        ({"regex": ("a*",)}, "matches every text"),
        ({"keywords": ("a",), "min_hits": 0}, "min_hits must be at least 1"),
        ({"keywords": ("a",), "window": -1}, "window must be at least 0"),
        ({"keywords": ("a",), "window": 1, "title_only": True}, "does nothing with title_only"),
    ],
)
def test_what_cannot_be_meant_is_refused(wanted, message):
    with pytest.raises(ConfigError, match=message):
        Topic(**wanted)


# fmt: off
PIECES = st.sampled_from(
    ["京都", "京", "都", "ﾌｧﾐｺﾝ", "ファミコン", "か\u3099", "が", "Wii", "ｗｉｉ", "㌔", "_NEWLINE_",
     "_START_ARTICLE_", "。", "\n", "\0", " ", "　", "_START_PARAGRAPH_", "文", "\r", "豈", "①", "1"]
)
# fmt: on
LINES = st.lists(PIECES, max_size=12).map("".join)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.none() | LINES, st.none() | LINES), min_size=1, max_size=12),
    st.lists(
        st.sampled_from(["京都", "ファミコン", "が", "wii", "キロ", "1", "豈", " 文"]),
        min_size=1,
        max_size=3,
        unique=True,
    ),
    st.sampled_from(["any", "all"]),
    st.booleans(),
)
def test_by_columns_and_row_by_row_the_output_is_the_same(tmp_path_factory, rows, keywords, match, title_only):
    folder = tmp_path_factory.mktemp("columns")
    table = pa.table(
        {"title": pa.array([a for a, _ in rows], pa.string()), "text": pa.array([b for _, b in rows], pa.string())}
    )
    pq.write_table(table, folder / "rows.parquet", row_group_size=5)
    found = []
    for columns in (True, False):
        topic = (Topic if columns else RowByRow)(tuple(keywords), match, title_only=title_only)
        out = folder / f"{columns}.txt"
        try:
            report = extract(str(folder / "rows.parquet"), topic, out)
            found.append((replace(report, out=Path(), elapsed_s=0), out.read_bytes()))
        except DataError as error:
            found.append((str(error).replace(str(out), ""), b""))
    assert found[0] == found[1]


class RowByRow(Topic):
    """A topic that lets every row through to be judged."""

    def row_expressions(self):
        return []


# Interrupted work


def test_work_that_was_killed_leaves_the_old_file_and_the_next_call_cleans_up(tmp_path):
    folder, out = tmp_path / "corpus", tmp_path / "out" / "a.parquet"
    folder.mkdir()
    out.parent.mkdir()
    for i in range(3):
        (folder / f"{i}.jsonl").write_text(f'{{"text": "京都の{i}番。"}}\n', encoding="utf-8")
    extract(str(folder), "0番", out)
    before = out.read_bytes()
    script = """
import os, signal, sys
from mamegpt.data.extract import extract
def read_file(path, *rest, read=extract.read_file):
    if path.name == "2.jsonl":
        os.kill(os.getpid(), signal.SIGKILL)
    yield from read(path, *rest)
extract.read_file = read_file
extract.extract(sys.argv[1], "京都", extract.Path(sys.argv[2]), overwrite=True)
"""
    done = subprocess.run([sys.executable, "-c", script, str(folder), str(out)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert out.read_bytes() == before
    assert extract(str(folder), "京都", out, overwrite=True).kept == 3
    assert len(list(read_documents(out))) == 3
    assert sorted(path.name for path in out.parent.iterdir()) == ["a.parquet", "a.parquet.origin.json"]


def test_unfinished_work_of_an_earlier_version_is_let_alone(corpus, tmp_path):
    (work := tmp_path / ".topic.txt.unfinished").mkdir()
    for name in ("made-by-mamegpt", "lock", "state.json", "text", "keys"):
        (work / name).write_text("{", encoding="utf-8")
    assert extract(corpus, "ファミコン", tmp_path / "topic.txt").kept == 3
    assert len(list(work.iterdir())) == 5


def test_a_corpus_without_documents_is_an_error(tmp_path):
    (tmp_path / "empty.jsonl").write_bytes(b"\n")
    with pytest.raises(DataError, match="holds no document at all"):
        extract(str(tmp_path / "empty.jsonl"), "京都", tmp_path / "topic.txt")


def test_of_a_full_disk_nothing_is_left(corpus, tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mamegpt.system.files.sync", full)
    with pytest.raises(OutputError, match="No space left"):
        extract(corpus, "ファミコン", tmp_path / "out" / "topic.txt")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_another_process_has_written_meanwhile_is_not_replaced(corpus, tmp_path):
    def again(event):
        if isinstance(event, Counted) and not (tmp_path / "topic.txt").exists():
            extract(corpus, "京都", tmp_path / "topic.txt")

    with pytest.raises(OutputError, match="already exists"):
        extract(corpus, "ファミコン", tmp_path / "topic.txt", on_event=again)
    assert (tmp_path / "topic.txt").read_text(encoding="utf-8") == "【京都】\nみやこ。\n\n"


def test_a_weight_is_refused(corpus, tmp_path):
    with pytest.raises(ConfigError, match="a weight"):
        extract(f"{corpus}@2", "京都", tmp_path / "topic.txt")
