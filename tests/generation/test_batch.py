"""Many continuations together are those that each prompt has alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from little import Little, random_model, sizes_for

from mamegpt.cli.commands.models import read_prompts
from mamegpt.errors import ConfigError, DataError
from mamegpt.generation.batch import continue_ids, generate_many
from mamegpt.generation.settings import Sampling
from mamegpt.generation.stream import generate, stream_ids
from mamegpt.models.base import LanguageModel
from mamegpt.models.registry import ARCHITECTURES

CONTEXT = 24
LENGTHS = [3, 1, 7, CONTEXT - 1, 7, 2 * CONTEXT, 30]
WAYS = {
    "greedy": Sampling(),
    "warm": Sampling(temperature=0.9, top_k=40, top_p=0.95, repetition_penalty=1.2, seed=5),
}


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def model(request: pytest.FixtureRequest, little: Little) -> LanguageModel:
    # in float64, where no rounding can turn a choice
    return random_model(sizes_for(little.tokenizer, context_length=CONTEXT), architecture=request.param).double()


def some_ids(lengths: list[int]) -> list[list[int]]:
    random = torch.Generator().manual_seed(3)
    return [torch.randint(4, 900, (n,), generator=random).tolist() for n in lengths]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_each_has_the_ids_that_it_has_alone(way: str, use_cache: bool, model: LanguageModel) -> None:
    given = some_ids(LENGTHS)
    ways = [dataclasses.replace(WAYS[way], seed=i) for i in range(len(given))]
    alone = [list(stream_ids(model, ids, 40, sampling)) for ids, sampling in zip(given, ways, strict=True)]
    eos = alone[2][9]  # some end early, at their own places
    expected = [ids[: ids.index(eos)] if eos in ids else ids for ids in alone]
    assert len({len(ids) for ids in expected}) > 1
    assert continue_ids(model, given, 40, ways, eos, use_cache=use_cache) == expected


def test_no_prompts_no_texts(model: LanguageModel) -> None:
    assert continue_ids(model, [], 5, []) == []


def test_texts_in_their_order_across_batches(little: Little, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mamegpt.generation.batch.BATCH_SIZE", 3)
    model = random_model(sizes_for(little.tokenizer, context_length=CONTEXT)).double()
    prompts = ["昔々、", "", "豆", "町の人は", "昔々、", "花子", "村"]
    sampling = Sampling(temperature=1.0, seed=7, stop=["。"])
    alone = [
        generate(model, little.tokenizer, prompt, 30, dataclasses.replace(sampling, seed=7 + i))
        for i, prompt in enumerate(prompts)
    ]
    assert list(generate_many(model, little.tokenizer, prompts, 30, sampling)) == alone
    assert len(set(alone)) == len(prompts)


@pytest.mark.parametrize("stops", [["abc", "b"], ["b", "abc"], ["c", "ab"], ["豆の木", "豆"], ["x"]])
def test_many_texts_stop_where_each_would_alone_and_compute_no_further(stops: list[str], little: Little) -> None:
    """The model says the same after any prompt: it is asked for a token as often as the text needs."""
    text = "a豆abcの豆の木abc"
    said = little.tokenizer.encode(text)
    calls = []

    class Saying(torch.nn.Module):
        context_length = 100

        def __init__(self) -> None:
            super().__init__()
            n = little.tokenizer.vocab_size
            self.out_head = torch.nn.Linear(n, n, bias=False)
            self.out_head.weight.data.copy_(torch.eye(n))

        def hidden(self, ids: torch.Tensor, cache: object = None) -> torch.Tensor:
            calls.append(len(ids))
            return torch.nn.functional.one_hot(
                torch.tensor([said[ids.shape[1] - 1] for _ in ids]), little.tokenizer.vocab_size
            )[:, None].float()

    model, sampling = Saying(), Sampling(stop=stops)
    (alone,) = {generate(model, little.tokenizer, prompt, 12, sampling, use_cache=False) for prompt in ("の", "豆")}  # type: ignore[arg-type]
    n_alone = len(calls) // 2
    calls.clear()
    together = list(generate_many(model, little.tokenizer, ["の", "豆"], 12, sampling, use_cache=False))  # type: ignore[arg-type]
    assert together == [alone, alone]
    assert calls == [2] * n_alone


def test_impossible_settings_are_errors_before_anything_is_computed(little: Little) -> None:
    with pytest.raises(ConfigError, match="max_new_tokens"):
        generate_many(random_model(sizes_for(little.tokenizer)), little.tokenizer, ["豆"], 0)


def test_a_file_of_prompts(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeff昔々、\r\n\r\n町の\n".encode())
    assert read_prompts(file) == ["昔々、", "町の"]
    file.write_bytes("昔々".encode("cp932"))
    with pytest.raises(DataError, match=r"prompts\.txt is not UTF-8 text at byte 0; it looks like cp932"):
        read_prompts(file)
    assert read_prompts(file, "cp932") == ["昔々"]
    file.write_text("\n")
    with pytest.raises(DataError, match="has no lines with text"):
        read_prompts(file)
    with pytest.raises(DataError, match="absent"):
        read_prompts(tmp_path / "absent")
