"""Copies, near-copies, lines and test items, held against the plain definitions."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamegpt.data.clean.dedup import (
    BLOCK,
    N_BANDS,
    OVERLAP,
    SHINGLE,
    Contamination,
    Duplicates,
    NearDuplicates,
    RepeatedLines,
    TextSignature,
)
from mamegpt.data.stories import stories

STORIES = [text for _, text in stories(seed=7, n=60)]
LINE = "三十字をこえる一行は、ほかの文書にもう一度出てきたら、くり返しとして取り除かれます。"


def test_duplicates_whatever_the_width_and_space():
    kept = Duplicates()
    kept.add("a#1", TextSignature("ファミコンは 楽しい。"))
    kept.add("a#2", TextSignature("ファミコンは楽しい。"))
    assert kept.find(TextSignature("ﾌｧﾐｺﾝは\n楽しい。")) == "a#1"
    assert kept.find(TextSignature("ファミコンは楽しいよ。")) == ""


def jaccard(a: str, b: str) -> float:
    x, y = (
        {text[i : i + SHINGLE] for i in range(len(text) - SHINGLE + 1)}
        for text in (TextSignature(a).bare, TextSignature(b).bare)
    )
    return len(x & y) / len(x | y)


def changed(text: str, n: int, seed: int) -> str:
    characters = list(text)
    for at in random.Random(seed).sample(range(len(text)), n):
        characters[at] = "々"
    return "".join(characters)


def test_near_duplicates_are_those_of_the_plain_definition():
    text = "\n".join(STORIES[:3])
    kept = NearDuplicates()
    kept.add("x", TextSignature(text))
    for seed in range(20):
        near, far = changed(text, len(text) // 100, seed), changed(text, len(text) // 10, seed)
        assert jaccard(text, near) > 0.88 and kept.find(TextSignature(near)) == "x"
        assert jaccard(text, far) < 0.6 and kept.find(TextSignature(far)) == ""
    for i, story in enumerate(STORIES[3:]):
        assert kept.find(TextSignature(story)) == ""
        kept.add(str(i), TextSignature(story))
    assert kept.find(TextSignature(STORIES[10])) == "7"
    assert kept.find(TextSignature("短い")) == kept.find(TextSignature("")) == ""


def test_repeated_lines():
    lines = RepeatedLines()
    first = f"見出し\n{LINE}\n見出し\n{LINE} \n終わり。"
    assert lines.drop(TextSignature(first)) == ("見出し\n" + LINE + "\n見出し\n終わり。", [LINE + " "])
    assert lines.drop(TextSignature(LINE)) == (LINE, [])  # nothing is kept yet
    lines.add(TextSignature(first))
    assert lines.drop(TextSignature(f"見出し\n{LINE.replace('、', '､')}\n新しい。")) == (
        "見出し\n新しい。",
        [LINE.replace("、", "､")],
    )


def shares(text: str, item: str) -> bool:
    """The rule as it is written."""
    a, b = TextSignature(text).alphanumeric, TextSignature(item).alphanumeric
    length = min(OVERLAP, len(b))
    return len(b) >= BLOCK and any(b[i : i + length] in a for i in range(len(b) - length + 1))


@given(
    st.text("あいう。 ", min_size=20, max_size=120),
    st.integers(0, 100),
    st.integers(0, 120),
    st.text("うえ、", max_size=30),
)
def test_contamination_is_the_rule_as_it_is_written(item, start, length, around):
    text = around + item[start : start + length] + around
    found = Contamination([item]).find(TextSignature(text))
    assert bool(found) == shares(text, item)
    assert found in TextSignature(text).alphanumeric and found in TextSignature(item).alphanumeric


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_a_passage_is_found_wherever_it_begins(cut):
    item, other = TextSignature(STORIES[0]).alphanumeric, STORIES[1]
    test = Contamination([STORIES[0], "短い答え", "短い答え。", "ウィキペディアは誰でも編集できるフリー百科事典です"])
    assert (test.n_items, test.n_too_short) == (2, 1)
    assert item[cut : cut + OVERLAP] in test.find(TextSignature(other + item[cut : cut + OVERLAP] + other))
    assert test.find(TextSignature(other + item[cut : cut + 30] + other)) == ""
    assert test.find(TextSignature("（ウィキペディアは、誰でも編集できる\nフリー百科事典です。）")) != ""


def test_nothing_to_look_for_finds_nothing():
    assert Contamination(["はい"]).find(TextSignature("はい" * 40)) == ""


def test_near_duplicates_share_a_key_of_a_band():
    rng, found = random.Random(3), 0
    text = "\n".join(STORIES[:4])
    keys = set(TextSignature(text).keys("near-duplicates").tolist())
    assert len(keys) == N_BANDS
    kept = NearDuplicates()
    kept.add("x", TextSignature(text))
    for seed in range(300):
        other = TextSignature(changed(text, rng.randint(len(text) // 60, len(text) // 25), seed))
        shares = not keys.isdisjoint(other.keys("near-duplicates").tolist())
        assert shares or not kept.find(other)
        found += bool(kept.find(other))
    assert 30 < found < 270


def test_copies_and_lines_share_their_keys():
    one, other = TextSignature(f"{STORIES[0]}\n{LINE}\n短い行。"), TextSignature(f"{STORIES[1]}\n短い行。\n{LINE}")
    assert set(one.keys("repeated-lines")) & set(other.keys("repeated-lines"))
    assert len(one.keys("repeated-lines")) == sum(map(bool, one.line_keys))
    assert one.keys("duplicates") == TextSignature(one.text + " ").keys("duplicates") != other.keys("duplicates")
