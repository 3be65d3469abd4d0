"""Japanese messages: none is missing, none is left over, each fills what the English one fills."""

from __future__ import annotations

import errno
import functools
import importlib.util
import json
import os
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import Mame
from help_texts import help_texts
from little import ROOT, Little, run_mamegpt
from message_templates import printed

import mamegpt
from mamegpt.cli import console, messages
from mamegpt.cli.commands.registry import COMMANDS
from mamegpt.cli.console import duration, n_cells
from mamegpt.cli.help import WORDS
from mamegpt.cli.main import WAY, main
from mamegpt.cli.messages import is_japanese, translated
from mamegpt.cli.render.models import check_table
from mamegpt.cli.render.planning import cluster_table
from mamegpt.exporting.checks import Check, logits_check
from mamegpt.planning.cluster_cost import CLUSTERS, MODELS, ClusterPlan, best

SECTIONS = json.loads((ROOT / "mamegpt/cli/locale/ja.json").read_text(encoding="utf-8"))
CATALOGUE: dict[str, str] = SECTIONS["messages"] | SECTIONS["parts"]
IN_CLI = {
    "{}: {}; check the space and permissions there, or choose another place", "out of memory",
    "out of memory, {} more were needed", "lower {}, or close other programs",
    "close other programs, or use a smaller model",
}  # fmt: skip
BUILT = {
    "hits, {}", "sentences with a hole",
    "wrote {} in {} s, going on after {} files of an earlier run",
}  # fmt: skip
"""Messages that functions make and others print."""
OF_THE_SYSTEM = {
    *map(os.strerror, (
        errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.ENOSPC,
        errno.EDQUOT, errno.EEXIST, errno.EFBIG, errno.EROFS, errno.EIO, errno.EPIPE, errno.ECONNREFUSED,
        errno.ENETUNREACH,
    )),
    "Name or service not known", "Temporary failure in name resolution", "timed out",
}  # fmt: skip
"""Reasons that Linux gives."""


@functools.cache
def scripts() -> dict[str, Callable[..., Any]]:
    """The commands of the root's scripts."""
    found = {}
    for path in sorted(ROOT.glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[path.name] = module.main
    return found


@functools.cache
def helps() -> dict[str, str]:
    """Every sentence of the help, with where it is from."""
    found = {WAY: "cli", str(mamegpt.__doc__): "mamegpt"}
    for name, command in (COMMANDS | scripts()).items():
        found |= dict.fromkeys(help_texts(command), name)
    return found


@pytest.fixture
def japanese(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MAMEGPT_LANG", "ja")
    yield


def test_every_message_and_every_sentence_of_the_help_is_translated() -> None:
    found = printed()
    assert len(found) > 250 and len(helps()) > 130
    assert {text: where for text, where in (found | helps()).items() if text not in CATALOGUE} == {}


def test_no_translation_is_left_over() -> None:
    assert set(SECTIONS["messages"]) - set(printed()) - set(helps()) - IN_CLI - BUILT == set()
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mamegpt").rglob("*.py"))
    others = {part for part in SECTIONS["parts"] if not all(piece in source for piece in part.split("{}"))}
    assert others == OF_THE_SYSTEM
    assert not set(SECTIONS["messages"]) & set(SECTIONS["parts"])


def test_a_translation_fills_the_same_places_and_keeps_names() -> None:
    commands = "|".join(COMMANDS)
    for english, japanese in CATALOGUE.items():
        if "{}" in english:
            places = {name for _, name, _, _ in string.Formatter().parse(japanese) if name is not None}
            assert places == set(map(str, range(english.count("{}")))), english
        for name in re.findall(rf"--[a-z][\w-]+|\b(?:pip install|mamegpt (?:{commands}))\b", english):
            assert name in japanese, english


@pytest.mark.usefixtures("japanese")
def test_a_filled_message_finds_its_own_template() -> None:
    for english, japanese in CATALOGUE.items():
        values = [f"値{i}" for i in range(english.count("{}"))]
        filled = japanese.format(*map(messages._Filled, values)) if values else japanese
        text = english
        for value in values:
            text = text.replace("{}", value, 1)
        assert translated(text, part=english in SECTIONS["parts"]) == filled
        if not values:  # it may be a label of a table
            assert translated(text, part=True) == filled


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False), ({"LANG": "ja_JP.UTF-8"}, True), ({"LANG": "ja_JP.UTF-8", "LC_ALL": "C"}, False),
        ({"LC_MESSAGES": "ja", "LANG": "en_US"}, True), ({"LANG": "ja_JP", "MAMEGPT_LANG": "en"}, False),
        ({"MAMEGPT_LANG": "ja"}, True), ({"LC_ALL": "", "LANG": "ja"}, True),
    ],
)  # fmt: skip
def test_which_language(environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAMEGPT_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_japanese() == expected


@pytest.mark.usefixtures("japanese")
def test_joined_problems_and_places_are_translated_and_what_users_wrote_is_not() -> None:
    assert translated("--lr must be above 0, not -1; --data is needed; --seed must be below 2**63, not 9") == (
        "--lr は 0 より大きい数で指定してください(指定値: -1)。--data が必要です。"
        "--seed は 2**63 未満で指定してください(指定値: 9)"
    )
    assert translated("m has no x; choose with --spm-file from: a") == (
        "m に x はありません。--spm-file で次から選んでください: a"
    )
    assert translated("no weights file text") == "重みのファイル text がありません"  # a file called text
    assert translated('a.jsonl, line 3: not a JSON object; make it one like {"text": "…"}') == (
        'a.jsonl の 3 行目: JSON のオブジェクトではありません。{"text": "…"} の形にしてください'
    )
    assert translated("昔々、あるところに") == "昔々、あるところに"
    assert translated("go on with the same 64 tokens") == "go on with the same 64 tokens"  # "{} tokens" is a part
    assert translated("dropped, no keyword") == "除外した文書: キーワードなし"
    assert console.table([("read", "1"), ("text", "2")]) == "  読んだ文書  1\n  テキスト    2"


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
    logits = logits_check(0.5, 0.1, "2 x 256 positions, from a.bin")
    assert check_table([logits]) == (
        "  ロジット  不合格  最大差 5.0e-01(許容 1.0e-01)、2 系列 × 256 トークンを比較(a.bin)"
    )
    cut = Check("tokenizer", True, "9 of 10 texts give the ids that they have here (90.0%; X and 8 odd ones), not '豆'")
    assert check_table([cut]) == (
        "  トークナイザ  合格  テキスト 10 件中 9 件でトークン ID が一致"
        "(90.0%。X と、特殊文字を含む文字列 8 件)。不一致: '豆'"
    )


@pytest.mark.usefixtures("japanese")
def test_help_and_errors_are_japanese(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for words, expected in (
        (["--help"], [translated(WAY)[:20], "モデルを学習します。"]),
        (
            ["train", "--help"],
            [
                "モデルを学習します。",
                "run フォルダ(設定、",
                "5m",
                "--lr FLOAT",
                "╭─ 文章の設定 ─",
                "╭─ 実行の設定 ─",
                "--minutes FLOAT",
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
                "(既定: なし)",
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
        assert [one for one in WORDS if one in text] == []
    with pytest.raises(SystemExit) as end:
        main(["train", "--size", "1m", "--lr", "-1", "--tokenizer", "t", "--data", "d"])
    assert end.value.code == 2
    said = "エラー: --out が必要です。--lr は 0 より大きい数で指定してください(指定値: -1.0)\n"
    assert capsys.readouterr().err == said


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
    words: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    little: Little,
) -> None:  # fmt: skip
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
    assert len(rows) == 12 and [row for row in rows if re.search(english, row)] == []
