"""Chat completions: OpenAI's own client gets the answers of the model, whole and in parts, with their usage."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from little import Little
from openai.types.chat import ChatCompletionMessageParam
from playground_server import serving

from mamegpt.playground.catalog import answers, bits_per_character, entries
from mamegpt.pretrained import load
from mamegpt.tokenizer.chat import TEMPLATE

MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "豆は何色ですか"},
    {"role": "assistant", "content": "緑です。"},
    {"role": "user", "content": "春は"},
]


@pytest.fixture(scope="module")
def client(tuned: Path, little: Little) -> Iterator[openai.OpenAI]:
    with (
        serving([str(tuned), str(little.run)]) as port,
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def test_the_official_client_gets_what_the_model_answers(client: openai.OpenAI, tuned: Path) -> None:
    loaded = load(tuned, device="cpu")
    turns = [(message["role"], str(message.get("content"))) for message in MESSAGES]
    expected = loaded.answer(turns, max_new_tokens=6, temperature=0.8, seed=3)
    options: dict[str, Any] = {
        "model": str(tuned),
        "messages": MESSAGES,
        "max_tokens": 6,
        "temperature": 0.8,
        "seed": 3,
    }
    whole = client.chat.completions.create(**options)
    (choice,) = whole.choices
    assert (choice.message.role, choice.message.content) == ("assistant", expected)
    assert whole.object == "chat.completion" and choice.finish_reason in ("length", "stop")
    assert whole.usage and whole.usage.prompt_tokens == len(loaded.chat_ids(turns, max_new_tokens=6))
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    parts = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert [part.delta.role for part in parts] == ["assistant", *[None] * (len(parts) - 1)]
    assert "".join(part.delta.content or "" for part in parts) == expected
    assert parts[-1].finish_reason == choice.finish_reason and chunks[-1].usage == whole.usage


def test_several_answers_are_those_of_their_seeds(client: openai.OpenAI, tuned: Path) -> None:
    loaded = load(tuned, device="cpu")
    many = client.chat.completions.create(
        model=str(tuned), messages=MESSAGES[:1], n=2, max_completion_tokens=4, temperature=1, seed=5
    )
    expected = [loaded.answer("豆は何色ですか", max_new_tokens=4, temperature=1, seed=seed) for seed in (5, 6)]
    assert [choice.message.content for choice in many.choices] == expected


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_are_those_of_the_answers_tokens(client: openai.OpenAI, tuned: Path, stream: bool) -> None:
    loaded = load(tuned, device="cpu")
    turns = [(message["role"], str(message.get("content"))) for message in MESSAGES]
    *tokens, _ = loaded.stream_answer(turns, max_new_tokens=8, n_alternatives=3, temperature=1, seed=4)
    answer: Any = client.chat.completions.create(
        model=str(tuned),
        messages=MESSAGES,
        max_tokens=8,
        temperature=1,
        seed=4,
        logprobs=True,
        top_logprobs=3,
        stream=stream,
    )
    parts = [part.choices[0] for part in (answer if stream else [answer])]
    found = [one for part in parts if part.logprobs for one in part.logprobs.content or ()]
    assert [one.logprob for one in found] == pytest.approx([token.logprob for token in tokens])
    assert [bytes(one.bytes or ()) for one in found] == [loaded.tokenizer.token_bytes(token.id) for token in tokens]
    for one, token in zip(found, tokens, strict=True):
        best = [loaded.tokenizer.token_bytes(i) for i, _ in token.alternatives]
        assert [bytes(other.bytes or ()) for other in one.top_logprobs] == best and len(best) == 3


def test_the_list_of_models_says_which_answer(
    client: openai.OpenAI, tuned: Path, little: Little, tmp_path: Path
) -> None:
    listed = {model.id: model.model_dump()["answers"] for model in client.models.list()}
    assert listed.items() >= {str(tuned): True, str(little.run): False}.items()
    exported = shutil.copytree(little.exported, tmp_path / "exported")
    (entry,) = entries([str(exported)])
    assert not answers(entry)
    (exported / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    assert answers(entry)
    (exported / "chat_template.jinja").write_bytes(b"\xff")
    assert not answers(entry)


def test_bits_on_answers_are_not_listed_among_those_of_texts(tuned: Path, little: Little) -> None:
    bits = bits_per_character(entries([str(tuned), str(little.run)]))
    assert str(little.run) in bits and str(tuned) not in bits


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_only_continues_says_so(client: openai.OpenAI, little: Little, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError, match="mamegpt tune"):
        list(client.chat.completions.create(model=str(little.run), messages=MESSAGES, stream=stream))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"messages": []}, "turns of user and assistant"),
        ({"messages": MESSAGES[:2]}, "end with the user's"),
        ({"messages": [{"role": "tool", "content": "豆"}]}, "role must be one of system, user, assistant"),
        ({"messages": [{"role": "user", "content": "豆" * 20_001}]}, "messages must not be longer"),
        ({"messages": [{"role": "user", "content": "豆" * 99}]}, "the question is too long"),
        ({"top_logprobs": 3}, "top_logprobs needs logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs must be at most 20"),
        ({"tools": []}, "tools is unknown"),
    ],
)
def test_what_cannot_be_answered_is_said(
    client: openai.OpenAI, tuned: Path, changed: dict[str, Any], message: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        client.chat.completions.create(**({"model": str(tuned), "messages": MESSAGES, "stream": stream} | changed))
