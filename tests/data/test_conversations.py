"""Conversations are found by their columns, rows without one are counted, and only answers are targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from little import Little

from mamegpt.data.conversation_order import ConversationOrder, Conversations
from mamegpt.data.conversations import ConversationReader
from mamegpt.errors import DataError
from mamegpt.tokenizer.chat import Message, conversation_ids

PAIR = (Message("user", "豆は何色"), Message("assistant", "緑です"))
ROWS: dict[str, list[dict[str, Any]]] = {
    "messages": [{"messages": [message._asdict() for message in PAIR], "id": 1}],
    "prompt, response": [{"prompt": "豆は何色", "response": " 緑です\n", "category": "色"}],
    "instruction, input, output": [{"instruction": "豆は何色", "input": "", "output": "緑です"}],
    "instruction, output": [{"instruction": "豆は何色", "output": "緑です"}],
}


def written(path: Path, rows: list[Any]) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("columns", ROWS)
def test_conversations_are_found_by_their_columns(tmp_path: Path, columns: str, suffix: str) -> None:
    reader = ConversationReader(str(written(tmp_path / f"pairs{suffix}", ROWS[columns])))
    assert [*reader] == [PAIR]
    assert [*reader.columns] == [columns] and not reader.dropped


def test_an_input_stands_below_its_instruction(tmp_path: Path) -> None:
    row = {"instruction": "数えて", "input": "豆 豆", "output": "二つ"}
    ((question, _),) = ConversationReader(str(written(tmp_path / "a.jsonl", [row])))
    assert question.content == "数えて\n豆 豆"


def test_rows_without_a_conversation_are_counted_by_reason(tmp_path: Path) -> None:
    def turns(*roles: str, content: Any = "豆") -> dict[str, Any]:
        return {"messages": [{"role": role, "content": content} for role in roles]}

    rows = [
        turns("system", "user", "assistant", "user", "assistant"),
        [1],
        {"messages": "豆"},
        turns("user", "assistant", content=1),
        turns("human", "assistant"),
        turns("user", "user", "assistant"),
        turns("user"),
        turns("user", "assistant", content=" "),
    ]
    reader = ConversationReader(str(written(tmp_path / "a.jsonl", rows)))
    assert len([*reader]) == 1
    assert reader.dropped == {
        "not an object with columns": 1,
        "messages are not a list of role and content": 2,
        "unknown role": 1,
        "turns out of order": 2,
        "empty question": 1,
    }


def test_what_normalizing_would_leave_nothing_of_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    answers = (r"\u0000", r"\ud800", "", "緑")
    path.write_text("".join(f'{{"prompt": "豆", "response": "{text}"}}\n' for text in answers), encoding="utf-8")
    reader = ConversationReader(str(path))
    assert [answer.content for _, answer in reader] == ["緑"]
    assert reader.dropped == {"empty answer": 2, "an unpaired surrogate": 1}


def test_a_file_without_fitting_columns_is_refused_with_those_that_fit(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{"question": "豆", "answer": "緑"}])
    with pytest.raises(DataError, match=r"it has question, answer.*prompt, response"):
        list(ConversationReader(str(path)))
    text = tmp_path / "a.txt"
    text.write_text("豆", encoding="utf-8")
    with pytest.raises(DataError, match="jsonl and parquet"):
        list(ConversationReader(str(text)))


@pytest.fixture
def several(little: Little) -> list[list[int]]:
    """Conversations as ids, of different lengths, one with two answers and a system turn."""
    long = (
        Message("system", "短く"),
        *PAIR,
        Message("user", "<|assistant|>とは"),
        Message("assistant", "豆<|end|>です"),
    )
    return [conversation_ids(little.tokenizer, messages) for messages in (PAIR, long, PAIR[:1] + PAIR[1:])]


def flat(little: Little, several: list[list[int]]) -> Conversations:
    tokenizer = little.tokenizer
    assert tokenizer.turns and tokenizer.eos_id is not None
    tokens = np.array([token for ids in several for token in [*ids, tokenizer.eos_id]], np.uint16)
    return Conversations(tokens, tokenizer.turns, tokenizer.eos_id)


def answer_tokens(little: Little, ids: list[int]) -> list[tuple[int, int]]:
    """(Position, token) of each target, found token by token."""
    turns = little.tokenizer.turns
    assert turns
    inside, found = False, []
    for i, token in enumerate(ids):
        if inside:
            found.append((i, token))
        inside = token == turns.begin["assistant"] or (inside and token != turns.end)
    return found


def test_targets_are_the_tokens_of_answers_and_the_end_of_each(little: Little, several: list[list[int]]) -> None:
    conversations = flat(little, several)
    assert conversations.lengths.tolist() == [len(ids) for ids in several]
    which = np.array([2, 1])
    inputs, targets, learned = conversations.rows(which)
    T = max(len(several[i]) for i in which)
    assert inputs.shape == (2, T)
    expected = [(row * T + at, token) for row, i in enumerate(which) for at, token in answer_tokens(little, several[i])]
    assert [*zip(learned.tolist(), targets.tolist(), strict=True)] == expected
    assert conversations.n_targets.tolist() == [len(answer_tokens(little, ids)) for ids in several]
    for row, i in enumerate(which):
        shifted = [little.tokenizer.eos_id, *several[i]][:-1]
        assert inputs[row, : len(shifted)].tolist() == shifted


def test_each_epoch_has_each_conversation_once_whatever_the_size_of_a_step() -> None:
    order = ConversationOrder(10, batch_size=4, seed=1)
    seen = np.concatenate([order.conversations(step) for step in range(5)])
    first, second = seen[:10].tolist(), seen[10:].tolist()
    assert sorted(first) == sorted(second) == list(range(10)) and first != second
    assert [order.epochs(step) for step in (2, 3, 5)] == [0, 1, 2]
