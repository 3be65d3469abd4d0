"""豆対話: the same for a seed, its splits apart, and its answers right by another computation."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path

import pytest

from mamegpt.data.conversations import ConversationReader
from mamegpt.data.dialogues import (
    DEEDS,
    KINDS,
    KNOWN_ONLY,
    NAMES,
    NUMBERS,
    UNKNOWN,
    Dialogue,
    _words,
    dialogues,
    is_right,
    write_dialogues,
    write_preferences,
)
from mamegpt.data.shards import _held_out
from mamegpt.errors import OutputError


def questions(split: str, n: int = 1500) -> list[tuple[str, str, str]]:
    """(Kind, question, answer) of single turns; what is asked later about a text has that text before it."""
    found = []
    for kinds, messages in dialogues(3, n, split):  # type: ignore[arg-type]
        texts, about = [message.content for message in messages], ""
        for kind, question, given in zip(kinds, texts[::2], texts[1::2], strict=True):
            text, end, _ = question.rpartition("。")
            if kind in ("count", "compare", "holder", "where"):
                about = text + end or about
                question = about + question.removeprefix(about)
            found.append((kind, question, given))
    return found


def answer(kind: str, question: str) -> str | None:
    """The answer, computed from the question alone; None if it is one that must be known."""
    match kind:
        case "count":
            words, what = question.split("。")[0].split("、"), re.findall("、?([^、。]+)は", question)[-1]
            return f"{NUMBERS[words.count(what)]}つです。"
        case "reverse":
            return "".join(reversed(question.split("「")[1].split("」")[0])) + "です。"
        case "compare":
            (a, of_a), (b, of_b) = re.findall("(?:^|、)([^、]+?)は[^、]+?を([一二三四五六七八九])つ", question)
            wants_more, has_more = "多い" in question, NUMBERS.index(of_a) > NUMBERS.index(of_b)
            return f"{a if wants_more == has_more else b}です。"
        case "holder":
            first, *moves, asked = question.split("。")
            who, thing = re.fullmatch("(.+?)は(.+)を持っていました", first).groups()  # type: ignore[union-attr]
            for move in moves:
                giver, who_now = re.match("(.+?)は(.+?)に", move).groups()  # type: ignore[union-attr]
                assert giver == who
                who = who_now
            return f"{who}です。" if thing in asked else UNKNOWN
        case "where":
            *moves, asked = question.split("。")
            at = dict(re.search("([^、]+)は(.+)へ行きました", move).groups() for move in moves)  # type: ignore[union-attr, misc]
            return next((f"{place}です。" for who, place in at.items() if who in asked), UNKNOWN)
        case "refuse":
            return UNKNOWN
    return None


def test_a_seed_gives_the_same_and_another_seed_others() -> None:
    some = [*islice(dialogues(1), 50)]
    assert some == [*dialogues(1, 50)]
    assert some != [*dialogues(2, 50)]
    assert all(len(one.kinds) * 2 == len(one.messages) for one in some)


@pytest.mark.parametrize("split", ["train", "test", "new"])
def test_every_answer_is_the_right_one(split: str) -> None:
    found = questions(split)
    assert {kind for kind, _, _ in found} == set(KINDS) - (set(KNOWN_ONLY) if split == "new" else set())
    polite = dict(DEEDS)
    for kind, question, given in found:
        expected = answer(kind, question)
        if kind in ("polite", "plain"):
            style = polite if kind == "polite" else {b: a for a, b in polite.items()}
            who, deed = re.search("「(.+?)は(.+)。」", question).groups()  # type: ignore[union-attr]
            expected = f"{who}は{style[deed]}。"
        assert expected in (given, None), question
        assert is_right(question, given, f" {given}\n"), question


STORY = "ユイは犬と遊びました。ケンタは市場へ行きました。"
ASKED = (
    f"{STORY}「帽子」という言葉を使って、つづきを一文で書いてください",
    f"{STORY}つづきを一文で書いてください。「帽子」という言葉を使ってください",
)


@pytest.mark.parametrize("question", ASKED)
@pytest.mark.parametrize(
    ("given", "obeys"),
    [
        ("ケンタは帽子を拾いました。", True),
        ("ユイもケンタに帽子を見せました。", True),
        ("ユイが帽子をかぶって歌いました。", True),
        (" ユイの帽子は赤でした。\n", False),  # says nothing of a person
        ("ケンタはかさを拾いました。", False),
        ("ケンタは麦わら帽子屋へ行きました。", False),
        ("ハナは帽子を拾いました。", False),
        ("ユイはハナに帽子を見せました。", False),
        ("ケンタは帽子を拾いました", False),
        ("ケンタは帽子を拾った。", False),
        ("ケンタは帽子を拾いました。ユイは帽子を拾いました。", False),
        ("帽子です。", False),
        ("", False),
    ],
)
def test_a_continuation_obeys_if_it_has_the_word_and_the_people(question: str, given: str, obeys: bool) -> None:
    assert is_right(question, "ユイは帽子を見つけました。", given) == obeys


def test_a_sentence_of_the_story_is_no_continuation() -> None:
    question = f"{STORY}「犬」という言葉を使って、つづきを一文で書いてください"
    assert not is_right(question, "ケンタは犬を見ました。", "ユイは犬と遊びました。")
    assert is_right(question, "ケンタは犬を見ました。", "ケンタは犬と遊びました。")


def test_no_name_of_a_person_is_part_of_a_word_that_a_continuation_uses() -> None:
    for split in ("train", "new"):
        words = _words(split)  # type: ignore[arg-type]
        texts = [*(word + done for word, done in words.used), *(polite for _, polite in words.deeds)]
        assert not [(name, text) for name in NAMES for text in texts if name in text]


def test_conversations_to_learn_from_ask_further_about_a_text_and_others_do_not() -> None:
    kinds = [kinds for kinds, _ in dialogues(3, 300)]
    assert {("where", "where"), ("count", "count"), ("compare", "compare")} <= set(kinds)
    assert {len(kinds) for split in ("test", "new") for kinds, _ in dialogues(3, 300, split)} == {1}  # type: ignore[arg-type]


def test_a_wrong_answer_is_wrong(tmp_path: Path) -> None:
    write_preferences(tmp_path / "pairs.jsonl", 400, seed=2)
    for line in (tmp_path / "pairs.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert is_right(row["prompt"], row["chosen"], row["chosen"])
        assert not is_right(row["prompt"], row["chosen"], row["rejected"])


def test_no_question_is_in_both_train_and_test() -> None:
    train, test = ({(kind, question) for kind, question, _ in questions(split, 4000)} for split in ("train", "test"))
    assert {kind for kind, _ in train & test} <= {"greeting", "reading"}


def test_new_questions_have_words_that_training_never_has() -> None:
    seen = " ".join(question for _, question, _ in questions("train", 4000))
    for kind, question, _ in questions("new", 300):
        if kind == "choose":
            assert not any(word in re.split("[、。 ]", seen) for word in question.split("。")[0].split("、"))
        if kind in ("polite", "plain"):
            assert question.split("「")[1].split("」")[0] not in seen


def test_they_are_written_as_conversations_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    n_questions = write_dialogues(path, 30, seed=5)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert sum(len(row["kinds"]) for row in rows) == n_questions > 30
    read = [*ConversationReader(str(path))]
    assert [Dialogue(tuple(row["kinds"]), messages) for row, messages in zip(rows, read, strict=True)] == [
        *dialogues(5, 30)
    ]
    with pytest.raises(OutputError):
        write_dialogues(path, 1)


def test_every_kind_is_among_those_that_are_held_out_for_validation() -> None:
    held_out = [kind for kind, question, _ in questions("train", 4000) if _held_out(question, 0.05)]
    assert set(held_out) >= set(KINDS) - {"greeting", "reading", "reverse"}
