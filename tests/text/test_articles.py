import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mamegpt.text.articles import UNTITLED, format_article, one_line, parse_articles, parse_wiki40b

LINE = st.text(st.sampled_from("京都の【】 a\u3000。\u2028"), max_size=6)
MARKERS = ["_START_ARTICLE_", "_START_SECTION_", "_START_PARAGRAPH_", "_NEWLINE_"]


@pytest.mark.parametrize("around", ["", "\n", "\n\n"])
def test_wiki40b_markers_with_and_without_line_feeds(around):
    a, s, p, n = (f"{around}{marker}{around}" for marker in MARKERS)
    raw = f"{a}京枡{p}京枡とは、枡。{n}二段落。{s}概要{p}公家の枡。{n}おわり。{around}"
    assert parse_wiki40b(raw) == ("京枡", "京枡とは、枡。\n二段落。\n概要\n公家の枡。\nおわり。")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("\n段落。\n\n次。\n", ("", "\n段落。\n\n次。\n")),
        ("", ("", "")),
        ("_START_PARAGRAPH_\n題なし。", ("", "題なし。")),
        ("\n_START_ARTICLE_\n題\n", ("題", "")),
        ("_START_ARTICLE_題\n続く。\n", ("題", "続く。")),
        ("前書き。\n_START_ARTICLE_\n題\n_START_PARAGRAPH_\n文。", ("題", "前書き。\n文。")),
        ("_START_ARTICLE_題_START_ARTICLE_二題", ("題", "二題")),
    ],
)
def test_wiki40b_odd_rows(raw, expected):
    assert parse_wiki40b(raw) == expected


@given(st.lists(st.one_of(st.sampled_from([*MARKERS, "\n", "_", "START_"]), LINE), max_size=20).map("".join))
def test_wiki40b_leaves_no_marker(raw):
    title, text = parse_wiki40b(raw)
    assert not any(marker in title + "\n" + text for marker in MARKERS)
    if any(marker in raw for marker in MARKERS):
        assert "" not in text.split("\n") or text == ""


def test_format_is_the_documented_one():
    assert format_article("京都", "みやこ。\n二行。") == "【京都】\nみやこ。\n二行。\n\n"
    assert format_article("", "文。") == f"【{UNTITLED}】\n文。\n\n"
    assert format_article("二\n行", "文。") == "【二 行】\n文。\n\n"


ODD = st.lists(
    st.sampled_from(
        [
            "",
            "文。",
            "【注】",
            "【",
            "】",
            "▁",
            "▁【注】",
            "\ufeff",
            "\ufeff【",
            "\x85",
            "\u2028",
            " ",
            "無題",
            "\n",
            "\n\n",
        ]
    ),
    max_size=7,
).map("".join)
TITLES = (LINE | ODD).map(one_line)


@settings(max_examples=300)
@given(st.lists(st.tuples(TITLES, st.lists(LINE, max_size=5).map("\n".join) | ODD), max_size=4))
@example([("", "")])
@example([("A", "【B】"), ("【推しの子】", ""), ("", "文")])
@example([("題", "文。\n\n【注】\n一"), ("無題", "\n文\n"), ("▁無題", "\n\n▁【注】")])
def test_every_article_comes_back(articles):
    articles = [(title, text.replace("\r", "\n")) for title, text in articles]
    written = "".join(format_article(title, text) for title, text in articles)
    lines = written.split("\n")
    assert list(parse_articles(lines)) == articles
    assert list(parse_articles(f"{line}\n" for line in lines)) == articles


def test_what_earlier_versions_wrote_reads_as_before():
    """They put nothing before any line, and left no ▁ in a text."""
    assert list(parse_articles(["【無題】", "", "文。", "", "", "【注】", "一"])) == [("", "文。"), ("注", "一")]
    assert format_article("題", "文。\n【注】\n\n【 終") == "【題】\n文。\n【注】\n\n【 終\n\n"
    assert format_article("題", "一\n\n【注】\n二") == "【題】\n一\n\n▁【注】\n二\n\n"


def test_articles_of_other_hands():
    lines = ["\n", "前書き\r\n", "\r\n", "【】\r\n", "文。\r\n", "【行】\r\n", "\r\n", "【題】\r\n"]
    assert list(parse_articles(lines)) == [("", "前書き"), ("", "文。\n【行】"), ("題", "")]
    assert list(parse_articles([])) == []


def test_articles_are_streamed():
    def lines():
        yield from format_article("一", "文。").split("\n")
        yield "【二】"
        raise AssertionError("read past the heading that ends the first article")

    assert next(parse_articles(lines())) == ("一", "文。")
