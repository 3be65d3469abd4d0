"""The fast folding and the prefilter are held to the plain ones, code point by code point and by random texts."""

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mamegpt.data.readers.prefilter import needles, rows_with_any
from mamegpt.text.articles import parse_wiki40b
from mamegpt.text.folding import MIN_TABLE_CHARACTERS, REGULAR, FoldedText, fold, fold_fast, matches, parts, unusual
from mamegpt.text.normalize import normalize

EDGE_CASES = (
    "かがカガゕ゙゚゛゜ﾞﾟｶｷﾊﾌｧﾐｺﾝファミコン㋫㌔㌖ヿ京都都豈﨑神神⼀一①Ⅳ㈱㍻…‥℃½ﬁﬃßſKÅåÅééİıςΣσάΐᾳͅΰ가각각한"
    "Ａａaｚ０0～~―‐　 \t\n\r\0▁_\u200b\ufe0f\U0001d400\U0001f221\U00020bb7\U0002f81a👍\u0301\u0327"
)
MARKERS = ["_START_ARTICLE_", "_START_SECTION_", "_START_PARAGRAPH_", "_NEWLINE_"]
texts = st.lists(
    st.one_of(
        st.sampled_from(EDGE_CASES), st.sampled_from([*MARKERS, "ファミコン", "京都", "Wii", "ｗｉｉ"]), st.characters()
    ),
    max_size=30,
).map("".join)
valid = texts.map(lambda text: text.encode("utf-8", "replace").decode("utf-8"))


def code_points() -> list[str]:
    return [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]


@pytest.mark.parametrize(
    ("keyword", "text", "found"),
    [
        ("ﾌｧﾐｺﾝ", "家庭用のファミコンは", True),
        ("ファミコン", "ﾌｧﾐｺﾝは1983年", True),
        ("ガンダム", "ｶﾞﾝﾀﾞﾑ", True),
        ("wii", "任天堂のＷｉｉ", True),
        ("STRASSE", "Straße", True),
        ("がく", "か\u3099く", True),
        ("ファミコン", "ファミリーコンピュータ", False),
        ("はは", "ハハ", False),
    ],
)
def test_keyword_matches_whatever_the_width_and_case(keyword, text, found):
    assert matches(text, fold(keyword)) is found


@given(texts)
def test_fold_is_idempotent_and_blind_to_width(text):
    assert fold(fold(text)) == fold(text)
    assert fold(unicodedata.normalize("NFKC", text)) == fold(text)


def test_every_code_point_folds_alike_and_the_regular_ones_are_plain() -> None:
    everything = code_points()
    folded = fold("\n".join(everything[14:])).split("\n")  # the line feed joins nothing and is not in the rest
    for character, plain in zip(everything[14:], folded, strict=True):
        if any(ord(character) in block for block in REGULAR):
            assert plain == character and not unicodedata.combining(character)
    filled = "京" * MIN_TABLE_CHARACTERS
    for character in unusual():
        assert fold_fast(character + filled) == fold(character + filled)
        assert FoldedText(f"京{character}都").text == normalize(f"京{character}都")


def test_what_is_white_space_for_the_key() -> None:
    key = FoldedText("京都").key()
    spaces = {c for c in code_points() if (c.isspace() or c in unusual()) and FoldedText(f"京{c}都").key() == key}
    assert spaces == {c for c in code_points() if normalize(c).isspace()} | {"\0"}
    assert all(FoldedText(f"京{chr(code)}都").key() != key for code in (*range(1, 9), *range(0x0E, 0x1C), 0x7F))


@settings(max_examples=300, deadline=None)
@given(texts, texts, st.data())
def test_what_is_searchable_is_normalised_and_counted_and_compared_as_if_it_were_folded(
    text: str, other: str, data: st.DataObject
) -> None:
    document, folded = FoldedText(text), fold(normalize(text))
    assert document.text == normalize(text)
    start = data.draw(st.integers(0, len(folded)))
    keyword = folded[start : start + 3] or "京"
    assert document.count(keyword) == folded.count(keyword)
    same = FoldedText(f" {text}\u3000".replace("A", "Ａ"))
    assert document.key() == same.key()
    bare, other_bare = ("".join(each.split()) for each in (folded, fold(normalize(other))))
    assert (document.key() == FoldedText(other).key()) == (bare == other_bare)


def test_a_keyword_is_not_found_between_two_code_points() -> None:
    assert FoldedText("ƻ乎丁").count("丁") == 1  # BB 01 4E 4E 01 4E in UTF-16


def test_no_regular_code_point_joins_the_one_before_it() -> None:
    """A second of a canonical pair would: all there are stand in the decompositions."""
    taken_apart = {c: unicodedata.normalize("NFD", c) for c in code_points() if not 0xAC00 <= ord(c) < 0xD7A4}
    seconds = {nfd[-1] for c, nfd in taken_apart.items() if nfd != c == unicodedata.normalize("NFC", nfd)}
    assert seconds <= set(unusual())
    assert set(map(chr, range(0x1161, 0x1176))) | set(map(chr, range(0x11A8, 0x11C3))) <= set(unusual())


@settings(max_examples=300, deadline=None)
@given(texts, st.sampled_from(["", "京" * MIN_TABLE_CHARACTERS]))
def test_any_text_folds_alike(text: str, filling: str) -> None:
    for whole in (text + filling, filling + text, text.join([filling] * 3)):
        assert fold_fast(whole) == fold(whole)


@settings(max_examples=300, deadline=None)
@given(texts)
def test_the_parts_of_a_folded_text_are_those_of_its_code_points(text: str) -> None:
    folded = unicodedata.normalize("NFKD", fold(normalize(text)))
    assert set(folded) <= set().union(*map(parts, text))


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(valid, st.none()), max_size=8), valid, st.data())
def test_no_row_with_the_keyword_is_missed(rows: list[str | None], keyword: str, data: st.DataObject) -> None:
    """Rows as Wiki-40B has them, and keywords cut from what they become."""
    if rows and data.draw(st.booleans()):
        folded = fold(normalize("\n".join(parse_wiki40b(rows[data.draw(st.integers(0, len(rows) - 1))] or ""))))
        start = data.draw(st.integers(0, len(folded)))
        keyword = folded[start : start + data.draw(st.integers(1, 6))]
    keyword = fold(keyword)
    wanted = needles(keyword)
    if "\n" in keyword or wanted is None:
        return
    column = pa.array([None, *rows, ""], data.draw(st.sampled_from([pa.string(), pa.large_string()])))[1:]
    mask = rows_with_any(column, wanted)
    assert len(mask) == len(column)
    for row, found in zip(column.to_pylist(), mask, strict=True):
        title, text = parse_wiki40b(row or "")
        if keyword in fold(normalize(title)) or keyword in fold(normalize(text)):
            assert found


@pytest.mark.parametrize(
    ("keyword", "rows", "found"),
    [
        (
            "ﾌｧﾐｺﾝ",
            ["ファミコン", "ﾌｧﾐｺﾝ", "ふぁみこん", "", None, "スーファミ"],
            [True, True, False, False, False, False],
        ),
        ("京都", ["京都", "京", "都", "京\0都", "_START_ARTICLE_京都"], [True, False, False, True, True]),
        ("が", ["が", "か\u3099", "か", "カ"], [True, True, False, False]),
        ("Wii", ["WII", "ｗｉｉ", "wi", "_NEWLINE_"], [True, True, False, False]),
        ("Linux", ["_NEWLINE_", "linux", "LINUX"], [False, True, True]),
        ("㎞", ["㎞", "KM", "k", "Km"], [True, True, False, True]),
    ],
)
def test_few_rows_without_it_are_found(keyword: str, rows: list[str | None], found: list[bool]) -> None:
    wanted = needles(fold(keyword))
    assert wanted is not None
    assert rows_with_any(pa.array(rows, pa.string()), wanted).tolist() == found


@pytest.mark.parametrize("keyword", [" ", "_", "\u0301", " _ "])
def test_a_keyword_without_an_anchor_has_no_needles(keyword: str) -> None:
    assert needles(fold(keyword)) is None
