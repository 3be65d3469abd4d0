"""What a line of text is, in every encoding, and how a wrong encoding is noticed."""

from __future__ import annotations

import bz2
import gzip
import inspect
import json
import re
from pathlib import Path
from typing import get_type_hints

import pytest
from command import Mame
from help_texts import sentences
from hypothesis import example, given
from hypothesis import strategies as st
from little import Little

from mamegpt.cli.commands.models import read_prompts
from mamegpt.cli.commands.registry import COMMANDS
from mamegpt.config import TrainConfig
from mamegpt.data.readers import lines as module
from mamegpt.data.readers.lines import lines
from mamegpt.data.schema import GUESS, SETTINGS, Schema
from mamegpt.data.sources import read_documents
from mamegpt.errors import ConfigError, DataError

NOT_ENDS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"
"""What str.splitlines takes for ends of lines, and we do not."""
ENCODINGS = ["cp932", "euc-jp", "iso-2022-jp", "utf-16", "utf-16le", "utf-16be", "utf-8"]


def expected(text: str) -> list[str]:
    """The definition, naively."""
    parts = re.split("\r\n|\r|\n", text)
    return [part.lstrip("\ufeff") for part in (parts if parts[-1] else parts[:-1])]


@given(st.text(st.sampled_from("犬。a \n\r\ufeff" + NOT_ENDS), max_size=30), st.sampled_from([1, 2, 3, 1000]))
@example("【題】\r犬\r\r\n猫", 1)
@example("\ufeff\ufeff犬\n\ufeff猫\n\ufeff", 2)
def test_a_line_is_what_the_definition_says_wherever_blocks_end(
    tmp_path_factory: pytest.TempPathFactory, text: str, size: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_BYTES", size)
        assert list(lines(path)) == expected(text)
    if prompts := [line for line in expected(text) if line]:
        assert read_prompts(path) == prompts


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".txt.gz", ".jsonl.bz2"])
def test_every_format_knows_all_three_ends(tmp_path: Path, end: str, suffix: str) -> None:
    texts = [("一", f"犬{NOT_ENDS}猫。"), ("二", "雪。")]
    if ".txt" in suffix:
        raw = "\n\n".join(f"\ufeff【{title}】\n{text}" for title, text in texts)
    else:
        raw = "\n".join(json.dumps({"title": t, "text": text}, ensure_ascii=False) for t, text in texts)
    packed = {"z": gzip.compress, "2": bz2.compress}.get(suffix[-1], bytes)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(packed(raw.replace("\n", end).encode()))
    assert [(d.title, d.text) for d in read_documents(path)] == texts


TEXTS = [
    "【犬】\n犬がいる。\n",
    "犬",
    "猫がいる。",
    "カタカナ",
    "犬がいる。\n" * 20,
    'x = "値"\n' * 50,
    "吾輩《わがはい》は犬［＃「犬」に傍点］である。\r\n" * 2,
    "吾輩は猫である。名前はまだ無い。\n" * 9000,
    "a" * 70_000 + "\n日本語の文章です。\n",
]


@pytest.mark.parametrize("text", TEXTS, ids=[text[:6] for text in TEXTS])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_likely_encoding_is_named_and_read_when_it_is_said(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    if encoding != "utf-8":
        with pytest.raises(DataError, match=rf"is not UTF-8 text at byte [\d,]+; it looks like {encoding}: use enc"):
            list(lines(path))
    assert list(lines(path, encoding)) == expected(text)


def test_zeros_are_text_if_nothing_speaks_for_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("京\0都\n".encode() * 50_000 + "京\x1b$都".encode())
    assert list(lines(path))[-1] == "京\x1b$都"


def test_what_is_no_text_in_the_encoding_that_was_said_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("日本語の文章です。\n" * 3, encoding="utf-8")
    with pytest.raises(DataError, match=r"is not EUC-JP text at byte \d+; it looks like utf-8: use encoding utf-8"):
        list(lines(path, "euc-jp"))
    for name in ("utf8000", "base64", "rot13", "\0"):
        with pytest.raises(ConfigError, match="is not a text encoding"):
            list(lines(path, name))


READ_TEXT = ["demo", "extract", "clean", "tokenizer", "tokenizer-report", "plan", "train", "eval"]


def test_every_command_that_reads_text_has_all_options_of_its_form(mame: Mame) -> None:
    with_data = [
        name
        for name, command in COMMANDS.items()
        if {"data", "dataset", "config"} & {*inspect.signature(command).parameters}
    ]
    assert {*READ_TEXT} == {*with_data} - {"download", "classify"}  # which reads texts with labels
    for name in READ_TEXT:
        shown = mame(name, "--help")[1]
        assert all(f"--{setting.replace('_', '-')} " in shown for setting in SETTINGS), name
    for setting in SETTINGS:
        assert sentences(TrainConfig)[setting] == sentences(Schema)[setting]
        assert getattr(TrainConfig, setting) == getattr(GUESS, setting)
        assert get_type_hints(TrainConfig)[setting] == get_type_hints(Schema)[setting]


def test_a_run_without_these_settings_keeps_its_fingerprint() -> None:
    assert TrainConfig().fingerprint() == TrainConfig(encoding="utf-8", txt_layout="auto").fingerprint()
    assert len({TrainConfig(**{name: "line"}).fingerprint() for name in SETTINGS} | {TrainConfig().fingerprint()}) == 5


def test_the_options_are_of_use_and_the_next_line_has_them(mame: Mame, little: Little, tmp_path: Path) -> None:
    rows = little.text.read_text(encoding="utf-8").split("\n\n")
    raw = "".join(json.dumps({"body": row, "url": "http://x"}, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_bytes(raw.encode("cp932", "replace"))
    words = ["--data", tmp_path / "a.jsonl", "--text-column", "body", "--encoding", "cp932"]
    code, out, err = mame("tokenizer", *words, "--out", tmp_path / "tok", "--vocab-size", 1100)
    assert (code, err) == (0, "") and "--text-column body --encoding cp932 --tokenizer" in out.splitlines()[-1]
    assert mame("tokenizer-report", *words, "--split", "train", "--model", little.spm)[0] == 0
    assert mame("clean", *words, "--out", tmp_path / "b.jsonl")[0] == 0
    few = ["--emb-dim", 8, "--n-layers", 1, "--n-heads", 1, "--context-length", 8, "--max-steps", 1, "--batch-size", 2]
    few += ["--precision", "fp32", "--compile", "false", "--tokenizer", little.spm, "--out", tmp_path / "run"]
    assert "--text-column" in mame("train", *words[:2], "--encoding", "cp932", *few)[2]
    assert mame("train", *words, *few)[0] == 0
    code, out, err = mame("eval", *words, "--model", tmp_path / "run", "--max-characters", 300)
    assert (code, err) == (0, "") and "bits per character" in out


@pytest.mark.parametrize("text", ["\0\U00025da1", "豆\0と\x1b$B", "\0\0\x1b$é"])
def test_utf_8_with_zeros_and_escapes_is_utf_8(tmp_path: Path, text: str) -> None:
    """Some of these would be plausible in another encoding, but their bytes beyond ASCII show that they are UTF-8."""
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    assert list(lines(path)) == [text]
