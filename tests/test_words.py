"""One word for one thing, in what people read: pages, messages and help use the field's terms (docs/glossary.md)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from babel.messages.pofile import read_po
from catalogue import PO
from little import ROOT

# fmt: off
ENGLISH = {
    r"\breckon": "estimate",
    r"\bgo(?:es|ing)? on (?:with|from|past)\b": "continue, resume",
    r"\bpass(?:es|ed|ing)? over\b": "skip",
    r"\banew\b": "again",
    r"\bspelt\b|\blearnt\b": "represented, learned",
    r"\blies in\b": "is in",
    r"(?<![\"`])\brecite[sd]?\b|\brecital\b": "memorization",
    r"\bbits a (?:character|byte)\b|\btokens? a (?:second|parameter)\b": "per",
    r"\bdata sets?\b": "dataset",
    r"\bclean process\b": "separate process",
    r"\bis no (?:number|folder|file|name|id)\b|\bno number\b": "is not a",
    r"\bnormalise|\bmemorise|\bcolour|\blicence": "US spelling",
    r"\bof its own accord\b|\bplugs? (?:is|was) pulled\b|\bpulled plug\b": "plain words",
}
# fmt: on
# fmt: off
JAPANESE = {
    "書き出し|書き出す": "エクスポート、プロンプト、出力",
    "検証の損失|学習の損失": "検証損失、学習損失",
    "丸写し": "暗記率",
    "(?<!複)数の形式|計算の形式": "計算精度",
    "装置": "デバイス",
    "キーと値は|埋め込みと共有": "KV ヘッド数、重み共有",
    "（|）": "( と )",
    "文脈の長さ": "コンテキスト長",
    "語の数": "語彙サイズ",
    "最適化の方法": "オプティマイザ",
    "学習率の予定": "学習率スケジュール",
    "くらべ|ちがう|ちがい|とばす|くり返|もうあります|置きかえ": "比べる、違う、スキップ、上書き",
    "フォルダー|メモリー|ブラウザー|ライブラリー|プロセッサー|コンパイラー|クエリー": "フォルダ、メモリ、ブラウザ、…",
    "知りません|でした\\)": "対応していません、(指定値: …)",
    "貪欲法|つづり|見本|何も失わない": "貪欲デコーディング、名前、サンプル、可逆な",
}
# fmt: on
NOT_HELD = {"docs/log.md", "docs/glossary.md"}
"""The log is history, and the glossary explains words."""


def texts() -> Iterator[tuple[str, str]]:
    """What people read, with where it is."""
    pages = [*ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "mamegpt").rglob("*.html")]
    cards = [*(ROOT / "mamegpt/exporting").glob("*.py"), *(ROOT / "mamegpt/models").glob("*/hf.py")]
    for path in [*pages, *cards, *(ROOT / "mamegpt").rglob("*.jinja")]:
        place = path.relative_to(ROOT).as_posix()
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if place not in NOT_HELD else ()
        yield from (
            (f"{place}:{i}", line) for i, line in lines if path not in cards or re.search("[ぁ-んァ-ヶ一-龠]", line)
        )
    with PO.open("rb") as file:
        for message in read_po(file, locale="ja"):
            yield from ((f"{PO.name}: {message.id}", str(text)) for text in (message.id, message.string))


@pytest.mark.parametrize("banned", [ENGLISH, JAPANESE], ids=["English", "Japanese"])
def test_one_word_for_one_thing(banned: dict[str, str]) -> None:
    found = [
        f"{place}: {word[0]!r}: {better}"
        for place, line in texts()
        for pattern, better in banned.items()
        if (word := re.search(pattern, line, re.IGNORECASE))
    ]
    assert found == []


FRAGMENT = re.compile(r"(Of|As|By|What|Where|Which|Whether|How|In|With|From|To)\b")


def test_the_docstring_of_a_function_begins_with_a_verb() -> None:
    """Ruff's D401 knows verbs in the wrong mood only, not sentences without one. A property may be a noun phrase."""
    found = []
    for path in (ROOT / "mamegpt").rglob("*.py"):
        if path.name == "modeling_custom_gpt.py":
            continue  # exported folders hold it byte for byte
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                is_property = any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
                if not is_property and FRAGMENT.match(ast.get_docstring(node) or ""):
                    found.append(f"{path.name}:{node.lineno} {node.name}")
    assert found == []
