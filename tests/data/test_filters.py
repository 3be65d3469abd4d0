"""The rules for whole documents, on texts that are clearly this side or that of each."""

import pytest

from mamegpt.data.clean.filters import FILTERS
from mamegpt.data.stories import stories
from mamegpt.text.characters import CLASSES, count_classes, ngram_hashes

PROSE = "".join(text for _, text in stories(seed=5, n=3))
BAD = {
    "short": "短い文です。 " + " " * 100,
    "no-sentence-end": "東京\n大阪\n名古屋\n" * 10,
    "repetitive": "今すぐクリックして登録してください。" * 20,
    "not-japanese": "本文件说明如何安装和使用该软件，并列出所有选项。" * 4,
}


@pytest.mark.parametrize("name", FILTERS)
def test_each_rule_drops_what_it_is_for_and_no_prose(name):
    assert FILTERS[name](BAD[name])
    assert not FILTERS[name](PROSE)


def test_the_borders():
    assert not FILTERS["short"]("あ" * 50) and FILTERS["short"]("あ" * 49)
    assert not FILTERS["no-sentence-end"]("詩の\n終わり…」\n次") and FILTERS["no-sentence-end"]("3.14 の話")
    assert FILTERS["repetitive"]("一行目の文がここに。\n" * 2) and not FILTERS["repetitive"]("一行。\n二行。\n三行。\n")
    assert FILTERS["not-japanese"]("") and FILTERS["not-japanese"]("1, 2, 3.")
    assert FILTERS["not-japanese"]("The word 豆 (まめ) means bean, and anything small.")
    assert not FILTERS["not-japanese"]("Debian は Debian Project が作って配っている OS です。")


def test_classes_are_a_partition():
    text = "ひらがなカタカナー漢字々ﾊﾝｶｸＡbé한Я12３、。 \u3000\n\U0001f600\u0301\ud800𠮷\U000e0100\U0010ffff"
    counts = count_classes(text)
    assert tuple(counts) == CLASSES and sum(counts.values()) == len(text)
    assert counts == {
        "hiragana": 4,
        "katakana": 9,
        "kanji": 4,
        "Latin": 3,
        "other letters": 2,
        "digits": 3,
        "punctuation": 3,
        "white space": 3,
        "other": 4,
    }


def test_hashes_are_equal_where_the_runs_are():
    text = "庭には二羽庭には二羽鶏がいる"
    hashes = ngram_hashes(text, 3).tolist()
    runs = [text[i : i + 3] for i in range(len(text) - 2)]
    assert len(hashes) == len(runs)
    assert all(
        (a == b) == (x == y) for a, x in zip(hashes, runs, strict=True) for b, y in zip(hashes, runs, strict=True)
    )
    assert len(ngram_hashes("短", 3)) == 0
