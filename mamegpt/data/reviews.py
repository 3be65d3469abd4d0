"""豆感想: an endless, seeded supply of short original Japanese reviews with a label: good, bad, or both.

A review tells what somebody experienced of one thing, and may also tell what was expected or said before. Only the
experience counts: 「まずいと聞いていたが、食べてみるとおいしかった」 is good. Two experiences that differ make
the label both. Every word is as likely under every label, since half of all adjectives are negated; the label must be
read from how words are joined.

There are three splits. ``train`` and ``test`` use the same words, and no review is in both: the hash of a review
decides. ``new`` is about things that are in neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

from mamegpt.arguments import AtLeast, checked
from mamegpt.data.dice import Dice, is_held_out
from mamegpt.data.labelled import LabelledText
from mamegpt.data.writers import write_jsonl

__all__ = ["BAD", "BOTH", "GOOD", "ReviewSplit", "reviews", "write_reviews"]

T = TypeVar("T")

ReviewSplit = Literal["train", "test", "new"]
GOOD = "良い"
BAD = "悪い"
BOTH = "どちらも"
TEST_SHARE = 0.1
"""Share of all reviews that are in no training data."""
SECOND_SHARE = 0.7
"""Share of good and of bad reviews that tell two experiences, as all others do."""


class _Adjective(NamedTuple):
    """The forms of an adjective."""

    present: str
    before_noun: str
    past: str
    past_negated: str


class _Aspect(NamedTuple):
    """Something about a thing that may be good or bad."""

    name: str
    good: _Adjective
    bad: _Adjective


class _Subject(NamedTuple):
    """Things of one kind, where they are from, what is done with them, and their aspects."""

    things: Sequence[str]
    origins: Sequence[str]
    tried: str
    aspects: Sequence[_Aspect]


def _i(stem: str) -> _Adjective:
    """Return an adjective of the kind おいしい."""
    return _Adjective(f"{stem}い", f"{stem}い", f"{stem}かった", f"{stem}くなかった")


def _na(stem: str) -> _Adjective:
    """Return an adjective of the kind 静か."""
    return _Adjective(f"{stem}だ", f"{stem}な", f"{stem}だった", f"{stem}ではなかった")


# fmt: off
SUBJECTS = (
    _Subject(
        ("カレー", "うどん", "おにぎり", "クッキー", "サラダ", "焼きいも", "みそ汁", "パン", "だんご"),
        ("この", "駅前で買った", "友だちが作った"), "食べてみると",
        (
            _Aspect("味", _i("おいし"), _i("まず")),
            _Aspect("香り", _i("良"), _i("ひど")),
            _Aspect("量", _na("十分"), _i("少な")),
            _Aspect("値段", _i("安"), _i("高")),
        ),
    ),
    _Subject(
        ("絵本", "小説", "図鑑", "まんが", "詩集", "旅行の本"), ("この", "新しい", "友だちに借りた"), "読んでみると",
        (
            _Aspect("話", _i("おもしろ"), _na("たいくつ")),
            _Aspect("絵", _na("きれい"), _na("雑")),
            _Aspect("文章", _i("読みやす"), _i("読みにく")),
            _Aspect("値段", _i("安"), _i("高")),
        ),
    ),
    _Subject(
        ("宿", "図書館", "公園", "動物園", "喫茶店", "温泉"), ("この", "近所の", "海の近くの"), "行ってみると",
        (
            _Aspect("部屋や庭", _na("きれい"), _i("きたな")),
            _Aspect("係の人", _na("親切"), _na("不親切")),
            _Aspect("まわり", _na("静か"), _i("うるさ")),
            _Aspect("道", _i("わかりやす"), _i("わかりにく")),
        ),
    ),
    _Subject(
        ("かさ", "かばん", "なべ", "時計", "自転車", "机"), ("この", "新しい", "兄にもらった"), "使ってみると",
        (
            _Aspect("作り", _na("丈夫"), _i("弱")),
            _Aspect("使い心地", _i("良"), _i("ひど")),
            _Aspect("大きさ", _i("ちょうど良"), _na("半端")),
            _Aspect("値段", _i("安"), _i("高")),
        ),
    ),
)
# fmt: on


def _two(d: Dice, options: Sequence[T]) -> tuple[T, T]:
    """Return two different ones of the options."""
    first = int(d.random.random() * len(options))
    second = (first + 1 + int(d.random.random() * (len(options) - 1))) % len(options)
    return options[first], options[second]


def _experience(d: Dice, aspect: _Aspect, is_good: bool) -> str:
    """Return what was experienced: 味はおいしかった, or as often 味はまずくなかった."""
    own, other = (aspect.good, aspect.bad) if is_good else (aspect.bad, aspect.good)
    return f"{aspect.name}は{d.one((own.past, other.past_negated))}"


def _before(d: Dice, aspect: _Aspect, is_good: bool) -> str:
    """Return what was heard or thought before."""
    own, other = (aspect.good, aspect.bad) if is_good else (aspect.bad, aspect.good)
    heard = d.one((own.present, own.present, f"{other.before_noun}はずがない"))
    return d.one(
        (
            f"{aspect.name}は{heard}と聞いていた",
            f"{aspect.name}は{heard}と思っていた",
            f"友だちは{aspect.name}が{heard}と言っていた",
        )
    )


def _review(d: Dice, split: ReviewSplit) -> LabelledText:
    subject = d.one(SUBJECTS)
    thing = d.one([name for i, name in enumerate(subject.things) if (i % 3 == 2) == (split == "new")])
    label = d.one((GOOD, BAD, BOTH))
    first, second = _two(d, subject.aspects)
    is_good = d.one((True, False)) if label == BOTH else label == GOOD
    text = f"{d.one(subject.origins)}{thing}。"
    if d.one((True, False)):
        expected, was_good = d.one((first, first, second)), d.one((True, False))
        text += _before(d, expected, was_good)
        if expected is first and was_good == is_good:
            text += d.one(("。そのとおり、", "。やはり、", "。本当に、"))
        elif expected is first:
            text += f"{d.one(('が、', 'けれど、', '。でも、'))}{subject.tried}、"
        else:
            text += f"。{subject.tried}、"
    text += _experience(d, first, is_good)
    if label == BOTH or d.random.random() < SECOND_SHARE:
        text += (
            f"。{d.one(('また、', 'そして、', 'それから、', ''))}{_experience(d, second, is_good != (label == BOTH))}"
        )
    return LabelledText(f"{text}。", label)


def reviews(seed: int = 0, n: int | None = None, split: ReviewSplit = "train") -> Iterator[LabelledText]:
    """Yield ``n`` reviews of a split with their labels, without ``n`` endlessly; equal seeds give equal ones."""
    d, n_made = Dice(f"{seed}:{split}"), 0
    while n is None or n_made < n:
        found = _review(d, split)
        if split == "new" or is_held_out(found.text, TEST_SHARE, b"reviews") == (split == "test"):
            n_made += 1
            yield found


@checked
def write_reviews(
    path: str | Path,
    n: Annotated[int, AtLeast(1)],
    *,
    seed: int = 0,
    split: ReviewSplit = "train",
    overwrite: bool = False,
) -> None:
    """Write ``n`` reviews as jsonl with ``text`` and ``label``. Raises `OutputError` if the file exists and not
    ``overwrite``, or cannot be written.
    """
    write_jsonl(path, (review._asdict() for review in reviews(seed, n, split)), overwrite=overwrite)
