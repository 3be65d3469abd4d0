"""The share of right answers to questions of 豆対話, and where it is shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from command import Mame
from little import Little

from mamegpt.data.dialogues import KINDS, KNOWN_ONLY, dialogues
from mamegpt.errors import ConfigError
from mamegpt.evaluation import tasks
from mamegpt.evaluation.tasks import ALL, N_QUESTIONS, SEED, SPLITS, answered_rightly
from mamegpt.pretrained import Pretrained, load

RIGHT = {
    messages[0].content: messages[1].content for split in SPLITS for _, messages in dialogues(SEED, N_QUESTIONS, split)
}


class Scripted:
    """A model that knows all answers but those of one kind of word."""

    answers = True

    def chat_ids(self, question: Sequence[tuple[str, str]], **_: Any) -> list[int]:
        return [len(question)]

    def answer_many(self, conversations: Sequence[Sequence[tuple[str, str]]], **_: Any) -> Iterator[str]:
        for ((_, question),) in conversations:
            yield "知りません。" if "逆" in question else f" {RIGHT[question]}\n"


def test_the_share_of_right_answers_is_counted_by_kind() -> None:
    found = answered_rightly(cast(Pretrained, Scripted()))
    assert set(found["test"]) == {ALL, *KINDS} and set(found["new"]) == {ALL, *KINDS} - set(KNOWN_ONLY)
    for shares in found.values():
        assert {kind for kind, share in shares.items() if share.share < 1} == {ALL, "reverse"}
        assert shares["reverse"].share == 0 and shares[ALL].n == N_QUESTIONS
        n_wrong = shares["reverse"].n
        assert shares[ALL].share == pytest.approx(1 - n_wrong / N_QUESTIONS)


def test_a_question_that_does_not_fit_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def chat_ids(_: Scripted, question: Sequence[tuple[str, str]], **__: Any) -> list[int]:
        if "逆" in question[0][1]:
            raise ConfigError("the question is too long")
        return [1]

    monkeypatch.setattr(Scripted, "chat_ids", chat_ids)
    found = tasks.answered(cast(Pretrained, Scripted()), "test")
    assert {one.kind for one in found if not one.is_right} == {"reverse"}
    assert {one.answer for one in found if one.kind == "reverse"} == {""}


def test_a_model_that_only_continues_is_not_asked(little: Little) -> None:
    assert answered_rightly(load(little.run, device="cpu")) == {}


def test_eval_shows_them_beside_the_bits_of_the_text_read_before(
    mame: Mame, little: Little, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "N_QUESTIONS", 12)
    out = tmp_path / "found.json"
    base_run = shutil.copytree(little.run, tmp_path / "run")  # into which the result is written
    words = ["--model", str(base_run), "--model", str(tuned), "--max-characters", "2000", "--out", str(out)]
    code, printed, err = mame("eval", *words, "--tasks")
    assert code == 0, err
    rows = [line.split("  ")[1] for line in printed.splitlines() if line.startswith("  ")]
    assert "right answers" in rows and "right answers, new words" in rows
    base, after = json.loads(out.read_text(encoding="utf-8"))["models"]
    assert base["answers"] == {} and set(after["answers"]) == {"test", "new"}
    assert base["text"].keys() == after["text"].keys() == {"validation"}
