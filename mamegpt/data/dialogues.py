"""豆対話: an endless, seeded supply of short original Japanese questions with an answer that a program can check.

The words are those of 豆物語. Each kind of question is a function of dice and words that returns what is asked, in a
conversation about one text, and the answers. An answer is the only right one, but for a story that is to be continued:
`is_right` tells which sentences obey. There are three splits. ``train`` and ``test`` use the same words, and no
question is in both: the hash of a question decides. ``new`` asks with words that are in neither, but where nobody could
know a new word (readings, greetings).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from mamegpt.arguments import AtLeast, checked
from mamegpt.data.dice import Dice, is_held_out
from mamegpt.data.stories import ANIMALS, CHILDREN, PLACES, PLANTS, THINGS
from mamegpt.data.writers import write_jsonl
from mamegpt.tokenizer.chat import Message

__all__ = [
    "IN_TRAINING",
    "KINDS",
    "Dialogue",
    "DialogueSplit",
    "dialogues",
    "is_right",
    "write_dialogues",
    "write_preferences",
]

T = TypeVar("T")

DialogueSplit = Literal["train", "test", "new"]
TEST_SHARE = 0.1
"""Share of all questions that are in no training data."""
TIMES = {"count": 4, "where": 3}
"""How many times as often as others some kinds are in conversations for learning: those that are learned last."""
SECOND_TEXT_SHARE = 0.2
"""Share of conversations for learning in which a question about another text follows."""
UNKNOWN = "それはわかりません。"
NUMBERS = "〇一二三四五六七八九"


class _Case(NamedTuple):
    """A text, and questions about it with their answers; the first is the one that is asked by itself."""

    text: str
    turns: tuple[tuple[str, str], ...]


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
    used: Sequence[tuple[str, str]]
    """Words for the continuation of a story, each with what somebody did with such things, as alternatives."""
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


USED = {
    "things": "を[見つけました|拾いました|友だちに見せました|家に持って帰りました]",
    "animals": "[を見ました|と遊びました|に会いました|をなでました]",
    "foods": "を[食べました|買いました|二つ買いました|友だちにあげました]",
}
"""What is done with the words that a continuation must use, by the field of `_Words`."""
CONTINUATION = re.compile(
    "(?P<story>.+。)(?:「(?P<a>[^「」]+)」という言葉を使って、つづきを一文で書いてください"
    "|つづきを一文で書いてください。「(?P<b>[^「」]+)」という言葉を使ってください)"
)
"""A question for the continuation of a story."""
NAMES = tuple(child.name for child in CHILDREN)


def is_right(question: str, expected: str, answer: str) -> bool:
    """Return whether an answer, but for white space at its ends, is the expected one, or obeys the question.

    The continuation of a story may be any polite sentence that tells what a person of the story did, uses the word that
    was asked for, and names nobody else; it must not repeat the story.
    """
    answer = answer.strip()
    if not (asked := CONTINUATION.fullmatch(question)):
        return answer == expected.strip()
    story, word = asked["story"], asked["a"] or asked["b"]
    here = [name for name in NAMES if name in story]
    anyone, to_it = "|".join(here), "(?:[^。「」]*[、はもがのにをでと])?"
    sentence = f"(?:{anyone})[はもが]{to_it}{word}[をとにがはものでへ][^。「」]*(?:ました|でした)。"
    strangers = [name for name in NAMES if name not in here and name in answer]
    return re.fullmatch(sentence, answer) is not None and not strangers and answer not in story


# ------------------------------------------------------------------------------------------------ kinds


def _single(question: str, answer: str) -> _Case:
    """Return a case with one question, which needs no text."""
    return _Case("", ((question, answer),))


def _count(d: Dice, w: _Words) -> _Case:
    """Ask how often a word is in a list."""
    kinds = d.some(w.foods, 2)
    items = [d.one(kinds) for _ in range(d.number(2, 5))]
    first = d.one(items)
    asked = [first, *(kind for kind in kinds if kind in items and kind != first)]
    turns = (
        (
            d.choose(f"[この中に、{what}はいくつありますか|{what}はいくつですか]"),
            f"{NUMBERS[items.count(what)]}つです。",
        )
        for what in asked
    )
    return _Case(f"{'、'.join(items)}。", tuple(turns))


def _reverse(d: Dice, w: _Words) -> _Case:
    """Ask for a word backwards."""
    word = d.one(w.kana)
    return _single(d.choose(f"「{word}」を[逆から読んで|逆さにして]ください"), f"{word[::-1]}です。")


def _choose(d: Dice, w: _Words) -> _Case:
    """Ask which of three is of a kind."""
    groups = {"動物": w.animals, "植物": w.plants, "場所": w.places, "人": w.names}
    kind, other = d.some([*groups], 2)
    right, wrong = d.one(groups[kind]), d.some(groups[other], 2)
    words = d.some([right, *wrong], 3)
    asked = d.choose(f"{'、'.join(words)}。[この中で、{kind}はどれですか|{kind}を一つ選んでください]")
    return _single(asked, f"{right}です。")


def _compare(d: Dice, w: _Words) -> _Case:
    """Ask who has more of something, or less."""
    (a, b), food = d.some(w.names, 2), d.one(w.foods)
    few, many = sorted(d.some(range(1, 10), 2))
    of_a, of_b = d.some([few, many], 2)
    text = f"{a}は{food}を{NUMBERS[of_a]}つ、{b}は{food}を{NUMBERS[of_b]}つ持っています。"
    turns = (
        (d.choose(f"[{which}のはだれですか|どちらの{food}が{which}ですか]"), f"{a if of_a == n else b}です。")
        for which, n in d.some((("多い", many), ("少ない", few)), 2)
    )
    return _Case(text, tuple(turns))


def _holder(d: Dice, w: _Words) -> _Case:
    """Ask who has a thing after it was handed on; of a thing that was not there nobody can know."""
    people, (thing, other) = d.some(w.names, 3), d.some(w.things, 2)
    text = f"{people[0]}は{thing}を持っていました。"
    holders = people[: d.number(1, 3)]
    for giver, taker in itertools.pairwise(holders):
        text += d.choose(f"{giver}は{taker}に{thing}を[わたしました|あげました|かしました]。")
    asked = d.choose(f"[今、{thing}を持っているのはだれですか|{thing}はだれが持っていますか]")
    known = (asked, f"{holders[-1]}です。")
    unknown = (f"{other}を持っているのはだれですか", UNKNOWN)
    return _Case(text, (unknown, known) if d.number(1, 6) == 1 else (known,))


def _where(d: Dice, w: _Words) -> _Case:
    """Ask where somebody is now; of somebody who was not there nobody can know."""
    people, places = d.some(w.names, 3), d.some(w.places, 3)
    first, second = d.some(people[:2], 2)
    text = f"{people[0]}は{places[0]}へ行きました。{people[1]}は{places[1]}へ行きました。"
    at = {people[0]: places[0], people[1]: places[1]}
    if d.number(1, 2) == 1:
        text += d.choose(f"[それから|そのあと]、{first}は{places[2]}へ行きました。")
        at[first] = places[2]
    asked = d.some([first, second], 2)
    turns = (
        (
            d.choose(f"[今、{who}はどこにいますか|{who}がいるのはどこですか]"),
            f"{at[who]}です。" if who in at else UNKNOWN,
        )
        for who in ([people[2], *asked] if d.number(1, 6) == 1 else asked)
    )
    return _Case(text, tuple(turns))


def _continue(d: Dice, w: _Words) -> _Case:
    """Ask for one more sentence of a story, in which a word is to be used."""
    people = d.some(w.names, 2)
    deeds = [polite for _, polite in w.deeds if "が" not in polite]  # the others have a subject of their own
    text = "".join(f"{who}は{deed}。" for who, deed in zip(people, d.some(deeds, 2), strict=True))
    word, done = d.one([use for use in w.used if use[0] not in text])
    asked = d.choose(
        f"[「{word}」という言葉を使って、つづきを一文で書いてください"
        f"|つづきを一文で書いてください。「{word}」という言葉を使ってください]"
    )
    return _Case(text, ((asked, d.choose(f"{d.one(people)}は{word}{done}。")),))


def _polite(d: Dice, w: _Words) -> _Case:
    """Ask for a sentence in the polite style."""
    plain, polite = d.one(w.deeds)
    who = d.one(w.names)
    return _single(d.choose(f"「{who}は{plain}。」を[ていねいな形に|です・ます体に]してください"), f"{who}は{polite}。")


def _plain(d: Dice, w: _Words) -> _Case:
    """Ask for a sentence in the plain style."""
    plain, polite = d.one(w.deeds)
    who = d.one(w.names)
    return _single(d.choose(f"「{who}は{polite}。」を[ふつうの形に|だ・である体に]してください"), f"{who}は{plain}。")


def _reading(d: Dice, _w: _Words) -> _Case:
    """Ask for the reading of a kanji."""
    kanji, kana = d.one(READINGS)
    asked = d.choose(f"「{kanji}」[は何と読みますか|の読みを教えてください|をひらがなで書いてください]")
    return _single(asked, f"{kana}です。")


def _greeting(d: Dice, _w: _Words) -> _Case:
    """Greet, or ask who is there."""
    return _single(*d.one(GREETINGS))


def _refuse(d: Dice, _w: _Words) -> _Case:
    """Ask what a model cannot know."""
    return _single(d.choose(d.one(UNKNOWABLE)), UNKNOWN)


# fmt: off
KINDS: dict[str, Callable[[Dice, _Words], _Case]] = {
    "count": _count, "reverse": _reverse, "choose": _choose, "compare": _compare, "holder": _holder, "where": _where,
    "continue": _continue, "polite": _polite, "plain": _plain, "reading": _reading, "greeting": _greeting,
    "refuse": _refuse,
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

    animals = part([animal.name for animal in ANIMALS])
    lists = {"things": part([*THINGS]), "animals": animals, "foods": part(FOODS)}
    return _Words(
        names=part(NAMES),
        places=part([place.name for place in PLACES]),
        **lists,
        used=[(word, done) for name, done in USED.items() for word in lists[name]],
        plants=part([plant.name for plant in PLANTS]),
        deeds=part(DEEDS),
        kana=part(KANA),
    )


def dialogues(seed: int = 0, n: int | None = None, split: DialogueSplit = "train") -> Iterator[Dialogue]:
    """Yield ``n`` conversations of a split, without ``n`` endlessly; equal seeds give equal ones.

    In ``train``, some kinds are more frequent; further questions about the same text follow where there are some, and
    in a fifth of the conversations one about another text. Elsewhere all kinds are equally frequent, with one question.
    """
    d, words = Dice(f"{seed}:{split}"), _words(split)
    times = TIMES if split == "train" else {}
    asked = [kind for kind in KINDS if split != "new" or kind not in KNOWN_ONLY]
    kinds = [kind for kind in asked for _ in range(times.get(kind, 1))]
    n_made = 0
    while n is None or n_made < n:
        n_made += 1
        n_cases = 2 if split == "train" and d.random.random() < SECOND_TEXT_SHARE else 1
        found, messages = [], []
        for _ in range(n_cases):
            kind = d.one(kinds)
            for question, answer in _turns(d, words, kind, split):
                found.append(kind)
                messages += [Message("user", question), Message("assistant", answer)]
        yield Dialogue(tuple(found), tuple(messages))


def _turns(d: Dice, words: _Words, kind: str, split: DialogueSplit) -> list[tuple[str, str]]:
    """Return a question of a kind that the split may have, with its answer; in ``train`` also what is asked next."""
    while True:
        text, (first, *others) = KINDS[kind](d, words)
        if split == "new" or kind in IN_TRAINING or _is_test(text, first) == (split == "test"):
            further = [turn for turn in others if not _is_test(text, turn)] if split == "train" else []
            return [(text + first[0], first[1]), *further]


def _is_test(text: str, turn: tuple[str, str]) -> bool:
    """Return whether a question about a text is in no training data."""
    return is_held_out(text + turn[0], TEST_SHARE, b"dialogues")


def _wrong(d: Dice, words: _Words, kind: str, question: str, right: str, split: DialogueSplit) -> str:
    """Return a wrong answer: the right one of another question of the kind, or of any if the kind has one answer."""
    while True:
        (_, answer), *_ = _turns(d, words, d.one([*KINDS]) if right == UNKNOWN else kind, split)
        if not is_right(question, right, answer):
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
        return {"prompt": question, "chosen": answer, "rejected": _wrong(d, words, kinds[0], question, answer, split)}

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
