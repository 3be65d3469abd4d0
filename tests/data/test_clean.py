"""`mamegpt clean`: what is kept, what is dropped and why; that nothing is lost, made up, or half-written."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pyarrow
import pyarrow.parquet
import pytest
from html_tags import Tags
from hypothesis import given, settings
from hypothesis import strategies as st

from mamegpt.data.clean.clean import Cleaner, clean, read_items
from mamegpt.data.clean.counts import MAX_TOP, Counted, DataReport
from mamegpt.data.clean.dedup import Contamination, TextSignature
from mamegpt.data.clean.edits import EDITS
from mamegpt.data.clean.filters import FILTERS
from mamegpt.data.clean.page import count_rows, html_page
from mamegpt.data.clean.steps import STEPS
from mamegpt.data.sources import Document, read_documents
from mamegpt.data.stories import stories
from mamegpt.errors import ConfigError, DataError, OutputError
from mamegpt.messages import Message, translate
from mamegpt.system.validation import validated
from mamegpt.text.characters import CLASSES
from mamegpt.text.display import visible

STORIES = [text for _, text in stories(seed=3, n=12)]
LINE = "この文は三十字をこえていて、ほかの文書にも同じものがあるので、二度目からは取り除かれます。"
ROWS = [
    {"title": "一<b>", "text": STORIES[0] + "<br>\n" + LINE},
    {"title": "二", "text": STORIES[1] + "［＃改ページ］ \n" + LINE},
    {"title": "写し", "text": STORIES[0] + "\n" + LINE},
    {"title": "ほぼ", "text": (STORIES[0] + "\n" + LINE).replace("。", "！", 1)},
    {"title": "短", "text": "短い。"},
    {"title": "空", "text": "<br>\n "},
    {"title": "一覧", "text": "東京\n大阪\n名古屋\n札幌\n" * 8},
    {"title": "中文", "text": "本文件说明如何安装和使用该软件，并列出所有选项。" * 3},
    {"title": "宣伝", "text": "今すぐクリックして登録してください。" * 20},
    {"title": "試験", "text": STORIES[2] + "\n" + STORIES[3]},
    {"title": "<script>", "text": f"か\u3099くせい（）。{STORIES[4]}\n続きを読む\n〒604-8571"},
]
REASONS = {
    "empty": 1,
    "short": 1,
    "no-sentence-end": 1,
    "not-japanese": 1,
    "repetitive": 1,
    "duplicates": 1,
    "contamination": 1,
    "near-duplicates": 1,
}


ANOTHER_STEP_SEES_IT = ("short", "no-sentence-end", "not-japanese", "repetitive", "duplicates", "near-duplicates")


@pytest.fixture
def corpus(tmp_path) -> str:
    return write_rows(tmp_path / "corpus.jsonl", ROWS)


@pytest.fixture
def items(tmp_path) -> Path:
    path = tmp_path / "test.jsonl"
    write_rows(path, [{"question": "短い", "choices": [STORIES[3], "はい"]}])
    return path


def write_rows(path: Path, rows: list) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read_rows(path: Path) -> list:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_steps_are_all_there_are():
    assert (*EDITS, *FILTERS, "duplicates", "contamination", "near-duplicates", "repeated-lines") == STEPS


def test_every_document_is_kept_or_dropped_for_one_counted_reason(corpus, items, tmp_path):
    out, dropped = tmp_path / "new" / "clean.jsonl", tmp_path / "dropped.jsonl"
    report = clean(corpus, out, against=[items], write_dropped=dropped)
    assert report.data.dropped == REASONS
    assert [row["title"] for row in read_rows(out)] == ["一<b>", "二", "<script>"]
    assert [row["text"] for row in read_rows(out)] == [
        STORIES[0] + "\n" + LINE,
        STORIES[1],
        f"がくせい。{STORIES[4]}\n〒000-0000",
    ]
    assert [row["id"] for row in read_rows(out)] == ["corpus.jsonl#0", "corpus.jsonl#1", "corpus.jsonl#10"]
    thrown = read_rows(dropped)
    assert Counter(row["reason"] for row in thrown) == REASONS
    assert {row["reason"]: row["detail"] for row in thrown if row["detail"]} == {
        "duplicates": "corpus.jsonl#0",
        "near-duplicates": "corpus.jsonl#0",
        "contamination": TextSignature(STORIES[3]).alphanumeric,
    }
    assert all(row["text"] in [original["text"] for original in ROWS] for row in thrown)
    rows = count_rows(report)
    assert rows[:3] == [("read", "11"), ("kept", "3"), ("dropped, empty", "1")]
    assert ("edited, markup", "1 documents, 1 places") in rows
    assert ("edited, repeated-lines", "1 documents, 1 places") in rows
    assert ("edited, normalisation", "1 documents, 1 places") in rows
    assert ("test items", "1 looked for, 2 too short") in rows
    data = report.data
    assert data.before.n_documents == 11 == data.after.n_documents + sum(data.dropped.values())
    assert data.before.n_characters == sum(len(row["text"]) for row in ROWS)
    assert data.after.n_bytes == sum(len(row["text"].encode()) for row in read_rows(out))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".txt"])
def test_cleaning_what_was_cleaned_changes_nothing(corpus, tmp_path, suffix):
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    clean(corpus, first)
    report = clean(str(first), second)
    assert not any(report.data.dropped.values()) and not any(report.data.edited_places.values())
    assert list(map(plain, read_documents(first))) == list(map(plain, read_documents(second)))
    if suffix == ".txt":
        assert first.read_bytes() == second.read_bytes()


def plain(document: Document) -> tuple[str, str]:
    return document.title, document.text


def test_test_items_may_be_compressed(corpus, items, tmp_path):
    packed = tmp_path / "test.jsonl.gz"
    packed.write_bytes(gzip.compress(items.read_bytes()))
    assert list(read_items([packed])) == list(read_items([items])) == ["短い", STORIES[3], "はい"]


def test_what_is_read_is_not_written_over(corpus, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    other = write_rows(folder / "other.jsonl", ROWS)
    before = Path(corpus).read_bytes()
    for data in (f"{corpus},{other}", str(folder), f"{folder}/*.jsonl", f"{other}@2"):
        for places in ({"out": Path(other)}, {"out": tmp_path / "o.jsonl", "write_dropped": Path(other)}):
            with pytest.raises(OutputError, match=r"other\.jsonl is also read"):
                clean(data, **places, overwrite=True)
    assert Path(other).read_bytes() == before
    clean(str(folder), folder / "train.jsonl")  # from then on the folder has a split of that name
    assert (folder / "train.jsonl.origin.json").is_file()
    empty = write_rows(tmp_path / "empty.jsonl", [])
    with pytest.raises(DataError, match="holds no document at all"):
        clean(empty, tmp_path / "o.jsonl")


@pytest.mark.parametrize("step", STEPS)
def test_each_step_can_be_left_out(corpus, items, tmp_path, step):
    against = [] if step == "contamination" else [items]
    results = {}
    for name, without in (("all", []), ("less", [step])):
        data = clean(corpus, tmp_path / f"{name}.jsonl", without=without, against=against if without else [items]).data
        results[name] = (tmp_path / f"{name}.jsonl").read_bytes()
    assert step not in data.dropped and step not in data.edited_places
    assert data.before.n_documents == data.after.n_documents + sum(data.dropped.values())
    assert results["all"] != results["less"] or step in ANOTHER_STEP_SEES_IT


def test_only_takes_one_step(corpus, tmp_path):
    report = clean(corpus, tmp_path / "out.jsonl", only=["repetitive"], normalisation="nfkc").data
    assert report.dropped == {"empty": 0, "repetitive": 3}
    assert list(report.edited_places) == ["normalisation"]


SMALL = st.sampled_from(
    [*STORIES[:3], LINE, LINE.replace("。", ""), "<br>", "（）", "\n", "短い。", "English text.", "か\u3099"]
)
TEXTS = st.lists(st.lists(SMALL, max_size=6).map("\n".join), min_size=1, max_size=8)


@settings(deadline=None, max_examples=60)
@given(TEXTS, st.sets(st.sampled_from(STEPS)))
def test_any_steps_on_any_texts(texts, left_out):
    steps = [step for step in STEPS if step not in left_out]
    against = Contamination([STORIES[2]])
    counts = Counter[str]()

    def run(documents: list[Document]) -> list[Document]:
        cleaner, kept = Cleaner(steps, "nfc", against), []
        for document in documents:
            cleaned = cleaner(document)
            counts[cleaned.reason] += 1
            assert cleaned.reason in ["", *cleaner.reasons] and set(cleaned.edits) <= set(cleaner.edits)
            if not cleaned.reason:
                kept.append(cleaned.document)
        return kept

    once = run([Document(str(i), "", text) for i, text in enumerate(texts)])
    assert counts.total() == len(texts) and counts[""] == len(once)
    assert run(once) == once
    source = "".join(texts).replace("か\u3099", "が")
    assert all(line in source for document in once for line in document.text.split("\n"))  # <br> is a line of its own


def test_the_second_copy_counts_as_a_copy_even_where_lines_were_taken_out():
    cleaner = Cleaner()
    documents = [STORIES[0] + "\n" + LINE, STORIES[1] + "\n" + LINE, STORIES[1] + "\n" + LINE, STORIES[1]]
    found = [cleaner(Document(str(i), "", text)) for i, text in enumerate(documents)]
    assert [cleaned.reason for cleaned in found] == ["", "", "duplicates", "duplicates"]
    assert found[1].document.text == STORIES[1] and found[1].repeated_lines == [LINE]


def test_items_from_every_format(tmp_path):
    parquet, txt, jsonl = (tmp_path / f"a.{suffix}" for suffix in ("parquet", "txt", "jsonl"))
    pyarrow.parquet.write_table(
        pyarrow.table({"n": [1], "text": ["_START_ARTICLE_題_START_PARAGRAPH_文。"], "c": [["い", "ろ"]]}), parquet
    )
    txt.write_text("【題】\n文。\n\n【二】\n文二。\n\n", encoding="utf-8")
    write_rows(jsonl, [{"q": "問い", "n": 3, "title": "題", "deep": {"a": ["答え", None]}}])
    assert list(read_items([parquet, txt, jsonl])) == ["文。", "い", "ろ", "文。", "文二。", "問い", "答え"]


def test_what_cannot_be_used_is_said_in_a_line(corpus, items, tmp_path):
    out = tmp_path / "out.jsonl"
    with pytest.raises(ConfigError, match="contradict"):
        clean(corpus, out, without=["markup"], only=["short"])
    with pytest.raises(ConfigError, match=r"without must be one of aozora, markup, .* \(got 'shrot'\)"):
        clean(corpus, out, without=["shrot"])
    with pytest.raises(ConfigError, match="needs against"):
        clean(corpus, out, only=["contamination"])
    with pytest.raises(ConfigError, match="left out"):
        clean(corpus, out, without=["contamination"], against=[items])
    with pytest.raises(OutputError, match=r"format '\.csv'; name it one of \.jsonl, \.parquet, \.txt"):
        clean(corpus, tmp_path / "out.csv")
    with pytest.raises(OutputError, match=r"written as \.jsonl"):
        clean(corpus, out, write_dropped=tmp_path / "a.txt")
    with pytest.raises(OutputError, match=r"\.html or \.md"):
        clean(corpus, out, report=tmp_path / "a.pdf")
    with pytest.raises(OutputError, match="also read"):
        clean(corpus, Path(corpus), overwrite=True)
    with pytest.raises(OutputError, match="named twice"):
        clean(corpus, out, write_dropped=out)
    with pytest.raises(OutputError, match="is a folder"):
        clean(corpus, tmp_path)
    with pytest.raises(DataError, match=r"no file of test items .*none\.jsonl"):
        clean(corpus, out, against=[tmp_path / "none.jsonl"])
    for content in (b"{", b"\xff\n"):
        items.write_bytes(b"{}\n" + content)
        with pytest.raises(DataError, match=r"test\.jsonl(, line 2: not JSON| is not UTF-8 text)"):
            clean(corpus, out, against=[items])
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not a readable parquet"):
        clean(corpus, out, against=[damaged])
    assert not out.exists()


def test_whatever_goes_wrong_what_was_there_stays(corpus, tmp_path):
    out, dropped, page = (tmp_path / "out" / name for name in ("o.parquet", "d.jsonl", "r.html"))
    out.parent.mkdir()
    out.write_text("old", encoding="utf-8")
    with pytest.raises(OutputError, match="already exists"):
        clean(corpus, out)
    short = write_rows(tmp_path / "short.jsonl", [{"text": "短い。"}, {"text": "これも。"}])
    with pytest.raises(DataError, match=r"was dropped: .*short 2; leave a step out"):
        clean(short, out, write_dropped=dropped, report=page, overwrite=True)
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps(ROWS[0]) + "\n{", encoding="utf-8")
    with pytest.raises(DataError, match="line 2"):
        clean(str(broken), out, write_dropped=dropped, report=page, overwrite=True)
    assert list(out.parent.iterdir()) == [out] and out.read_text(encoding="utf-8") == "old"
    clean(corpus, out, write_dropped=dropped, report=page, overwrite=True)
    assert sorted(out.parent.iterdir()) == sorted([out, out.with_name("o.parquet.origin.json"), dropped, page])


def test_large_parquet_is_written_in_groups(tmp_path, monkeypatch):
    monkeypatch.setattr("mamegpt.data.writers.GROUP_CHARACTERS", 600)
    rows = [{"title": str(i), "text": story} for i, story in enumerate(STORIES)]
    out = tmp_path / "out.parquet"
    clean(write_rows(tmp_path / "in.jsonl", rows), out, only=["white-space"])
    assert pyarrow.parquet.read_metadata(out).num_row_groups > 1
    assert [document.text for document in read_documents(out)] == STORIES


def test_the_page_says_what_was_counted_and_escapes_what_it_shows(corpus, tmp_path):
    pages = {}
    for suffix in ("html", "md"):
        page = tmp_path / f"report.{suffix}"
        clean(corpus, tmp_path / f"{suffix}.jsonl", report=page)
        pages[suffix] = page.read_text(encoding="utf-8")
        assert "&lt;script&gt;" in pages[suffix] and "<script>" not in pages[suffix]
        assert LINE in pages[suffix]
    assert pages["html"].count("<blockquote") == 4 + 7
    assert not {"src", "href", "style"} & {name for name, _ in Tags(pages["html"]).attributes}
    assert "| dropped, short | 1 |" in pages["md"] and "| kept | 4 |" in pages["md"]


def test_the_page_has_the_rows_of_the_counts_in_both_languages(corpus, tmp_path, items):
    report = clean(corpus, tmp_path / "out.jsonl", against=[items])
    page = html_page(report)
    rows = {language: rows_of(page, without) for language, without in (("ja", "en"), ("en", "ja"))}
    expected = count_rows(report, "→")
    for language, shown in rows.items():
        assert shown[: len(expected)] == [tuple(translate(cell, language) for cell in row) for row in expected]
    assert {("除外した文書: 短すぎる(short)", "1"), ("評価データ", "1 件を照合、2 件は短すぎて対象外")} <= set(
        rows["ja"]
    )
    assert len(rows["ja"]) == len(rows["en"]) == len(expected) + len(report.data.repeated)
    charts = re.findall("<svg.*?</svg>", page)
    assert len(charts) == 2 and len(ElementTree.fromstring(charts[1]).findall("rect")) == 2 * len(CLASSES)


def rows_of(page: str, without: str) -> list[tuple[str, str]]:
    rows = re.findall("<tr><th>(.*?)</th><td>(.*?)</td></tr>", page, re.DOTALL)
    return [("".join(Tags(name, without).texts), "".join(Tags(value, without).texts)) for name, value in rows]


@pytest.mark.parametrize("name", [*STEPS, *REASONS, *CLASSES])
def test_what_counts_are_of_has_a_japanese_name(name):
    assert translate(Message(name), "ja") != name


def test_what_documents_hold_stays_text_on_the_page(tmp_path):
    hostile = "</style></blockquote><script>alert(1)</script>\"'{{ 7 * 7 }}&lt;\u202e\x07"
    rows = [{"title": hostile, "text": hostile + STORIES[i % 2]} for i in range(4)]
    report = clean(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", only=["duplicates"])
    report.settings["data"] = hostile
    page = html_page(report)
    tags = Tags(page)
    assert not {"script", "b"} & tags.names and not {"\u202e", "\x07"} & set(page)
    shown = [text for text in tags.texts if visible(hostile) in text]
    assert len(shown) == 12, "titles and texts of four documents, two of which are repeated, and two names"


def test_the_report_takes_no_more_memory_for_more_text():
    report = DataReport(["short"], [])
    n = 3 * MAX_TOP
    for i in range(n):
        for _ in range(2):
            report.repeat(str(i))
        report.repeat("often")
        report.drop("short", f"x#{i}", str(i), "短い。")
        if i > 2 * MAX_TOP:
            report.repeat("late")
    assert report.repeated["often"] == n and report.repeated["late"] == MAX_TOP - 1
    for _ in range(3):
        report.merge(validated(Counted, report.to_dict()))
    assert MAX_TOP <= len(report.repeated) <= 2 * MAX_TOP
    assert len(report.samples["short"]) == 4 and report.dropped["short"] == 8 * n
