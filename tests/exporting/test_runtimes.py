"""The program that proves runtimes (python -m benchmarks.runtimes) sees when one of them writes something else."""

from __future__ import annotations

import json

import pytest
from little import Little, random_model, sizes_for

from benchmarks.runtimes.__main__ import N_PROMPTS, PROGRAMS, RESULTS, RUNTIMES, compared, continuations, outcome
from mamegpt.exporting.checks import last_logits
from mamegpt.pretrained import Pretrained


@pytest.fixture(scope="module")
def loaded(little: Little) -> Pretrained:
    sizes = sizes_for(little.tokenizer, context_length=80)
    return Pretrained(random_model(sizes, architecture="qwen3"), little.tokenizer, sizes, "qwen3", "a model in memory")


def test_each_result_is_of_a_runtime_with_a_program() -> None:
    assert set(json.loads(RESULTS.read_text(encoding="utf-8"))) <= {it.name for it in RUNTIMES}
    assert all((PROGRAMS / it.program).is_file() for it in RUNTIMES if it.model_format != "html")


def test_another_continuation_is_not_equal(loaded: Pretrained) -> None:
    prompt = [20, 30, 40]
    logits = last_logits(loaded.model, prompt)
    first, other = logits.argmax().item(), logits.argmin().item()
    assert outcome(loaded.model, prompt, [first, 5], [first, 5]) == "equal"
    assert outcome(loaded.model, prompt, [first, 5], [other, 5]) == ""
    assert outcome(loaded.model, prompt, [first, 5], [first]) == ""


def test_answers_are_counted(loaded: Pretrained) -> None:
    prompts = [[20 + i, 30, 40] for i in range(N_PROMPTS)]
    own = continuations(loaded.model, prompts)
    wrong = [[loaded.tokenizer.vocab_size - 1, *own[0][1:]], *own[1:]]
    text = loaded.tokenizer.decode(own[-1])
    cases = {"prompts": prompts, "texts": ["豆", "木"], "text_ids": [[1], [2]]}
    answers = {"greedy": [*wrong[:-1], text], "text_ids": [[1], [3]]}
    found = compared(loaded, "f32", own, answers, cases)
    assert (found["equal"], found["ties"]) == (N_PROMPTS - 1, 0)
    assert (found["texts_equal"], found["texts_different"]) == (1, ["木"])
