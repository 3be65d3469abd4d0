"""豆対話: an endless, seeded supply of short original Japanese questions with an answer that a program can check.

The words are those of 豆物語. Each kind of question is a function of dice and words that returns a question and its
only right answer. There are three splits. ``train`` and ``test`` use the same words, and no question is in both: the
hash of a question decides. ``new`` asks with words that are in neither, but where nobody could know a new word
(readings, greetings).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from mamegpt.arguments import AtLeast, checked
from mamegpt.data.dice import Dice, is_held_out
from mamegpt.data.stories import ANIMALS, CHILDREN, PLACES, PLANTS, THINGS
from mamegpt.data.writers import write_jsonl
from mamegpt.tokenizer.chat import Message

__all__ = ["IN_TRAINING", "KINDS", "Dialogue", "DialogueSplit", "dialogues", "write_dialogues", "write_preferences"]

T = TypeVar("T")

DialogueSplit = Literal["train", "test", "new"]
TEST_SHARE = 0.1
"""Share of all questions that are in no training data."""
SECOND_TURN_SHARE = 0.2
"""Share of conversations in which a second question follows."""
UNKNOWN = "それはわかりません。"
NUMBERS = "〇一二三四五六七八九"


class Dialogue(NamedTuple):
    """A conversation; ``kinds`` are those of its questions, in order."""

    kinds: tuple[str, ...]
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class _Words:
    """The words of a split."""

    names: Sequence[str]
    things: Sequence[str]
    places: Sequence[str]
    foods: Sequence[str]
    animals: Sequence[str]
    plants: Sequence[str]
    deeds: Sequence[tuple[str, str]]
    """What somebody did, in the plain and in the polite style."""
    kana: Sequence[str]
    """Words to be read backwards."""


def _table(text: str) -> tuple[tuple[str, str], ...]:
    words = text.split()
    return tuple(zip(words[::2], words[1::2], strict=True))


DEEDS = _table("""
    本を読んだ 本を読みました  絵をかいた 絵をかきました  歌を歌った 歌を歌いました  花を植えた 花を植えました
    水を飲んだ 水を飲みました  手紙を書いた 手紙を書きました  公園へ行った 公園へ行きました
    家に帰った 家に帰りました  魚を食べた 魚を食べました  友だちに会った 友だちに会いました
    星を見た 星を見ました  川で泳いだ 川で泳ぎました  パンを買った パンを買いました
    ねこをよんだ ねこをよびました  草をぬいた 草をぬきました  山に登った 山に登りました
    笛をふいた 笛をふきました  話を聞いた 話を聞きました  船を作った 船を作りました
    犬と遊んだ 犬と遊びました  早く起きた 早く起きました  石を拾った 石を拾いました
    窓を開けた 窓を開けました  荷物を運んだ 荷物を運びました  名前を覚えた 名前を覚えました
    雪がふった 雪がふりました  鳥が鳴いた 鳥が鳴きました  日記を書いた 日記を書きました
    森を歩いた 森を歩きました  茶を飲んだ 茶を飲みました
""")
READINGS = _table("""
    山 やま  川 かわ  海 うみ  空 そら  雨 あめ  雪 ゆき  風 かぜ  花 はな  草 くさ  木 き  森 もり  石 いし
    火 ひ  水 みず  土 つち  月 つき  星 ほし  朝 あさ  夜 よる  春 はる  夏 なつ  秋 あき  冬 ふゆ  犬 いぬ
    馬 うま  鳥 とり  魚 さかな  虫 むし  人 ひと  目 め  耳 みみ  手 て  足 あし  口 くち  声 こえ  道 みち
    町 まち  村 むら  家 いえ  門 もん  本 ほん  紙 かみ  色 いろ  音 おと  米 こめ  豆 まめ  竹 たけ  船 ふね
    橋 はし  笛 ふえ
""")
FOODS = ("りんご", "みかん", "パン", "にんじん", "たまご", "なし", "だんご", "クッキー", "いちご", "せんべい")
KANA = [
    word
    for pair in _table("""
        ねこ いぬ  うま とり  さかな りんご  みかん いちご  たまご はな  そら うみ  かわ やま  もり ほし  つき ゆき
        かぜ あめ  はし ふね  ふえ こま  すず かさ  いす つくえ  まど にわ  いけ みち  まち むら  あさ よる
        なつ あき  ふゆ はる  くさ たけ  まめ こめ  なべ はり
    """)
    for word in pair
]
GREETINGS = (
    ("こんにちは", "こんにちは。何でも聞いてください。"),
    ("おはよう", "おはようございます。"),
    ("こんばんは", "こんばんは。"),
    ("ありがとう", "どういたしまして。"),
    ("さようなら", "さようなら。また話しましょう。"),
    ("あなたはだれですか", "わたしは豆GPTです。"),
    ("名前を教えてください", "わたしは豆GPTです。"),
)
UNKNOWABLE = (
    "わたしの[兄|姉|弟|妹|父|母|友だち]の[名前|年|たんじょう日|好きな色]は何ですか",
    "わたしは[昨日|今朝|先週]、何を[食べました|見ました|買いました]か",
    "わたしの[かばん|つくえ|箱|家]の中に何がありますか",
    "[明日|来週|来年]の[天気|ニュース]を教えてください",
)


# ------------------------------------------------------------------------------------------------ kinds


def _count(d: Dice, w: _Words) -> tuple[str, str]:
    """Ask how often a word is in a list."""
    kinds = d.some(w.foods, 2)
    items = [d.one(kinds) for _ in range(d.number(2, 5))]
    what = d.one(items)
    asked = d.choose(f"{'、'.join(items)}。[この中に、{what}はいくつありますか|{what}はいくつですか]")
    return asked, f"{NUMBERS[items.count(what)]}つです。"


def _reverse(d: Dice, w: _Words) -> tuple[str, str]:
    """Ask for a word backwards."""
    word = d.one(w.kana)
    return d.choose(f"「{word}」を[逆から読んで|逆さにして]ください"), f"{word[::-1]}です。"


def _choose(d: Dice, w: _Words) -> tuple[str, str]:
    """Ask which of three is of a kind."""
    groups = {"動物": w.animals, "植物": w.plants, "場所": w.places, "人": w.names}
    kind, other = d.some([*groups], 2)
    right, wrong = d.one(groups[kind]), d.some(groups[other], 2)
    words = d.some([right, *wrong], 3)
    return d.choose(f"{'、'.join(words)}。[この中で、{kind}はどれですか|{kind}を一つ選んでください]"), f"{right}です。"


def _compare(d: Dice, w: _Words) -> tuple[str, str]:
    """Ask who has more of something, or less."""
    (a, b), food = d.some(w.names, 2), d.one(w.foods)
    few, many = sorted(d.some(range(1, 10), 2))
    of_a, of_b = d.some([few, many], 2)
    which, n = d.one((("多い", many), ("少ない", few)))
    asked = d.choose(
        f"{a}は{food}を{NUMBERS[of_a]}つ、{b}は{food}を{NUMBERS[of_b]}つ持っています。[{which}のはだれですか"
        f"|どちらの{food}が{which}ですか]"
    )
    return asked, f"{a if of_a == n else b}です。"


def _holder(d: Dice, w: _Words) -> tuple[str, str]:
    """Ask who has a thing after it was handed on; of a thing that was not there nobody can know."""
    people, (thing, other) = d.some(w.names, 3), d.some(w.things, 2)
    story = f"{people[0]}は{thing}を持っていました。"
    holders = people[: d.number(1, 3)]
    for giver, taker in itertools.pairwise(holders):
        story += d.choose(f"{giver}は{taker}に{thing}を[わたしました|あげました|かしました]。")
    if d.number(1, 6) == 1:
        return f"{story}{other}を持っているのはだれですか", UNKNOWN
    return d.choose(
        f"{story}[今、{thing}を持っているのはだれですか|{thing}はだれが持っていますか]"
    ), f"{holders[-1]}です。"


def _where(d: Dice, w: _Words) -> tuple[str, str]:
    """Ask where somebody is now; of somebody who was not there nobody can know."""
    people, places = d.some(w.names, 3), d.some(w.places, 3)
    first, second = d.some(people[:2], 2)
    story = f"{people[0]}は{places[0]}へ行きました。{people[1]}は{places[1]}へ行きました。"
    at = {people[0]: places[0], people[1]: places[1]}
    if d.number(1, 2) == 1:
        story += d.choose(f"[それから|そのあと]、{first}は{places[2]}へ行きました。")
        at[first] = places[2]
    who = people[2] if d.number(1, 6) == 1 else d.one((first, second))
    return d.choose(
        f"{story}[今、{who}はどこにいますか|{who}がいるのはどこですか]"
    ), f"{at[who]}です。" if who in at else UNKNOWN


def _polite(d: Dice, w: _Words) -> tuple[str, str]:
    """Ask for a sentence in the polite style."""
    plain, polite = d.one(w.deeds)
    who = d.one(w.names)
    return d.choose(f"「{who}は{plain}。」を[ていねいな形に|です・ます体に]してください"), f"{who}は{polite}。"


def _plain(d: Dice, w: _Words) -> tuple[str, str]:
    """Ask for a sentence in the plain style."""
    plain, polite = d.one(w.deeds)
    who = d.one(w.names)
    return d.choose(f"「{who}は{polite}。」を[ふつうの形に|だ・である体に]してください"), f"{who}は{plain}。"


def _reading(d: Dice, _w: _Words) -> tuple[str, str]:
    """Ask for the reading of a kanji."""
    kanji, kana = d.one(READINGS)
    return d.choose(f"「{kanji}」[は何と読みますか|の読みを教えてください|をひらがなで書いてください]"), f"{kana}です。"


def _greeting(d: Dice, _w: _Words) -> tuple[str, str]:
    """Greet, or ask who is there."""
    return d.one(GREETINGS)


def _refuse(d: Dice, _w: _Words) -> tuple[str, str]:
    """Ask what a model cannot know."""
    return d.choose(d.one(UNKNOWABLE)), UNKNOWN


# fmt: off
KINDS: dict[str, Callable[[Dice, _Words], tuple[str, str]]] = {
    "count": _count, "reverse": _reverse, "choose": _choose, "compare": _compare, "holder": _holder, "where": _where,
    "polite": _polite, "plain": _plain, "reading": _reading, "greeting": _greeting, "refuse": _refuse,
}
# fmt: on
"""The kinds of questions by name."""
IN_TRAINING = ("greeting", "reading")
"""Kinds with too few questions to keep some out of training: they are in ``test``, too."""
KNOWN_ONLY = ("reading", "greeting", "refuse")
"""Kinds that have no new words."""


def _words(split: DialogueSplit) -> _Words:
    """Return the words of a split: of each list, every third is new."""

    def part(words: Sequence[T]) -> list[T]:
        return [word for i, word in enumerate(words) if (i % 3 == 2) == (split == "new")]

    return _Words(
        names=part([child.name for child in CHILDREN]),
        things=part([*THINGS]),
        places=part([place.name for place in PLACES]),
        foods=part(FOODS),
        animals=part([animal.name for animal in ANIMALS]),
        plants=part([plant.name for plant in PLANTS]),
        deeds=part(DEEDS),
        kana=part(KANA),
    )


def dialogues(seed: int = 0, n: int | None = None, split: DialogueSplit = "train") -> Iterator[Dialogue]:
    """Yield ``n`` conversations of a split, without ``n`` endlessly; equal seeds give equal ones.

    In ``train``, a fifth has two questions; elsewhere each has one.
    """
    d, words = Dice(f"{seed}:{split}"), _words(split)
    kinds = [kind for kind in KINDS if split != "new" or kind not in KNOWN_ONLY]
    n_made = 0
    while n is None or n_made < n:
        n_made += 1
        n_turns = 2 if split == "train" and d.random.random() < SECOND_TURN_SHARE else 1
        turns = [_turn(d, words, d.one(kinds), split) for _ in range(n_turns)]
        messages = [it for _, asked, said in turns for it in (Message("user", asked), Message("assistant", said))]
        yield Dialogue(tuple(kind for kind, _, _ in turns), tuple(messages))


def _turn(d: Dice, words: _Words, kind: str, split: DialogueSplit) -> tuple[str, str, str]:
    """Return a kind, and a question and an answer of it that the split may have."""
    while True:
        question, answer = KINDS[kind](d, words)
        if (
            kind in IN_TRAINING
            or split == "new"
            or is_held_out(question, TEST_SHARE, b"dialogues") == (split == "test")
        ):
            return kind, question, answer


def _wrong(d: Dice, words: _Words, kind: str, right: str, split: DialogueSplit) -> str:
    """Return a wrong answer: the right one of another question of the kind, or of any if the kind has one answer."""
    while True:
        _, _, answer = _turn(d, words, d.one([*KINDS]) if right == UNKNOWN else kind, split)
        if answer != right:
            return answer


@checked
def write_preferences(
    path: str | Path,
    n: Annotated[int, AtLeast(1)],
    *,
    seed: int = 0,
    split: DialogueSplit = "train",
    overwrite: bool = False,
) -> None:
    """Write ``n`` questions as jsonl with ``prompt``, the right answer as ``chosen`` and a wrong one as ``rejected``.

    Raises `OutputError` if the file exists and not ``overwrite``, or cannot be written.
    """
    d, words = Dice(f"{seed}:{split}:wrong"), _words(split)

    def pair(kinds: tuple[str, ...], messages: tuple[Message, ...]) -> dict[str, str]:
        question, answer = (message.content for message in messages[:2])
        return {"prompt": question, "chosen": answer, "rejected": _wrong(d, words, kinds[0], answer, split)}

    write_jsonl(path, itertools.starmap(pair, dialogues(seed, n, split)), overwrite=overwrite)


@checked
def write_dialogues(
    path: str | Path,
    n: Annotated[int, AtLeast(1)],
    *,
    seed: int = 0,
    split: DialogueSplit = "train",
    overwrite: bool = False,
) -> int:
    """Write ``n`` conversations as jsonl with ``messages`` and ``kinds``; returns how many questions they have.

    Raises `OutputError` if the file exists and not ``overwrite``, or cannot be written.
    """
    n_questions = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal n_questions
        for kinds, messages in dialogues(seed, n, split):
            n_questions += len(kinds)
            yield {"messages": [message._asdict() for message in messages], "kinds": kinds}

    write_jsonl(path, rows(), overwrite=overwrite)
    return n_questions
