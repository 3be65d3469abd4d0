"""豆感想: the same for a seed, its splits apart, and its labels right by another computation, which words are not."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import islice
from math import log
from pathlib import Path

import pytest

from mamegpt.data.labelled import LabelledReader
from mamegpt.data.reviews import BAD, BOTH, GOOD, SUBJECTS, ReviewSplit, reviews, write_reviews
from mamegpt.errors import OutputError

NEW = [name for subject in SUBJECTS for name in subject.things[2::3]]


def label_of(text: str) -> str:
    """The label, from the experiences alone: in the past, and not what was heard or thought."""
    found = set()
    for part in re.split("[。、が]|けれど", text.partition("。")[2]):
        if not part.endswith(("聞いていた", "思っていた", "言っていた")):
            for subject in SUBJECTS:
                for aspect in subject.aspects:
                    good = (aspect.good.past, aspect.bad.past_negated)
                    bad = (aspect.bad.past, aspect.good.past_negated)
                    found |= {GOOD for form in good if part.endswith(f"{aspect.name}は{form}")}
                    found |= {BAD for form in bad if part.endswith(f"{aspect.name}は{form}")}
    return BOTH if len(found) == 2 else found.pop()


def test_a_seed_gives_the_same_and_another_seed_others() -> None:
    assert [*islice(reviews(1), 50)] == [*reviews(1, 50)] != [*reviews(2, 50)]


@pytest.mark.parametrize("split", ["train", "test", "new"])
def test_every_label_is_the_right_one(split: ReviewSplit) -> None:
    for text, label in reviews(3, 500, split):
        assert label_of(text) == label, text
        assert any(name in text for name in NEW) == (split == "new")


def test_no_review_is_in_both_train_and_test() -> None:
    assert not {one.text for one in reviews(1, 1500)} & {one.text for one in reviews(1, 500, "test")}


def test_which_characters_a_review_has_does_not_tell_its_label() -> None:
    """Naive Bayes on the set of characters is right about less than half of three labels."""
    counts, n_train = {label: Counter[str]() for label in (GOOD, BAD, BOTH)}, Counter[str]()
    for text, label in reviews(1, 3000):
        counts[label].update(set(text))
        n_train[label] += 1
    n_right, n = 0, 600
    for text, label in reviews(1, n, "test"):
        scores = {it: sum(log((c[f] + 1) / (n_train[it] + 2)) for f in set(text)) for it, c in counts.items()}
        n_right += max(scores, key=lambda it: scores[it]) == label
    assert n_right / n < 0.5


def test_they_are_written_as_rows_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "reviews.jsonl"
    write_reviews(path, 30, seed=5)
    assert [*LabelledReader(str(path))] == [*reviews(5, 30)]
    assert set(json.loads(path.read_text(encoding="utf-8").splitlines()[0])) == {"text", "label"}
    with pytest.raises(OutputError):
        write_reviews(path, 1)
