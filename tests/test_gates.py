"""The comparison itself: what counts as equal, what as a tie, and that nothing passes because it is not a number."""

from __future__ import annotations

import math

import pytest
import torch
from little import Little, random_model, sizes_for

from mamegpt.export import gates
from mamegpt.export.gates import Cases, greedy_gate, last_logits, logits_gate, make_cases, text_gates
from mamegpt.prompts import PROMPTS


@pytest.fixture(scope="module")
def cases(little: Little) -> Cases:
    sizes = sizes_for(little.tokenizer)
    return make_cases(random_model(sizes), little.tokenizer, ["一つ。二つ！\n三つ"], "here")


def test_prompts_are_fifty_different_beginnings() -> None:
    assert len(PROMPTS) == len({prompt[:8] for prompt in PROMPTS}) == 50
    assert all(len(prompt) >= 20 for prompt in PROMPTS)


def test_what_is_asked_fits_the_model_and_the_text(cases: Cases) -> None:
    assert cases.texts == [*gates.NASTY_TEXTS, "一つ。", "二つ！", "\n", "三つ"]
    assert {len(row) for row in cases.prompts} == {8} and {len(row) for row in cases.greedy} == {12}
    assert cases.logits.shape == (2, 24, 1000)
    torch.testing.assert_close(last_logits(cases.model, cases.rows[1]), cases.logits[1, -1])


def test_a_continuation_may_leave_the_models_own_only_at_a_tie(cases: Cases) -> None:
    assert greedy_gate("greedy", cases, cases.greedy, cases.greedy, 0.0).passed
    logits = last_logits(cases.model, cases.prompts[3] + cases.greedy[3][:5])
    first, second = logits.topk(2).indices.tolist()
    assert first == cases.greedy[3][5]
    gap = (logits[first] - logits[second]).item()
    parted = [list(row) for row in cases.greedy]
    parted[3][5:] = [second, *[0] * 6]  # what comes after is another text
    assert greedy_gate("greedy", cases, cases.greedy, parted, 0.51 * gap).passed
    refused = greedy_gate("greedy", cases, cases.greedy, parted, 0.49 * gap)
    assert not refused.passed and refused.found.startswith("49 of 50 prompts go on with the same 12 tokens, 0 part")
    shorter = [row[:-1] if i == 7 else row for i, row in enumerate(cases.greedy)]
    assert not greedy_gate("greedy", cases, cases.greedy, shorter, 1e9).passed


def test_what_is_not_a_number_does_not_pass(cases: Cases) -> None:
    assert logits_gate(1.0, 1.0, "").passed and not logits_gate(math.nan, 1.0, "").passed


def test_texts_are_compared_one_by_one(cases: Cases) -> None:
    decoded = [cases.tokenizer.decode(ids) for ids in cases.text_ids]
    assert all(gate.passed for gate in text_gates(cases, cases.text_ids, decoded, must_agree=True))
    wrong = [*cases.text_ids[:-1], [0]]
    ids_gate, round_trip = text_gates(cases, wrong, decoded[:9], must_agree=True)
    assert not ids_gate.passed and round_trip.passed
    assert ids_gate.found == ("11 of 12 texts give SentencePiece's ids (91.7%; here and 8 odd ones), not '三つ'")
    assert round_trip.found.startswith("9 of 9 texts come back")
    assert text_gates(cases, wrong, decoded, must_agree=False)[0].passed  # only stated
