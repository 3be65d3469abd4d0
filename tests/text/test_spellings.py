"""A keyword is found where the folded text has it: in ordinary Japanese always, else but for what is named here."""

import re
import unicodedata

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little import ROOT

from mamegpt.text.articles import parse_wiki40b
from mamegpt.text.folding import fold
from mamegpt.text.normalize import normalize
from mamegpt.text.spellings import UNCHANGED, row_expression, spellings

DATA = ROOT.parent / "shared" / "data"
EVERYDAY = st.sampled_from(
    "かがカガキギハバパほぼぽうヴゝゞーんァぁ京都豈﨑一①Ⅳ、。「」・…〜！？　 \nＡＢａｂAaBbZzé０１01％%Ｗwii_▁\0"
    "ｶｷﾊﾌｧﾐｺﾝｰｳ㈱㍻㎞㌔℃ｱ｡｢｣､"
)
VOICED = st.sampled_from(["ｶﾞ", "ﾊﾟ", "か\u3099", "ハ\u309a", "ｳﾞ", "ﾄﾞ"])
"""Marks after what they are for, as half-width kana and decomposed text have them."""
WORDS = st.sampled_from(["ファミコン", "ﾌｧﾐｺﾝ", "京都", "ガンダム", "Ｗｉｉ", "(株)", "キロメートル", "km", "が", "ヴ"])
MARKERS = st.sampled_from(["_START_ARTICLE_", "_START_SECTION_", "_START_PARAGRAPH_", "_NEWLINE_"])
texts = st.lists(st.one_of(EVERYDAY, VOICED, WORDS, MARKERS), max_size=30).map("".join)


def n_hits(folded_keyword: str, text: str) -> int:
    return len(spellings(folded_keyword).findall(normalize(text)))


def rows_with(folded_keyword: str, rows: list[str | None]) -> list[bool | None]:
    return pc.match_substring_regex(pa.array(rows, pa.string()), row_expression(folded_keyword)).to_pylist()


def test_blocks_that_are_left_out_fold_to_themselves() -> None:
    left_out = "\n".join(chr(code) for block in UNCHANGED for code in block if not 0xD800 <= code < 0xE000)
    assert fold(left_out) == left_out
    assert not any(map(unicodedata.combining, left_out))


def test_code_points_are_found_by_what_they_fold_to() -> None:
    changed = [c for c in map(chr, range(0x20000)) if unicodedata.category(c)[0] in "LNPS" and fold(c) != c]
    assert len(changed) > 5000
    for character in changed[::7]:
        if fold(character).strip():
            assert n_hits(fold(character), character), hex(ord(character))


@pytest.mark.parametrize(
    ("keyword", "text", "n"),
    [
        ("ファミコン", "ﾌｧﾐｺﾝとファミコン", 2),
        ("ガンダム", "ｶﾞﾝﾀﾞﾑ、カ\u3099ンタ\u3099ム", 2),
        ("カ", "ｶﾞｶﾊﾞカ", 2),
        ("か", "か\u3099か", 1),
        ("あ", "あ\u3099", 1),
        ("キロメートル", "㌖、㌔メートル、キロ㍍", 3),
        ("キロ", "㌖と㌔", 2),
        ("5キロメートル", "5㌖", 1),
        ("(株)", "㈱と(株)と（株）", 3),
        ("Straße", "STRASSE Straße", 2),
        ("한", "한 \u1112\u1161\u11ab 하\u11ab", 3),
        ("ÉLAN", "élan e\u0301lan", 2),
        ("…", "……", 2),
        ("_", "▁＿_", 3),
        ("C++", "c＋＋", 1),
        ("[a-z]", "[A-Z]a", 1),
    ],
)
def test_what_is_found(keyword: str, text: str, n: int) -> None:
    assert n_hits(fold(keyword), text) == n == fold(normalize(text)).count(fold(keyword))
    assert rows_with(fold(keyword), [text]) == [True]


@pytest.mark.parametrize(
    ("keyword", "text", "n", "in_folded"),
    [
        ("株)会", "㈱会", 0, 1),
        ("3キロ", "3㌖", 0, 1),
        (".", "‥", 1, 2),
        ("sst", "sﬆ", 0, 1),
        ("e", "ｅ\u0301", 1, 0),
        ("ガ\u3099", "ｶﾞﾞ", 1, 1),
    ],
)
def test_what_is_found_otherwise_than_in_folded_text(keyword: str, text: str, n: int, in_folded: int) -> None:
    assert n_hits(fold(keyword), text) == n
    assert fold(normalize(text)).count(fold(keyword)) == in_folded


@settings(max_examples=400, deadline=None)
@given(texts, WORDS, st.data())
def test_hits_are_those_in_the_folded_text(text: str, word: str, data: st.DataObject) -> None:
    """For words, and for any piece of the text but one that begins or ends within what is written as one character."""
    folded = fold(normalize(text))
    assert n_hits(fold(word), text) == folded.count(fold(word))
    start = data.draw(st.integers(0, len(folded)))
    piece = folded[start : start + data.draw(st.integers(1, 6))]
    several = {part for character in text for part in fold(character) if len(fold(character)) > 1}
    if piece.strip() and "\n" not in piece and several.isdisjoint(piece):
        assert n_hits(piece, text) == folded.count(piece)


@settings(max_examples=300, deadline=None)
@given(st.lists(texts | st.text(max_size=9).filter(lambda text: text.isprintable()) | st.none(), max_size=8), st.data())
def test_no_row_with_a_hit_is_missed(rows: list[str | None], data: st.DataObject) -> None:
    """Rows as Wiki-40B has them, and keywords cut from what they become."""
    whole = fold(normalize("\n".join(row or "" for row in rows)))
    start = data.draw(st.integers(0, len(whole)))
    keyword = fold(whole[start : start + data.draw(st.integers(1, 12))])
    if not keyword.strip() or "\n" in keyword:
        return
    for row, found in zip(rows, rows_with(keyword, rows), strict=True):
        title, text = parse_wiki40b(row or "")
        if n_hits(keyword, title) or n_hits(keyword, text):
            assert found


@pytest.mark.parametrize(
    ("keyword", "rows", "found"),
    [
        (
            "ﾌｧﾐｺﾝ",
            ["ファミコン", "ﾌｧﾐｺﾝ", "ふぁみこん", "", None, "スーファミ"],
            [True, True, False, False, None, False],
        ),
        ("京都", ["京都", "京", "都", "京\0都", "_START_ARTICLE_京都"], [True, False, False, True, True]),
        ("が", ["が", "か\u3099", "か", "カ"], [True, True, False, False]),
        ("Wii", ["WII", "ｗｉｉ", "wi", "_NEWLINE_"], [True, True, False, False]),
        ("a_b", ["A▁B", "ab"], [True, False]),
    ],
)
def test_few_rows_without_it_are_chosen(keyword: str, rows: list[str | None], found: list[bool | None]) -> None:
    assert rows_with(fold(keyword), rows) == found


def test_long_keywords_and_long_lists_of_them_are_taken() -> None:
    long = fold("京都Ａé株(株)Straße" * 80)
    assert len(long) > 1000
    assert rows_with(long, ["x" + long.upper(), "京都"]) == [True, False]
    assert n_hits(long, f"「{long.upper()}」") == 1
    many = [fold(f"{a}ガンダムStraße{b}Ⅳ") for a in "あいうえおかきくけこ" for b in "0123456789"]
    expression = "|".join(map(row_expression, many))
    found = pc.match_substring_regex(pa.array([many[50].upper(), "ガンダム"]), expression)
    assert found.to_pylist() == [True, False]


@pytest.mark.skipif(not (DATA / "wiki_ja").is_dir(), reason="the data folder is not there")
@pytest.mark.parametrize("name", ["wiki_ja/validation", "wikinews_ja/train", "aozora_ja/validation"])
def test_hits_on_real_text(name: str) -> None:
    rows = pq.read_table(DATA / f"{name}.parquet", columns=["text"])["text"].to_pylist()
    text = normalize("\n".join(parse_wiki40b(row)[1] for row in rows)[:300_000])
    folded = fold(text)
    words = ["京都", "ファミコン", "が", "か", "ハ", "年", "1", "A", "km", "…", "、", "「", "ー", "の", "％"]
    found = re.findall(r"[^\s]{2,6}", folded)[::500]
    words += [word for word in found if "." not in word]  # "..」" begins within …, an exception that `spellings` names
    for word in words:
        keyword = fold(word)
        assert n_hits(keyword, text) == folded.count(keyword), word
