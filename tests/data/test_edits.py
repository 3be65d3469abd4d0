"""What is taken out of a text, and above all what is not."""

import html
import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mamegpt.data.clean.edits import EDITS, drop_boilerplate, drop_markup, edit, mask_personal_data, tidy_space
from mamegpt.text.normalize import normalize

# fmt: off
PIECES = st.sampled_from(
    [
        "<br>", "<", ">", "[[", "]]", "|", "{{", "}}", "'''", "==", "[1]", "（", "）", "、", "(", ")", "「", "」", "内",
        "か", "\u3099", "\u200b", "\u00ad", "京都", "語：", "a@b.jp", "〒", "604-8571", "03-1234-5678", "続きを読む",
        "脚注", "［＃", "］", "《", "》", "｜", "\n", "\n\n\n", " ", "\u3000", "\r", "。", "09012345678", "-",
    ]
)
# fmt: on
NO_REFERENCE = st.lists(st.one_of(PIECES, st.characters(exclude_characters="&")), max_size=25).map("".join)
REFERENCES = st.sampled_from(["&amp;", "&lt;", "br", "&gt;", "&#60;", "&", ";", "amp", "#13", "&nbsp;", "&#x110000;"])
ANY_TEXT = st.lists(st.one_of(PIECES, REFERENCES, st.characters()), max_size=25).map("".join)


@given(ANY_TEXT, st.sampled_from(["nfc", "nfkc", "none"]))
@example("&amp;amp;lt;br>", "nfc")
@example("か<br>\u3099", "nfc")
@example("脚注<br>\n参考文献", "nfc")
def test_to_edit_twice_is_to_edit_once(text, form):
    once, _ = edit(text, EDITS, form)
    twice, counts = edit(once, EDITS, form)
    assert twice == once
    assert not counts.total()


@given(NO_REFERENCE)
def test_edits_only_take_away(text):
    names = [name for name in EDITS if name != "personal-data"]
    kept, counts = edit(text, names)
    rest = iter(normalize(text))
    if "\u3099" not in text and "\u309a" not in text:  # what stood apart may join, か and U+3099 to が
        # White space is put where a mark kept words apart.
        assert all(character in rest for character in kept if not character.isspace()), "a subsequence"
    assert (kept != normalize(text)) == bool(sum(counts[name] for name in names))


@given(ANY_TEXT)
def test_a_mask_changes_only_digits_and_addresses(text):
    masked, n = mask_personal_data(text)
    assert (masked != text) == (n > 0)
    if "@" not in text and "＠" not in text:
        assert len(masked) == len(text)
        assert all(a == b or (a.isdecimal() and b in "0０") for a, b in zip(text, masked, strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("雨。<BR>雪。<br />霧。</small>", "雨。\n雪。\n霧。"),
        ("雨。<br />\n雪。\n\n<p>霧。</p>\n", "雨。\n雪。\n\n霧。"),
        ("<ul><li>豆</li><li>米</li></ul>", "豆\n米"),
        ("<table><tr><td>東京</td><td>大阪</td></tr>\n<tr><td>雨</td></tr></table>", "東京 大阪\n雨"),
        ("一頁\x0c二頁\x0b三\x85四\x1f五", "一頁\n二頁\n三\n四\n五"),
        ("<ruby>豆<rp>(</rp><rt>まめ</rt><rp>)</rp></ruby>と<ruby>米<rt>こめ</rt></ruby>", "豆（まめ）と米（こめ）"),
        ("red{{x}}bean<ref>a</ref>cake、豆{{x}}腐", "red bean cake、豆腐"),
        ('四行<ref>第三は異なる</ref>が設立<ref name="a"/>された', "四行が設立された"),
        ("『<NHK>受信料』<AA+>を", "『<NHK>受信料』<AA+>を"),
        ("a < b かつ b > c", "a < b かつ b > c"),
        ("S&amp;W の &lt;子音&gt; &#9832; &#x2668;", "S&W の <子音> ♨ ♨"),
        ("R&D; &nosuch; &notit;", "R&D; &nosuch; &notit;"),
        (
            "改行は&lt;br&gt;、段落は&lt;p&gt;、A&amp;B&copy;&nbsp;\n&quot;豆&quot;&#12;米",
            '改行は&lt;br&gt;、段落は&lt;p&gt;、A&amp;B©\xa0\n"豆"\n米',
        ),
        ("&amp;lt;br&amp;gt;行", "&amp;lt;br&amp;gt;行"),
        ("&lt;&#8203;br&gt;&eacute;", "&lt;&#8203;br&gt;é"),
        ("[[京都市|京都]]の[[寺]]。[[ファイル:a.jpg|thumb|寺]]", "京都の寺。"),
        ("'''京都'''（{{lang|en|Kyoto}}きょうと）", "京都（きょうと）"),
        ("== 歴史 ==\n昔。", "歴史\n昔。"),
        ("買い付けた[11][注釈 2]。a[1] と list[0]、要素[0]", "買い付けた。a[1] と list[0]、要素[0]"),
        ("殯\u200eを\u200b行\ufeffう\x07", "殯を行う"),
        ("👩\u200d🔬", "👩\u200d🔬"),
    ],
)
def test_markup(text, expected):
    assert edit(text, ["markup"])[0] == expected


AOZORA = """吾輩は犬である
まめ太郎

-------------------------------------------------------
【テキスト中に現れる記号について】

《》：ルビ
（例）吾輩《わがはい》
-------------------------------------------------------

［＃２字下げ］一［＃「一」は中見出し］
吾輩《わがはい》は犬［＃「犬」に傍点］である。昨日｜豆まき《ビーンズ》を※［＃「てへん＋劣」、第3水準1-84-77］った。
［＃改ページ］
※［＃「にんべん＋豆」、U+5005、12-3］と※［＃「豆＋豆」、34-5］。


底本：「まめ全集」まめ文庫
入力：まめ
青空文庫作成ファイル：
"""


def test_aozora():
    text, n = edit(AOZORA, ["aozora", "white-space"])
    assert text == "吾輩は犬である\nまめ太郎\n\n一\n吾輩は犬である。昨日豆まきを挘った。\n倅と※。"
    assert n["aozora"] == 12


def test_a_work_after_the_colophon_of_another_stays():
    end = "このファイルは、インターネットの図書館、青空文庫（http://www.aozora.gr.jp/）で作られました。入力は、皆さんです。"
    two = f"{AOZORA}{end}\n\n次の話\nまめ次郎\n\n豆《まめ》をまく。\n"
    assert edit(two, ["aozora", "white-space"])[0].endswith("。\n倅と※。\n\n次の話\nまめ次郎\n\n豆をまく。")
    both = two + AOZORA.partition("\n\n\n")[2] + end
    assert edit(both, ["aozora", "white-space"])[0] == edit(two, ["aozora", "white-space"])[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("吾輩《わがはい》は犬［＃「犬」に傍点］である。", "吾輩は犬である。"),
        ("豆《まめ》と鈴《すず》と木《き》。", "豆と鈴と木。"),
        ("油彩《うみ》、名画《モナ・リザ》、『｜』と《朝》", "油彩《うみ》、名画《モナ・リザ》、『｜』と《朝》"),
        ("| a | b |、※注、［注］", "| a | b |、※注、［注］"),
    ],
)
def test_aozora_marks_go_from_texts_with_that_notation_only(text, expected):
    assert edit(text, ["aozora"])[0] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ピンス（）は氷", "ピンスは氷"),
        ("足利義満（、1358年 - ）は", "足利義満（1358年 - ）は"),
        ("かき氷（朝鮮語：）", "かき氷"),
        ("英語（マレー語: ）。", "英語。"),
        ("Yahoo!ブックス[『』]。", "Yahoo!ブックス。"),
        ("後ろの（）内に西暦、右の()の数字、〔〕内", "後ろの（）内に西暦、右の()の数字、〔〕内"),
        ("「」で囲む。この「　」の内のもの", "「」で囲む。この「　」の内のもの"),
        ("引用符 () で、関数 main() を", "引用符 () で、関数 main() を"),
        ("（さんよ、）それでは（；´Д｀）", "（さんよ、）それでは（；´Д｀）"),
    ],
)
def test_empty_brackets(text, expected):
    assert edit(text, ["empty-brackets"])[0] == expected


def test_boilerplate_goes_by_the_line_and_headings_with_nothing_below():
    text = (
        "京都は古い。\n続きを読む »\nこの項目は、地理に関連した書きかけの項目です。加筆して下さい。\n"
        "続きを読むうちに眠った。\n© 2024 Example Inc.\n"
        "ウィキメディア・コモンズには、京都に関するカテゴリがあります。\n"
        "脚注\n一。\n関連項目\n\n外部リンク\n"
    )
    assert drop_boilerplate(text) == ("京都は古い。\n続きを読むうちに眠った。\n脚注\n一。", 6)
    assert drop_boilerplate("一。\n\n") == ("一。\n\n", 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("電話075-681-3111（代表）", "電話000-000-0000（代表）"),
        ("（075）462-5488。", "（000）000-0000。"),
        ("TEL 03(3233)2101、０３−３２３３−２１０１", "TEL 00(0000)0000、００−００００−００００"),
        ("携帯090-1234-5678か09012345678か+81-90-1234-5678", "携帯000-0000-0000か00000000000か+00-00-0000-0000"),
        ("口座番号00110-2-5606、ISBN 0-19-852663-6", "口座番号00110-2-5606、ISBN 0-19-852663-6"),
        ("03-1234-567、090-1234-567、2026-11-23、012-345-678", "03-1234-567、090-1234-567、2026-11-23、012-345-678"),
        ("〒604-8571 京都市、郵便番号 6048571", "〒000-0000 京都市、郵便番号 0000000"),
        ("604-8571年の数、〒の印", "604-8571年の数、〒の印"),
        ("mame.taro+gpt@mail.example.co.jp へ", "xxx@example.com へ"),
        ("@mamegpt と書く。a@b", "@mamegpt と書く。a@b"),
    ],
)
def test_personal_data(text, expected):
    masked, n = mask_personal_data(text)
    assert masked == expected
    assert (n > 0) == (masked != text)
    assert mask_personal_data(masked) == (masked, 0)


def test_white_space():
    assert tidy_space("\n 字下げ。 \u3000\n\n\n\n次。\t\n") == (" 字下げ。\n\n次。", 4)
    assert tidy_space("一。\n\n二。") == ("一。\n\n二。", 0)


def test_every_edit_can_be_left_out_and_is_counted():
    text = "か\u3099<br>（あ（））［＃改行］\n続きを読む\n〒604-8571 "
    whole, counts = edit(text, EDITS)
    assert whole == "が\n（あ）\n〒000-0000"
    assert counts == {
        "normalisation": 1,
        "aozora": 1,
        "markup": 1,
        "empty-brackets": 1,
        "boilerplate": 1,
        "personal-data": 1,
        "white-space": 1,
    }
    for name in EDITS:
        assert edit(text, [other for other in EDITS if other != name])[0] != whole
    assert edit(text, [], "none")[0] == text


# fmt: off
SEPARATORS = [
    "<br>", "<BR />", "</p><p>", "<p>", "<li>", "</li>\n<li>", "</td><td>", "</td></tr><tr><td>", "<hr>", "</h2>",
    "\x85", "\x0c", "\x0b", "\x1c", "\n", "\r", " ", "\u3000", "\u2028", "&nbsp;", "&#12;", "&#x85;", "&lt;br&gt;",
    "、", "（）、", "<div>続きを読む</div>", "\n続きを読む\n", "、a@b.jp、",
]
# fmt: on


@given(st.lists(st.tuples(st.sampled_from(["豆{}か", "word{}x"]), st.sampled_from(SEPARATORS)), min_size=1, max_size=8))
@pytest.mark.parametrize("names", [*([name] for name in EDITS), list(EDITS)], ids=",".join)
def test_words_that_were_apart_stay_apart(names, parts):
    words = [form.format(number) for number, (form, _) in enumerate(parts)]
    kept, _ = edit("".join(word + after for word, (_, after) in zip(words, parts, strict=True)), names)
    assert all(word in kept for word in words)
    assert not any(a + b in kept for a, b in itertools.pairwise(words))


@given(st.data())
def test_what_was_escaped_is_never_parsed(data):
    marks = [
        "<br>",
        "<b>",
        "</td>",
        "[[豆|米]]",
        "{{x}}",
        "'''",
        "== 節 ==",
        "豆[1]",
        "<!-- -->",
        "<ref>a</ref>",
        "&lt;",
        "&#60;",
        "&",
        "豆",
        "a",
        "\n",
        "©",
    ]
    text = "".join(data.draw(st.lists(st.sampled_from(marks), max_size=12)))
    forms = data.draw(st.lists(st.sampled_from(["&#{0};", "&#x{0:x};", "&{1};"]), min_size=1, max_size=5))
    names, ways = {"<": "lt", ">": "gt", "&": "amp", "[": "lsqb", "'": "apos"}, itertools.cycle(forms)
    escaped = "".join(c if c in "\nab豆" else next(ways).format(ord(c), names.get(c, f"#{ord(c)}")) for c in text)
    once, _ = edit(escaped, ["markup"])
    twice, _ = edit(once, ["markup"])
    assert html.unescape(html.unescape(once)) == html.unescape(text)
    assert "&" in text or html.unescape(once) == text
    assert twice == once


def test_long_lines_take_no_longer_than_they_must():
    for text in (
        "a." * 50_000 + "@",
        " " * 100_000 + "。",
        "（" * 50_000,
        "[[" * 50_000,
        "<" * 50_000,
        "0" * 100_000,
        "== " + " " * 50_000,
        "<br> " * 20_000 + " " * 50_000,
        "&lt;br&gt;" * 10_000,
    ):
        edit(text, EDITS)
    assert drop_markup("<ref>" * 5_000)[0] == ""
    assert edit("あ" + "「" * 500 + "」" * 500, ["empty-brackets"])[0] == "あ"
