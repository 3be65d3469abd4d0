import bz2
import csv
import gzip
import html
import json
import lzma
import os
import re
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import HubServer
from little import ROOT

from mamegpt.cli.render.data import extract_table
from mamegpt.data.extract.extract import extract
from mamegpt.data.extract.topic import Topic
from mamegpt.data.readers.read import Layout, describe, read_file
from mamegpt.data.schema import Schema
from mamegpt.data.shards import is_shards
from mamegpt.data.sources import Document, find_files, read_documents, read_texts
from mamegpt.data.splits import find_splits
from mamegpt.data.writers import write_documents
from mamegpt.errors import ConfigError, DataError, MamegptWarning
from mamegpt.text.articles import format_article

DATA = ROOT.parent / "shared" / "data"
ROWS = [("京枡", "枡の様式。\n概要"), ("", "題のない文。"), ("ファミコン", "ﾌｧﾐｺﾝは1983年。")]


def parquet(path: Path, rows=ROWS, **columns) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = columns or {"title": [title for title, _ in rows], "text": [text for _, text in rows]}
    pq.write_table(pa.table(table), path, row_group_size=2)
    return path


def jsonl(path: Path, rows=ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"title": title, "text": text}, ensure_ascii=False) for title, text in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def txt(path: Path, rows=ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(format_article(title, text) for title, text in rows), encoding="utf-8")
    return path


def table(path: Path, rows=ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerows([("title", "text"), *rows])
    return path


WRITERS = {".parquet": parquet, ".jsonl": jsonl, ".txt": txt, ".csv": table, ".tsv": table}


def one_text(folder: Path, name: str, text: str) -> Path:
    """A file of one document, in the format its name says."""
    return WRITERS[Path(name).suffix](folder / name, [("", text)])


def texts(source, split="train") -> list[str]:
    return [document.text for document in read_documents(source, split)]


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_every_format_reads_the_same_documents_with_stable_ids(tmp_path, suffix):
    path = WRITERS[suffix](tmp_path / f"corpus{suffix}")
    expected = [Document(f"{path.name}#{i}", title, text) for i, (title, text) in enumerate(ROWS)]
    assert list(read_documents(path)) == expected
    assert list(read_documents(str(tmp_path))) == expected


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train{}", "train"),
        ("test{}", "test"),
        ("train-00000-of-00002{}", "train"),
        ("data/validation-part2{}", "validation"),
        ("train/any{}", "train"),
        ("data/dev/any{}", "dev"),
        ("data/ja_news-00000-of-00001{}", "ja_news"),
    ],
)
@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_files_named_for_a_split_are_that_split_and_tables_without_text_do_not_count(tmp_path, name, split, suffix):
    one_text(tmp_path, name.format(suffix), "甲")
    parquet(tmp_path / "attribution.parquet", title=["題"], source=["乙"], license=["丙"])
    with pytest.warns(MamegptWarning, match=r"skipped 1 file\(s\) \(attribution\.parquet\): no column of theirs"):
        assert list(find_splits(tmp_path)) == [split]
        assert texts(tmp_path, split) == ["甲"]


@pytest.mark.parametrize("odd", ["train.txt", "test.txt", "dev/x.txt", "validation.txt"])
def test_file_names_are_splits_only_if_all_are(tmp_path, odd):
    for i in range(3):
        one_text(tmp_path, f"本{i}.txt", f"犬{i}")
    one_text(tmp_path, odd, "猫")
    with pytest.warns(MamegptWarning, match=rf"{Path(odd).name} is read as part of 'train', .* since 本0.txt is named"):
        assert sorted(texts(tmp_path)) == ["犬0", "犬1", "犬2", "猫"]


@pytest.mark.parametrize("note", ["README.txt", "LICENSE.txt", "NOTICE.txt"])
def test_files_about_the_texts_do_not_make_a_split_part_of_the_training_text(tmp_path, note):
    for name in ("train.txt", "test.txt", note):
        one_text(tmp_path, name, name)
    assert (texts(tmp_path), texts(tmp_path, "test")) == (["train.txt"], ["test.txt"])


def test_a_table_is_passed_over_only_if_it_has_not_the_column_that_was_named(tmp_path):
    for name in ("train", "extra"):
        parquet(tmp_path / f"{name}.parquet", body=[name], url=["甲"])
    with pytest.warns(MamegptWarning, match="read as part of 'train'"):
        found = list(read_texts(tmp_path, schema=Schema(text_column="body")))
    assert sorted(found) == ["extra", "train"]


def test_titles_that_only_late_rows_have_are_read_from_a_compressed_file_too(tmp_path):
    rows = [*({"text": f"犬{i}"} for i in range(150)), {"title": "猫", "text": "ねこ。"}]
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    assert list(read_texts(tmp_path / "a.jsonl.gz"))[-1] == "【猫】\nねこ。"


def test_what_is_passed_over_is_said_with_the_reason(tmp_path, mame):
    for name in ("a.pdf", "b/c.docx", "README.md", "a.txt.origin.json", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"n_bytes": 0, "steps": []}', encoding="utf-8")
    one_text(tmp_path, "a.txt", "犬")
    rows_of(tmp_path / "b.jsonl", TEXT, URL, TEXT | {"text": "猫"})
    with pytest.warns(MamegptWarning) as said:
        assert texts(tmp_path) == ["犬", "犬。", "猫"]
    assert [str(warning.message).removeprefix(f"{tmp_path}: ") for warning in said] == [
        "skipped 2 file(s) (a.pdf, b/c.docx): their format is not known",
        "b.jsonl: dropped records without text (no text column 1)",
    ]
    code, _, err = mame("clean", "--data", tmp_path, "--out", tmp_path / "out.jsonl", "--only", "duplicates")
    assert (code, err.splitlines()) == (
        0,
        [
            f"note: {tmp_path}: skipped 2 file(s) (a.pdf, b/c.docx): their format is not known",
            "note: b.jsonl: dropped records without text (no text column 1)",
        ],
    )


def test_links_to_folders_are_followed_and_circles_end(tmp_path):
    for name, text in {"a/1.txt": "一", "real/sub/2.txt": "二", "far/3.txt": "三"}.items():
        one_text(tmp_path, name, text)
    try:
        (tmp_path / "a/link").symlink_to(tmp_path / "real", target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")
    (tmp_path / "real/back").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "real/sub/self").symlink_to(tmp_path / "real/sub", target_is_directory=True)
    assert [d.id for d in read_documents(tmp_path / "a")] == ["1.txt#0", "link/sub/2.txt#0"]
    assert texts(f"{tmp_path}/a/**/*.txt") == texts(f"{tmp_path}/a/**") == ["一", "二"]
    assert texts(f"{tmp_path}/a/link/**/2.txt") == texts(f"{tmp_path}/*/sub/*.txt") == ["二"]
    assert [d.id for d in read_documents(tmp_path)] == ["a/1.txt#0", "far/3.txt#0", "real/sub/2.txt#0"]


def test_the_files_of_a_split_are_read_in_order(tmp_path):
    for number in (1, 0, 2):
        one_text(tmp_path, f"train-0000{number}-of-00003.txt", f"{number}")
    one_text(tmp_path, "test.txt", "9")
    assert texts(tmp_path) == ["0", "1", "2"]


def test_a_folder_without_named_splits_is_train_only_and_hidden_files_never_count(tmp_path):
    one_text(tmp_path, "b/two.jsonl", "乙")
    one_text(tmp_path, "a.txt", "甲")
    one_text(tmp_path, ".cache/three.txt", "丙")
    (tmp_path / "notes.md").write_text("no corpus", encoding="utf-8")
    with pytest.warns(MamegptWarning, match=r"skipped 1 file\(s\) \(notes\.md\): their format is not known"):
        assert [(d.id, d.text) for d in read_documents(tmp_path)] == [("a.txt#0", "甲"), ("b/two.jsonl#0", "乙")]
        with pytest.raises(DataError, match="no split 'test'; it has train"):
            read_documents(tmp_path, "test")


def test_a_missing_split_is_an_error_that_lists_those_there_are(tmp_path):
    one_text(tmp_path, "train.txt", "甲")
    one_text(tmp_path, "test.txt", "乙")
    with pytest.raises(DataError, match="no split 'validation'; it has test, train"):
        read_documents(tmp_path, "validation")


def test_a_single_file_is_train_or_what_it_is_named_after(tmp_path):
    path = one_text(tmp_path, "validation.txt", "甲")
    assert texts(path, "train") == texts(path, "validation") == ["甲"]
    with pytest.raises(DataError, match="no split 'test'; it has train, validation"):
        read_documents(path, "test")


def test_one_split_in_two_formats_is_refused(tmp_path):
    one_text(tmp_path, "train.txt", "甲")
    one_text(tmp_path, "train.jsonl", "甲")
    with pytest.raises(DataError, match=r"train\.jsonl and .*train\.txt; name the file"):
        read_documents(tmp_path)


def card(folder: Path, front_matter: str) -> None:
    (folder / "README.md").write_text(f"---\n{front_matter}\n---\n# Data\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("data_files", "split", "expected"),
    [
        ("[{split: train, path: ja/a.txt}, {split: test, path: [ja/b.txt]}]", "test", ["乙"]),
        ("[{split: train, path: 'ja/*'}]", "train", ["甲", "乙"]),
        ("'**/b.txt'", "train", ["乙"]),
        ("[ja/b.txt]", "train", ["乙"]),
    ],
)
def test_a_data_set_card_decides_before_names_do(tmp_path, data_files, split, expected):
    for name, text in {"ja/a.txt": "甲", "ja/b.txt": "乙", "train.txt": "丙"}.items():
        one_text(tmp_path, name, text)
    card(
        tmp_path,
        f"configs:\n- {{config_name: x, data_files: 'no'}}\n- {{default: true, data_files: {data_files}}}",
    )
    with pytest.warns(MamegptWarning, match=r"skipped \d+ file\(s\) .*train\.txt\): README\.md does not name them"):
        assert texts(tmp_path, split) == expected


def test_a_card_cannot_lead_out_of_its_folder(tmp_path):
    one_text(tmp_path, "secret.txt", "秘密")
    one_text(tmp_path, "corpus/a.txt", "甲")
    card(tmp_path / "corpus", "configs: [{data_files: ../secret.txt}]")
    assert texts(tmp_path / "corpus") == ["甲"]


@pytest.mark.parametrize(
    ("front_matter", "message"),
    [
        ("configs: [", "front matter is not YAML"),
        ("configs: [{config_name: a}, {config_name: b}]", r"several configurations \(a, b\)"),
        ("configs: [{data_files: /etc/a.txt}]", "not understood"),
        ("configs: [{data_files: [{path: 3}]}]", "not understood"),
        ("configs: [{data_files: ['a.txt', {'*': '*'}]}]", "not understood"),
        (
            "a0: &a0 [x]\n"
            + "\n".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 10}]" for i in range(1, 11))
            + "\nconfigs: [{data_files: *a10}]",
            "has more than 100,000 values",
        ),
        (
            "a0: &a0 {x: 1}\n" + "\n".join(f"a{i}: &a{i} {{<<: [{f'*a{i - 1}, ' * 9}]}}" for i in range(1, 12)),
            "has more than 100,000 values",
        ),
    ],
)
def test_a_card_that_cannot_be_followed_is_an_error(tmp_path, front_matter, message):
    one_text(tmp_path, "a.txt", "甲")
    card(tmp_path, front_matter)
    with pytest.raises(DataError, match=message):
        read_documents(tmp_path)


def test_parquet_takes_the_only_string_column_and_understands_wiki40b(tmp_path):
    raw = "\n_START_ARTICLE_\n京枡\n_START_PARAGRAPH_\n枡。_NEWLINE_終。"
    path = parquet(tmp_path / "a.parquet", n=[1, 2, 3], body=pa.array([raw, None, "文。"], pa.large_string()))
    assert list(read_documents(path)) == [
        Document("a.parquet#0", "京枡", "枡。\n終。"),
        Document("a.parquet#2", "", "文。"),
    ]


def test_a_title_of_its_own_goes_before_the_one_in_the_markers(tmp_path):
    path = parquet(tmp_path / "a.parquet", title=["甲", None], text=["_START_ARTICLE_乙_NEWLINE_文"] * 2)
    assert [d.title for d in read_documents(path)] == ["甲", "乙"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": ["x"], "b": ["y"]}, r"a\.parquet: cannot tell which of \['a', 'b'\] is the text"),
        ({"n": [1]}, r"none of \['n'\] contains strings"),
        ({"text": [1], "other": ["x"]}, "'text' does not hold a string"),
    ],
)
def test_parquet_without_a_text_column_is_an_error(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        texts(parquet(tmp_path / "a.parquet", **columns))


def categorical(*values: str | None) -> pa.Array:
    return pa.array(values).dictionary_encode()


@pytest.mark.parametrize("text", [["犬", "猫", "犬", None], [f"犬{i}" for i in range(4)]])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_categorical_columns_are_strings(tmp_path, text, kind):
    as_it_is = pa.array(text, kind)
    path = parquet(tmp_path / "a.parquet", n=[1, 2, 3, 4], title=categorical("a", "b", "a", None), body=as_it_is)
    plain = [(d.title, d.text) for d in read_documents(path)]
    for title, body in (
        (["a", "b", "a", ""], as_it_is.dictionary_encode()),
        (categorical("a", "b", "a", ""), as_it_is),
    ):
        path = parquet(tmp_path / "b.parquet", n=[1, 2, 3, 4], title=title, body=body)
        assert [(d.title, d.text) for d in read_documents(path)] == plain
        found = [record[1:] for batch in read_file(path, Schema(), [["犬"]]) for record in batch.records]
        assert found == [pair for pair in plain if "犬" in pair[1]]


def test_a_string_that_is_referred_to_very_often_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array(["犬" * 100_000]))
    pq.write_table(pa.table({"text": long}), tmp_path / "a.parquet", compression="zstd")
    monkeypatch.setattr("mamegpt.data.readers.parquet.MAX_BATCH_BYTES", 1 << 22)
    for expressions in ([], [["犬"]]):
        with pytest.raises(DataError, match=r"column 'text' unpacks to more than 4,096 times its bytes"):
            list(read_file(tmp_path / "a.parquet", Schema(), expressions))
    often = pa.table({"text": pa.array(["犬" * 1000] * 300).dictionary_encode()})
    pq.write_table(often, tmp_path / "b.parquet")
    assert len(texts(tmp_path / "b.parquet")) == 300
    monkeypatch.setattr("mamegpt.data.readers.parquet.MAX_BATCH_BYTES", 9000)
    monkeypatch.setattr("mamegpt.data.readers.parquet.MAX_UNPACKING", 1 << 30)
    monkeypatch.setattr("mamegpt.data.readers.parquet.BATCH_BYTES", 5000)
    assert {len(batch.records) for batch in read_file(tmp_path / "b.parquet", Schema())} == {2}


def test_damaged_parquet_is_an_error_wherever_the_damage_is(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 this is not it")
    with pytest.raises(DataError, match=r"a\.parquet is not a readable parquet file"):
        texts(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet is not a readable parquet file"):
        describe(tmp_path / "a.parquet", Schema())
    path = parquet(tmp_path / "b.parquet", text=[f"文{i}。" for i in range(1000)])
    whole = bytearray(path.read_bytes())
    whole[4:2000] = b"\xff" * 1996
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"b\.parquet is not a readable parquet file"):
        texts(path)
    with pytest.raises(DataError, match=r"b\.parquet is not a readable parquet file"):
        list(read_file(path, Schema(), [["a"]]))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "切れた', "line 3: not JSON"),
        ('["text"]', "line 3: not a JSON object"),
        ('{"text": 5}', "line 3: 'text' does not hold a string"),
    ],
)
def test_a_bad_line_of_jsonl_is_named(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "文。"}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(DataError, match=rf"a\.jsonl, {message}"):
        texts(path)


def test_jsonl_takes_the_only_string_key_and_null_is_no_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"n": 1, "body": "文。"}\n{"body": null, "title": "題"}\n{"title": null, "body": "終"}', "utf-8")
    assert [(d.title, d.text) for d in read_documents(path)] == [("", "文。"), ("", "終")]


def rows_of(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


TEXT, URL = {"text": "犬。"}, {"url": "http://y/犬"}


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([TEXT, {"texto": "猫。"}, TEXT], [0, 2]),
        ([TEXT | URL, URL, TEXT | URL], [0, 2]),
        ([URL, URL, TEXT], [2]),
        ([{"n": 1}, {"body": "犬。"}, {}, {"body": "犬。", "title": 3}], [1, 3]),
        ([*[TEXT] * 150, URL, *[TEXT] * 150], [*range(150), *range(151, 301)]),
    ],
)
def test_a_file_has_one_column_of_text_and_rows_without_it_are_dropped_and_counted(tmp_path, rows, kept):
    path = rows_of(tmp_path / "a.jsonl", *rows)
    left_out = rf"a\.jsonl: dropped records without text \(no text column {len(rows) - len(kept)}\)"
    with pytest.warns(MamegptWarning, match=left_out):
        assert [(d.id, d.text) for d in read_documents(path)] == [(f"a.jsonl#{i}", "犬。") for i in kept]
    report = extract(str(path), "犬", tmp_path / "b.jsonl")
    assert report.read == len(rows)
    assert report.dropped == {"no text column": len(rows) - len(kept), "duplicate": len(kept) - 1} | {
        "empty": 0,
        "no keyword": 0,
    }


CONTENT = {"content": "犬が遊ぶ。", "deleted": None}


@pytest.mark.parametrize(
    "rows",
    [
        [CONTENT, {"content": None, "deleted": "犬の広告"}, CONTENT],
        [*[CONTENT] * 2000, *[{"content": None, "deleted": "広告"}] * 1000],  # all over the file, not where it begins
    ],
)
def test_which_column_is_the_text_is_asked_if_several_may_be(tmp_path, rows):
    path = rows_of(tmp_path / "a.jsonl", *rows)
    with pytest.raises(DataError, match=r"cannot tell which of \['content', 'deleted'\] is the text; .*text_column"):
        texts(path)
    read = [d.text for d in read_documents(path, schema=Schema(text_column="content"))]
    assert set(read) == {"犬が遊ぶ。"}


def test_a_line_of_very_many_values_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    monkeypatch.setattr("mamegpt.data.readers.jsonl.MAX_LINE_VALUES", 1000)
    path.write_text('{"text": "犬", "a": [' + "[]," * 1000 + "[]]}", encoding="utf-8")
    monkeypatch.setattr("mamegpt.data.readers.jsonl.parse_json", None)
    with pytest.raises(DataError, match=r"line 1: not JSON \(it holds more than 1,000 values\)"):
        texts(path)
    monkeypatch.undo()
    monkeypatch.setattr("mamegpt.data.readers.jsonl.MAX_LINE_VALUES", 10)
    rows_of(path, {"text": '犬,[{"\\' * 100})
    assert texts(path) == ['犬,[{"\\' * 100]


def test_plain_text_is_cut_at_line_ends_and_nothing_is_lost(tmp_path):
    lines = [f"{i}行目。" * (i % 40) for i in range(1000)]
    path = tmp_path / "plain.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\r\n")
    documents = list(read_documents(path))
    assert [d.id for d in documents] == [f"plain.txt#{i}" for i in range(len(documents))]
    assert "\n".join(d.text for d in documents) == "\n".join(lines).lstrip("\n")
    assert len(documents) > 3
    for document in documents[:-1]:
        assert len(document.text) >= 10_000 > len(document.text.rpartition("\n")[0])


def test_a_heading_line_makes_a_file_of_articles(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeff\r\n【題】\r\n文。\r\n\r\n【】\r\n終。\r\n".encode())
    assert [(d.title, d.text) for d in read_documents(path)] == [("題", "文。"), ("", "終。")]


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_what_is_written_as_text_is_read_as_the_same_documents(tmp_path, suffix):
    rows = [("題", "文。\n\n【注】\n一"), ("無題", "\n\ufeff文\n"), ("", "▁【注】\u2028\x85"), ("注\x85", "【終】")]
    with write_documents(tmp_path / f"a{suffix}") as write:
        for title, text in rows:
            write({"title": title, "text": text})
    assert [(d.title, d.text) for d in read_documents(tmp_path / f"a{suffix}")] == rows
    report = extract(str(tmp_path / f"a{suffix}"), Topic(regex=("[文注]",)), tmp_path / f"b{suffix}")
    assert len(list(read_documents(tmp_path / f"b{suffix}"))) == report.kept == len(rows)


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_a_byte_order_mark_is_no_text(tmp_path, suffix):
    path = one_text(tmp_path, f"a{suffix}", "文。")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert texts(path) == ["文。"]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("before", ["", "あい", "あいう\nえ\n"])
def test_another_encoding_is_named_with_its_byte(tmp_path, mark, before):
    path = tmp_path / "a.txt"
    path.write_bytes(mark + before.encode() + "日本".encode("cp932"))
    position = len(mark + before.encode())
    with pytest.raises(DataError, match=rf"a\.txt is not UTF-8 text at byte {position}; .*save it as UTF-8"):
        texts(path)


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_a_source_without_text_is_an_error(tmp_path, content):
    (tmp_path / "a.txt").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="holds no text at all"):
        texts(tmp_path)


@pytest.mark.parametrize("source", ["nowhere", "no/such/file", "corpus/train.txt", "./owner/name", Path("owner/name")])
def test_what_is_neither_here_nor_a_hub_name_is_an_error_at_once(source):
    with pytest.raises(DataError, match="no such file or folder, and not a Hub name"):
        read_documents(source)


def test_unknown_formats_are_errors(tmp_path):
    (tmp_path / "a.pdf").write_text("text", encoding="utf-8")
    with pytest.raises(DataError, match=re.escape("'.pdf' is not known; give one of .parquet, .jsonl, .txt")):
        read_documents(tmp_path / "a.pdf")
    with pytest.raises(DataError, match="no file in a known format"):
        read_documents(tmp_path)


@pytest.mark.parametrize("name", ["a.txt", "b.txt", "a.jsonl", "a.parquet"])
def test_memory_is_constant(tmp_path, name):
    """The Python side of it; some 12 MB of text must never be there at once."""
    rows = [("題", "文。" * 1000)] * 2000
    path = WRITERS[Path(name).suffix](tmp_path / name, rows)
    if name == "b.txt":
        path.write_text("平文。\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    tracemalloc.start()
    n_characters = sum(len(document.text) for document in read_documents(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_characters >= 4_000_000
    assert peak < 4_000_000  # a batch of 2 MB as Arrow has it, and as strings


@pytest.mark.skipif(not (DATA / "wiki_ja").is_dir(), reason="the data folder is not there")
@pytest.mark.filterwarnings(r"ignore:.*\(attribution\.parquet\):mamegpt.errors.MamegptWarning")
@pytest.mark.parametrize(
    ("folder", "split", "count"),
    [("wiki_ja", "validation", 761), ("aozora_ja", "test", 93), ("wikinews_ja", "train", 3470)],
)
def test_real_data(folder, split, count):
    documents = list(read_documents(DATA / folder, split))
    assert len(documents) == count
    assert all(document.title and document.text for document in documents)
    assert not any("_START_" in document.text or "_NEWLINE_" in document.text for document in documents)


# The Hub. Its client reads its settings when it is imported, so it runs in a process of its own.

CLIENT = """
import json, sys
from pathlib import Path
from mamegpt.errors import HubError, MamegptError
from mamegpt.data.shards import is_shards
from mamegpt.data.sources import download, read_documents

def attempt(source, split):
    try:
        return [[d.id, d.title, d.text] for d in read_documents(source, split)]
    except MamegptError as error:
        return f"{type(error).__name__}: {error}"

assert "huggingface_hub" not in sys.modules and "pyarrow" not in sys.modules
answers = [attempt(source, split) for source, split in json.loads(sys.argv[1])]
splits = download(sys.argv[2]).splits
counts = {name: [info.rows, info.bytes, len(info.files)] for name, info in splits.items()}
print(json.dumps([answers, counts]))
"""


def run_client(env: dict[str, str], asked: list[tuple[str, str]], dataset: str):
    command = [sys.executable, "-c", CLIENT, json.dumps(asked), dataset]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_hub_data_set_is_fetched_once_and_then_read_without_a_network(tmp_path):
    repository = tmp_path / "root" / "datasets" / "owner" / "corpus"
    files = [
        parquet(repository / "data" / "train-00000-of-00002.parquet"),
        parquet(repository / "data" / "train-00001-of-00002.parquet", [("四", "四つ目。")]),
    ]
    one_text(repository, "data/test-00000-of-00001.jsonl", "試験。")
    (repository / "picture.bin").write_bytes(b"no text")
    (repository.parent / "bare").mkdir()
    (repository.parent / "bare" / "loader.py").write_text("raise SystemExit", encoding="utf-8")
    asked = [
        ("owner/corpus", "train"),
        ("owner/corpus", "test"),
        ("owner/corpus", "dev"),
        ("owner/absent", "train"),
    ]
    with HubServer(tmp_path / "root") as hub:
        env = hub.env(tmp_path)
        (train, test, dev, absent, bare), counts = run_client(env, [*asked, ("owner/bare", "train")], "owner/corpus")
        assert not any("picture.bin" in line or "loader.py" in line for line in hub.requests)
    assert [text for _, _, text in train] == [text for _, text in ROWS] + ["四つ目。"]
    assert train[0][:2] == ["data/train-00000-of-00002.parquet#0", "京枡"]
    assert [text for _, _, text in test] == ["試験。"]
    assert dev == "DataError: owner/corpus has no split 'dev'; it has test, train"
    assert re.match(r"HubError: no local file or folder owner/absent, and no such dataset at http://127", absent)
    assert re.match(r"HubError: owner/bare has no file in a known format .* no revision refs/convert/parquet", bare)
    assert counts["train"] == [4, sum(file.stat().st_size for file in files), 2]
    assert counts["test"][0] is None

    (*offline, missing), counts_offline = run_client(env, asked, "owner/corpus")
    assert (offline, counts_offline) == ([train, test, dev], counts)
    assert re.match(r"HubError: owner/absent is not a local file or folder, http.* cannot be reached", missing)


def test_the_hubs_own_conversion_is_read_when_there_is_nothing_else(tmp_path):
    cache = tmp_path / "hub" / "datasets--owner--scripted"
    for reference, commit in {"main": "1" * 40, "refs/convert/parquet": "2" * 40}.items():
        (cache / "refs" / reference).parent.mkdir(parents=True, exist_ok=True)
        (cache / "refs" / reference).write_text(commit, encoding="utf-8")
        (cache / "snapshots" / commit).mkdir(parents=True)
    converted = cache / "snapshots" / ("2" * 40)
    parquet(converted / "default" / "train" / "0000.parquet")
    parquet(converted / "default" / "any_name" / "0000.parquet", [("", "別。")])
    parquet(converted / "other" / "train" / "0000.parquet", [("", "他。")])
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub"), "PYTHONUTF8": "1"}
    asked = [("owner/scripted", "train"), ("owner/scripted", "any_name")]
    (train, other), counts = run_client(env, asked, "owner/scripted")
    assert [(title, text) for _, title, text in train] == ROWS
    assert other == [["any_name/0000.parquet#0", "", "別。"]]
    assert {name: rows for name, (rows, *_) in counts.items()} == {"any_name": 1, "train": 3}


# Compressed files, layouts, columns, patterns, several sources, dumps

PACKERS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda raw: pa.compress(raw, "zstd", asbytes=True),
}


@pytest.mark.parametrize("packed", sorted(PACKERS))
@pytest.mark.parametrize("suffix", [".jsonl", ".txt", ".csv"])
def test_compressed_files_read_alike_and_cut_off_ones_are_errors(tmp_path, suffix, packed):
    plain = WRITERS[suffix](tmp_path / f"train{suffix}", ROWS * 2000)
    raw = PACKERS[packed](plain.read_bytes())
    (tmp_path / "b").mkdir()
    path = tmp_path / "b" / f"train{suffix}{packed}"
    path.write_bytes(raw)
    assert texts(tmp_path / "b") == texts(plain)
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match=rf"train{suffix}{packed} (is damaged or cut off|cannot be read)"):
        texts(path)
    path.write_bytes(b"not packed at all")
    with pytest.raises(DataError, match=rf"train{suffix}{packed} (is damaged or cut off|cannot be read)"):
        texts(path)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [("file", ["一\n\n二\n三\n\n\n四"]), ("line", ["一", "二", "三", "四"]), ("block", ["一", "二\n三", "四"])],
)
def test_what_one_document_of_a_text_file_is_can_be_said(tmp_path, layout, expected):
    path = tmp_path / "a.txt"
    path.write_text("一\n\n二\n三\n\n\n四\n", encoding="utf-8")
    assert [d.text for d in read_documents(path, schema=Schema(txt_layout=layout))] == expected


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_columns_are_guessed_shown_and_can_be_named(tmp_path, suffix):
    rows = [{"head": "題", "body": "文。", "text": "別"}, {"head": None, "body": "終", "text": "別"}]
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    named = Schema("body", "head")
    assert [(d.title, d.text) for d in read_documents(path, schema=named)] == [("題", "文。"), ("", "終")]
    assert texts(path) == ["別", "別"]
    kind = "column" if path.suffix == ".parquet" else "key"
    assert describe(path, named) == Layout(kind, "body", "head")
    assert describe(path, Schema()) == Layout(kind, "text")
    for schema, option in ((Schema("none"), "text_column"), (Schema(title_column="none"), "title_column")):
        with pytest.raises(DataError, match=rf"no 'none' \({option}\) that holds strings; there are .*'head'"):
            list(read_documents(path, schema=schema))


def test_what_a_text_file_is_taken_for_is_shown(tmp_path):
    assert describe(txt(tmp_path / "a.txt"), Schema()) == Layout("article")
    (tmp_path / "b.txt").write_text("文", encoding="utf-8")
    assert describe(tmp_path / "b.txt", Schema()) == Layout("plain")
    assert describe(tmp_path / "b.txt", Schema(txt_layout="line")) == Layout("line")


def test_a_pattern_finds_files_below_the_part_that_is_none(tmp_path):
    for name, text in {"x/a.txt": "甲", "x/y/b.jsonl": "乙", "z/c.txt": "丙", "z/.d.txt": "丁"}.items():
        one_text(tmp_path, name, text)
    assert [(d.id, d.text) for d in read_documents(f"{tmp_path}/x/**/*")] == [("a.txt#0", "甲"), ("y/b.jsonl#0", "乙")]
    assert texts(f"{tmp_path}/?/*.txt") == ["甲", "丙"]
    with pytest.raises(DataError, match=r"no file in a known format .* matches"):
        read_documents(f"{tmp_path}/*.parquet")


def test_a_name_that_is_too_long_for_a_file_is_an_error_and_a_long_list_is_not(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        find_files("豆" * 300 + ".txt")
    parts = []
    for i in range(12):
        (tmp_path / f"{'m' * 40}{i}.txt").write_text(f"{i}", encoding="utf-8")
        parts.append(str(tmp_path / f"{'m' * 40}{i}.txt"))
    assert len(",".join(parts)) > 255 and not is_shards(",".join(parts))
    assert [text for d in read_documents(",".join(parts)) for text in [d.text]] == list(map(str, range(12)))


def test_several_sources_are_read_one_after_the_other_as_often_as_they_weigh(tmp_path):
    a = WRITERS[".jsonl"](tmp_path / "a.jsonl", [("", f"甲{i}") for i in range(8)])
    b = one_text(tmp_path, "b.txt", "乙")
    documents = list(read_documents(f"{b}@2, {a}@0.25"))
    chosen = [int(document.id[-1]) for document in documents[2:]]
    assert [(d.id, d.text) for d in documents] == [
        (f"{b}:b.txt#0", "乙"),
        (f"{b}:b.txt#0", "乙"),
        *((f"{a}:a.jsonl#{i}", f"甲{i}") for i in chosen),
    ]
    assert len(texts(f"{a}@2")) == 16 and len(texts(f"{a}@1.5")) == 8 + len(texts(f"{a}@0.5"))
    for weight in ("0", "x", "-1", "nan", "1e9"):
        with pytest.raises(DataError, match="is not a weight"):
            read_documents(f"{a}@{weight}")
    odd = one_text(tmp_path, "c,d@2.txt", "丙")
    assert texts(str(odd)) == ["丙"]


@pytest.mark.parametrize("period", [2, 3, 7])
@pytest.mark.parametrize("weight", [0.5, 0.3, 1.25])
def test_a_weight_takes_its_share_of_each_kind_whatever_their_order(tmp_path, period, weight):
    a = WRITERS[".jsonl"](tmp_path / "alt.jsonl", [("", f"{i % period}番の文{i}") for i in range(4200)])
    read = Counter(text[0] for text in texts(f"{a}@{weight}"))
    each = 4200 / period
    assert len(read) == period
    assert all(abs(n - weight * each) < 5 * (weight % 1 * each) ** 0.5 for n in read.values()), read
    assert set(texts(f"{a}@0.3")) <= set(texts(f"{a}@0.5"))


def test_of_many_small_files_a_weight_takes_its_share(tmp_path):
    for i in range(200):
        one_text(tmp_path, f"{i}.txt", f"豆{i}")
    read = [texts(f"{tmp_path}@0.5"), texts(f"{tmp_path}@1.5")]
    assert 70 <= len(read[0]) <= 130 and len(read[1]) == 200 + len(read[0])
    assert read[0] == texts(f"{tmp_path}@0.5")


def test_documents_of_which_nothing_is_left_are_no_texts(tmp_path):
    path = WRITERS[".jsonl"](tmp_path / "a.jsonl", [("", "\n\n"), ("", "\0"), ("", "豆")])
    assert list(read_texts(str(path))) == ["豆"]


def test_a_name_that_is_not_utf_8_can_be_written(tmp_path, mame):
    name = os.fsdecode("日本.txt".encode("cp932"))
    try:
        (tmp_path / name).write_text("豆", encoding="utf-8")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    (document,) = read_documents(tmp_path)
    assert document.id.encode() and document.id.endswith("{.txt#0")
    for command in ("extract", "clean"):
        words = {
            "extract": ["--dataset", tmp_path, "--keyword", "豆"],
            "clean": ["--data", tmp_path, "--only", "duplicates"],
        }[command]
        out = tmp_path.parent / f"{command}.jsonl"
        assert mame(command, *words, "--out", out)[::2] == (0, "")
        assert json.loads(out.read_text(encoding="utf-8"))["id"] == document.id
    (tmp_path / name).write_bytes("豆".encode("cp932"))
    code, _, err = mame("clean", "--data", tmp_path / name, "--out", tmp_path.parent / "b.jsonl")
    assert code == 2 and "looks like cp932" in err.encode("utf-8", "replace").decode()


def page(title: str, text: str, ns: int = 0, extra: str = "") -> str:
    text = f"<revision><text>{html.escape(text)}</text></revision>"
    return f"<page><title>{title}</title><ns>{ns}</ns><id>1</id>{extra}{text}</page>"


MARKUP = """{{Infobox|名前=京都}}
'''京都'''（きょうと）は、[[日本]]の[[都市|都]]である<ref>出典</ref>。&amp; [https://a.example 外部]<!-- 注 -->
[[ファイル:a.jpg|thumb|説明[[山]]]]
== 歴史 ==
=== 古代 ===
794年<BR />''平安京''。
{| class="wikitable"
| 表
|}
=== 中世 ===
== 一覧 ==
* 項目
* [[:Category:町]]
== 脚注 ==
{{Reflist}}
[[Category:京都]]"""
PLAIN = "京都（きょうと）は、日本の都である。& 外部\n歴史\n古代\n794年\n平安京。\n一覧\n項目\n町"


@pytest.fixture
def dump(tmp_path) -> Path:
    path = tmp_path / "jawiki-20260101-pages-articles.xml.bz2"
    redirect = page("みやこ", "#転送 [[京都]]", extra='<redirect title="京都" />')
    whole = page("京都", MARKUP) + page("ノート:京都", "京都", 1) + redirect + page("空", "{{stub}}")
    header = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo><sitename>W</sitename></siteinfo>'
    path.write_bytes(bz2.compress((header + whole).encode()) + bz2.compress(b"</mediawiki>"))  # several streams
    return path


def test_a_dump_gives_its_articles_without_markup_and_counts_the_rest(dump, tmp_path):
    with pytest.warns(MamegptWarning, match=r"dropped records without text \(other namespace 1, redirect 1\)"):
        assert list(read_documents(dump)) == [Document(f"{dump.name}#0", "京都", PLAIN)]
    report = extract(str(dump), "京都", tmp_path / "a.txt")
    assert (report.read, report.kept) == (4, 1)
    assert report.dropped == {"empty": 0, "no keyword": 1, "duplicate": 0, "redirect": 1, "other namespace": 1}
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == format_article("京都", PLAIN)


@pytest.mark.parametrize(
    ("markup", "seen", "n_holes"),
    [
        (
            "{{仮リンク|エンドウ|en|Pea}}も豆である。長さは、{{convert|10|cm|in}}。",
            "エンドウも豆である。長さは、10 cm。",
            0,
        ),
        (
            "{{仮リンク|エンドウ|en|Pea|label=えんどう}}、{{Lang|en|[[bean]]}}、{{lang-en|pea}}",
            "えんどう、bean、pea",
            0,
        ),
        (
            "{{convert|5|-|10|km|mi|abbr=on}}と{{ルビ|豆|まめ}}と<ruby>米<rt>こめ</rt></ruby>",
            "5 - 10 kmと豆（まめ）と米（こめ）",
            0,
        ),
        ("{{要出典範囲|豆は{{nowrap|丸い}}|date=2020年}}{{要出典}}。", "豆は丸い。", 0),
        (
            "{{独自|豆}}も豆である。長さは、{{数|1}}。重さは{{数|2}}と{{数|3}}。{{出典}}\n{{一覧|豆}}",
            "も豆である。長さは、。重さはと。",
            3,
        ),
        ("{{Infobox\n|豆=1}}豆。", "豆。", 0),
        ("__NOTOC__豆__目次非表示__は__FILE__", "豆は__FILE__", 0),
        ("豆[[en:Bean]][[zh-min-nan:Tāu]][[category :豆|*]]", "豆", 0),
        ("[[:en:Bean]]と[[:Category:豆]]と[[:en:Pea|エンドウ]]と[[Re:豆]]", "Beanと豆とエンドウとRe:豆", 0),
        ("<div>豆</div><div>米</div><p>麦</p>\n<span>粟</span>と", "豆\n米\n麦\n粟と", 0),
    ],
)
def test_templates_in_a_sentence_leave_no_hole_or_it_is_counted(tmp_path, markup, seen, n_holes):
    path = tmp_path / "wiki.xml"
    path.write_text(f"<mediawiki>{page('題', markup)}</mediawiki>", encoding="utf-8")
    (document,) = read_documents(path)
    assert document.text == seen
    report = extract(str(path), "題", tmp_path / "a.txt")
    assert report.n_holes == n_holes
    assert ("sentences with a hole" in extract_table(report)) == (n_holes > 0)


@pytest.mark.parametrize("encoding", ["EUC-JP", "Shift_JIS", "cp932", "utf-16", "UTF-8", "ISO-8859-1"])
@pytest.mark.parametrize("declared", [True, False])
def test_a_dump_is_read_in_the_encoding_it_declares_or_that_is_said(tmp_path, encoding, declared):
    text = "犬がいる。" if encoding != "ISO-8859-1" else "café"
    xml = f"<mediawiki>{page(text, text * 20_000)}</mediawiki>"
    if declared:
        xml = f'<?xml version="1.0" encoding="{encoding}"?>\n{xml}'
    path = tmp_path / "a.xml"
    path.write_bytes(xml.encode(encoding))
    (document,) = read_documents(path, schema=Schema() if declared else Schema(encoding=encoding))
    assert (document.title, document.text) == (text, text * 20_000)


@pytest.mark.parametrize("encoding", ["EUC-JP", "no-such"])
def test_a_dump_in_another_encoding_than_it_declares_is_an_error(tmp_path, encoding):
    path = tmp_path / "a.xml"
    path.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?><mediawiki>犬</mediawiki>'.encode())
    with pytest.raises(DataError, match="is in an encoding that cannot be read"):
        texts(path)
    path.write_bytes(path.read_bytes().replace(encoding.encode(), b"rot13"))
    with pytest.raises(ConfigError, match="encoding rot13 is not a text encoding"):
        texts(path)


def test_a_byte_order_mark_says_more_than_a_declaration(tmp_path):
    path = tmp_path / "a.xml"
    xml = f'<?xml version="1.0" encoding="Shift_JIS"?><mediawiki>{page("犬", "犬がいる。")}</mediawiki>'
    path.write_text(xml, encoding="utf-8-sig")
    assert texts(path) == ["犬がいる。"]


@pytest.mark.parametrize("filler", [b"\xe7\x8a\xac", b"<a/>"])
def test_a_page_without_end_is_refused_before_it_is_all_in_memory(tmp_path, monkeypatch, filler):
    monkeypatch.setattr("mamegpt.data.readers.mediawiki.MAX_PAGE_BYTES", 1 << 18)
    path = tmp_path / "a.xml.gz"
    path.write_bytes(gzip.compress(b"<mediawiki><page><text>" + filler * ((20 << 20) // len(filler)), 1))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"a page is larger than .* MiB; give a dump with one revision"):
        texts(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20


def test_a_dump_cut_off_is_an_error(dump):
    xml = bz2.decompress(dump.read_bytes())
    dump.with_suffix("").write_bytes(xml[: len(xml) // 2])
    with pytest.raises(DataError, match="is not a whole dump of a MediaWiki"):
        texts(dump.with_suffix(""))
    dump.write_bytes(dump.read_bytes()[:-4])
    with pytest.raises(DataError, match="is damaged or cut off"):
        texts(dump)


# Bad input


@pytest.mark.parametrize("encoding", ["cp932", "euc-jp", "iso-2022-jp", "utf-16"])  # names that iconv knows too
@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".jsonl"])
def test_the_likely_encoding_is_named(tmp_path, encoding, suffix):
    line = '{"text": "日本語の文章です。これは試験のための文で、少し長く書いてあります。"}\n'
    path = tmp_path / f"a{suffix}"
    raw = (line * 20).encode(encoding)
    path.write_bytes(gzip.compress(raw) if suffix.endswith(".gz") else raw)
    with pytest.raises(DataError, match=rf"is not UTF-8 text at byte \d+; it looks like {encoding}: use encoding"):
        texts(path)


def test_nul_and_empty_files_and_long_lines_pass(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "b.jsonl").write_bytes(b"\n\n")
    parquet(tmp_path / "c.parquet", [])
    (tmp_path / "d.txt").write_text("京\0都" * 100_000, encoding="utf-8")
    assert list(read_texts(tmp_path)) == ["京都" * 100_000]
    monkeypatch.setattr("mamegpt.data.readers.lines.MAX_LINE_CHARACTERS", 1000)
    with pytest.raises(DataError, match=r"d\.txt, line 1 is longer than"):
        list(read_texts(tmp_path))
