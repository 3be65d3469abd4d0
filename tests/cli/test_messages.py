"""Japanese messages: none is missing, none is left over, each fills what the English one fills."""

from __future__ import annotations

import ast
import ctypes
import io
import pickle
import re
import string
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po
from catalogue import KEYWORDS, MO, PO, as_po, compiled, extracted, updated
from command import Mame
from little import ROOT, Little, run_mamegpt

from mamegpt.cli import console
from mamegpt.cli.commands.registry import COMMANDS
from mamegpt.cli.console import duration, headings, n_cells
from mamegpt.cli.help import WORDS
from mamegpt.cli.language import label, translated, user_language
from mamegpt.cli.main import WAY, main, run_command_line
from mamegpt.cli.render.models import check_table
from mamegpt.cli.render.planning import cluster_table
from mamegpt.errors import ConfigError, DataError, naming_options
from mamegpt.exporting.checks import Check, logits_check
from mamegpt.messages import LANGUAGES, Message, join, msg, tally, translate
from mamegpt.planning.cluster_cost import CLUSTERS, MODELS, ClusterPlan, best


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    with PO.open("rb") as file:
        return read_po(file, locale="ja")


@pytest.fixture
def japanese(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MAMEGPT_LANG", "ja")
    yield


def test_the_catalogue_has_every_message_of_the_source_and_nothing_else(catalog: Catalog) -> None:
    """``make messages`` brings it up to date."""
    found = extracted()
    assert len(found) > 500
    assert {text: places for text, places in found.items() if text not in catalog} == {}
    assert {str(message.id) for message in catalog if message.id} - set(found) == set()
    assert [message.id for message in catalog if message.id and (not message.string or message.fuzzy)] == []
    assert as_po(updated(catalog)) == PO.read_bytes()
    assert compiled(catalog) == MO.read_bytes()


def fields(template: str) -> set[tuple[str, str | None, str | None]]:
    """Names, formats and conversions of what a template fills in."""
    return {(name, how, to) for _, name, how, to in string.Formatter().parse(template) if name is not None}


def test_a_translation_fills_the_same_fields_and_keeps_names(catalog: Catalog) -> None:
    commands = "|".join(COMMANDS)
    for message in catalog:
        english, japanese = str(message.id), str(message.string)
        if re.search(r"\{\w", english):
            assert fields(japanese) == fields(english), english
        for name in re.findall(rf"--[a-z][\w-]+|\b(?:pip install|mamegpt (?:{commands}))\b", english):
            assert name in japanese, english


# fmt: off
NAMES = re.compile(
    r"`[^`]*`|--[\w-]+(?: [\w.*/]+)*|mamegpt(?: [\w./-]+)+|pip install [^、。]*|hf auth login|git lfs pull|\{[^}]*\}|"
    r"[\w.-]+\.(?:json|md|txt|jsonl)|Hugging Face Hub|Apple MPS|Python|SentencePiece|[\w-]+/[\w./-]+|"
    r"download, extract, clean|weight decay|nucleus sampling"
)
# fmt: on


def filled(template: str) -> str:
    """A template with typical values; one without fields as it is, braces included."""
    values = {name: 12 if spec in (",", "d") else 0.5 if spec else "runs/first" for name, spec, _ in fields(template)}
    return template.format(**values) if values else template


def test_a_japanese_message_has_no_english_in_it(catalog: Catalog) -> None:
    """No three English words in a row but names, options and commands, whatever is filled in."""
    found = {}
    for message in catalog:
        japanese = str(message.string) if "{" not in str(message.id) else filled(str(message.string))
        if words := re.search(r"\b[A-Za-z]{2,} [A-Za-z]{2,} [A-Za-z]{2,}\b", NAMES.sub("・", japanese)):
            found[message.id] = words[0]
    assert found == {}


def test_what_is_filled_into_a_message_is_translated_too() -> None:
    """No English text between words, and none of several words, is given to a template as a plain string."""
    found = []
    for path in sorted((ROOT / "mamegpt").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        for call in ast.walk(ast.parse(source)):
            if isinstance(call, ast.Call) and called(call) in KEYWORDS:
                texts = [text for keyword in call.keywords for text in plain_texts(keyword.value)]
                found += [(path.name, call.lineno, text) for text in texts if re.search(r"[A-Za-z]{2,} |^ [a-z]", text)]
        found += [(path.name, 0, text) for text in re.findall(r'" (?:and|or) "\.join', source)]
    assert found == []


def called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def plain_texts(node: ast.AST) -> Iterator[str]:
    """The strings in an expression, but for those that are messages."""
    if isinstance(node, ast.Call) and called(node) in (*KEYWORDS, "join"):
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for inner in ast.iter_child_nodes(node):
        yield from plain_texts(inner)


@pytest.mark.usefixtures("japanese")
def test_a_message_is_translated_with_what_it_fills_in() -> None:
    reason = msg("No such file or directory")
    error = DataError("{path} cannot be read ({reason}); fetch it again", path="a b", reason=reason)
    assert str(error) == "a b cannot be read (No such file or directory); fetch it again"
    inner = msg("{path} is damaged ({reason}); remove it to continue without it", path="no text", reason=error)
    assert "ファイルもフォルダもありません" in translated(inner) and "no text" in translated(inner)
    several = join("; ", [msg("{option} is needed", option="--out"), msg("{option} is needed", option="--data")])
    assert several == "--out is needed; --data is needed"
    assert translated(several) == "--out が必要です。--data が必要です"
    assert translated(ConfigError(several).message) == translated(several)
    assert translate(several, "en") == several
    for message in (several, inner):
        again = pickle.loads(pickle.dumps(message))
        assert translated(again) == translated(message)


@pytest.mark.usefixtures("japanese")
def test_counts_by_reason_are_one_message() -> None:
    counts = tally({"too few hits": 1234, "duplicates": 0, "boilerplate": 1})
    assert counts == "too few hits 1,234, boilerplate 1"
    assert translated(counts) == "ヒット数が不足 1,234、定型文(boilerplate) 1"


@pytest.mark.usefixtures("japanese")
def test_what_users_wrote_is_not_translated() -> None:
    assert translated("text") == "text" and label("text") == "テキスト"
    assert headings("text", msg("text")) == ["text", "テキスト"]
    assert translated(msg("{path} is a folder; give the name of a file to write", path="text")).startswith("text ")
    assert translated(Message("昔々、あるところに")) == "昔々、あるところに"
    assert console.table([(msg("read"), "1"), (msg("text"), "2")]) == "  読んだ文書  1\n  テキスト    2"
    with naming_options():
        assert str(ConfigError("{option} is needed", option="--out")) == "--out is needed"
    assert str(ConfigError('{x} is not {{"a"}}', x="{y}")) == '{y} is not {"a"}'
    assert str(ConfigError('not {"a"}')) == 'not {"a"}'


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "en"),
        ({"LANG": "ja_JP.UTF-8"}, "ja"),
        ({"LANG": "ja_JP.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LC_MESSAGES": "ja", "LANG": "en_US"}, "ja"),
        ({"LANG": "ja_JP", "MAMEGPT_LANG": "en"}, "en"),
        ({"MAMEGPT_LANG": "ja"}, "ja"),
        ({"LC_ALL": "", "LANG": "ja"}, "ja"),
    ],
)
def test_which_language(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAMEGPT_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert user_language() == expected


@pytest.mark.parametrize(("number", "expected"), [(0x0411, "ja"), (0x0409, "en")])
def test_on_windows_it_is_the_language_of_the_menus(
    number: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MAMEGPT_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    kernel = SimpleNamespace(kernel32=SimpleNamespace(GetUserDefaultUILanguage=lambda: number))
    monkeypatch.setattr(ctypes, "windll", kernel, raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    assert user_language() == expected
    monkeypatch.setenv("MAMEGPT_LANG", "ja")
    assert user_language() == "ja"


def test_a_pipe_is_utf8_where_the_code_page_is_932(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a Japanese Windows; 𠮷 and ▁ are not in that code page, and — has another code in it."""
    text = "𠮷野家 ▁▂▃ —～"
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="cp932") for name in ("stdin", "stdout", "stderr")}
    streams["stdin"] = io.TextIOWrapper(io.BytesIO(f"{text}\n".encode()), encoding="cp932")
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)

    def command() -> None:
        """Say what comes in."""
        for line in console.asked():
            console.say(line)

    with pytest.raises(SystemExit) as end:
        run_command_line(command, [])
    assert end.value.code == 0
    assert streams["stdout"].buffer.getvalue().decode() == f"{text}\n"  # type: ignore[attr-defined]


@pytest.mark.usefixtures("japanese")
def test_tables_and_gates_are_japanese_and_aligned() -> None:
    tight = replace(CLUSTERS["a100"], memory_bytes=19e9)
    plan = ClusterPlan("tight", tight, (("7B", best(MODELS["7B"], tight, 8), 8), ("7B", None, 1)))
    about, header, fits, not_at_all = cluster_table(plan).splitlines()
    assert about == (
        "tight での理論見積もり(実測ではありません): GPU 1 台 312 TFLOP/s・19 GB、1 ノード 8 台、$1.80/GPU 時"
    )
    assert header.split()[:3] == ["モデル", "台数", "並列方式"] and n_cells(header) == n_cells(fits)
    assert "  全分割(FSDP)、再計算あり  " in fits and " 日  $" in fits and not_at_all.endswith("  メモリ不足")
    assert [duration(seconds) for seconds in (40, 300, 9_000, 300_000)] == ["40 秒", "5 分", "2.5 時間", "3.5 日"]
    logits = logits_check(
        0.5, 0.1, msg("{n_rows} sequences x {n_tokens} tokens, from {names}", n_rows=2, n_tokens=256, names="a.bin")
    )
    assert check_table([logits]) == (
        "  ロジット  不合格  最大差 5.0e-01(許容 1.0e-01)、2 系列 × 256 トークンを比較(a.bin)"
    )
    missing = msg("missing or unexpected keys: {keys}, in {names}", keys=msg("none"), names="a.bin")
    assert check_table([Check(msg("weights"), True, missing)]) == "  重み  合格  欠損・余分なキー: なし(a.bin)"


@pytest.mark.usefixtures("japanese")
def test_help_and_errors_are_japanese(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for words, expected in (
        (["--help"], [label(WAY)[:20], "モデルを学習します。"]),
        (
            ["train", "--help"],
            [
                "モデルを学習します。",
                "run フォルダ(設定、",
                "5m",
                "--lr FLOAT",
                "╭─ テキストの設定 ─",
                "╭─ 実行の設定 ─",
                "--minutes FLOAT",
                "(選択肢: none, full) (既定: none)",
            ],
        ),
        (
            ["generate", "--help"],
            [
                "サンプリング温度。0 は",
                "╭─ オプション ─",
                "この説明を表示して終わります",
                "(必須)",
                "--prompts PATH",
                "(既定: auto)",
            ],
        ),
    ):
        with pytest.raises(SystemExit):
            main(words)
        out = capsys.readouterr().out
        boxes = re.findall(r"^╭.*?^╰.*?$", out, re.MULTILINE | re.DOTALL)
        assert boxes and all(len(set(map(n_cells, box.splitlines()))) == 1 for box in boxes)
        text = " ".join(out.replace("│", " ").split())
        assert [one for one in expected if one not in text] == []
        assert [str(one) for one in WORDS if len(one) > 7 and str(one) in text] == []
    with pytest.raises(SystemExit) as end:
        main(["train", "--size", "1m", "--lr", "-1", "--tokenizer", "t", "--data", "d"])
    assert end.value.code == 2
    said = "エラー: --out が必要です。--lr は 0 より大きい数で指定してください(指定値: -1.0)\n"
    assert capsys.readouterr().err == said


NOT_FIRST = "、。，．・：；！？)）」』】〕ー…ぁぃぅぇぉっゃゅょァィゥェォッャュョｧｨｩｪｫｬｭｮｯｰ"
"""Characters that no line begins with."""


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_help_of_every_command_is_complete_at_any_width(
    language: str, columns: int, mame: Mame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAMEGPT_LANG", language)
    monkeypatch.setenv("COLUMNS", str(columns))
    for name in COMMANDS:
        code, out, _ = mame(name, "--help")
        lines = [line.strip(" │") for line in out.splitlines() if not line.startswith(("╭", "╰"))]
        assert code == 0 and max(map(n_cells, out.splitlines())) <= columns, name
        assert "[ARGS" not in out and "default: None" not in out, name
        assert [line for line in lines if line.startswith(tuple(NOT_FIRST))] == [], name
        options = [line for line in out.splitlines() if line.startswith("│ --")]
        assert options and [line for line in options if not re.search(r"\S  +\S", line.strip("│ "))] == [], name
        if language == "ja":
            rest = NAMES.sub("・", re.sub(r"\([^()]*[:：][^()]*\)", "", " ".join(lines)))
            assert re.findall(r"\b[A-Za-z]{2,} [A-Za-z]{2,} [A-Za-z]{2,}\b", rest) == [], name


@pytest.mark.usefixtures("japanese")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("extract --dataset few.txt --keyword 豆 --out few.txt/z.txt", "同じ名前のファイルがあります"),
        ("extract --dataset few.txt --keyword 鈴 --out z.txt", "(キーワードなし 1)"),
        ("tokenizer --data lines.jsonl --out tok", "lines.jsonl の 1 行目: "),
        ("plan --cluster none.toml", "ファイルもフォルダもありません"),
        ("play folder --host 192.0.2.1", "このマシンのアドレスではありません"),
    ],
)
def test_no_english_reason_stands_in_a_japanese_line(
    words: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    little: Little,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").symlink_to(little.exported)
    Path("few.txt").write_text("【豆】\n豆の話。\n", encoding="utf-8")
    Path("lines.jsonl").write_text("3\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        main(words.split())
    err = capsys.readouterr().err
    assert expected in err and "Errno" not in err and "no keyword" not in err


def test_the_locale_decides_in_a_process_of_its_own(tmp_path: Path) -> None:
    env = {"LANG": "ja_JP.UTF-8", "PATH": "", "MAMEGPT_LANG": "", "HOME": str(tmp_path)}
    done = run_mamegpt("train", "--recipe", "seed", "--size", "1m", cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("エラー: --recipe seed のモデルサイズは決まっています。--size 1m を外す")


@pytest.mark.usefixtures("japanese")
def test_what_the_machine_can_do_is_japanese(mame: Mame) -> None:
    code, out, _ = mame("doctor")
    assert code == 0
    rows = [line for line in out.splitlines() if line.startswith("  ")]
    english = r"\b(free|usable|hardware|extras|none|threads|cores|system|processor|memory|measured|nothing)\b"
    assert len(rows) == 13 and [row for row in rows if re.search(english, row)] == []
