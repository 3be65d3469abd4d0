"""Whatever a model says, what is written is UTF-8: against Python's own decoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from architectures import EVERY
from hypothesis import example, given
from hypothesis import strategies as st
from little import Little, random_model, sizes_for
from tokenizer_texts import train_directly
from torch import Tensor, nn

from mamegpt.generation.batch import continue_ids, generate_many
from mamegpt.generation.fast_decode import Head, supports_fast_decode
from mamegpt.generation.settings import Sampling
from mamegpt.generation.stream import generate, stream_ids, stream_tokens
from mamegpt.generation.whole_characters import WholeCharacters
from mamegpt.models.base import LanguageModel
from mamegpt.native.library import Native
from mamegpt.tokenizer.tokenizer import Tokenizer

CONTEXT = 24
N_NEW = 40
BYTE_IDS = range(10, 266)
"""The byte pieces of a vocabulary of 300, of which 2 is the end of a text."""
VOCAB_SIZE = 300
EOS = 2


ENDINGS = [b"", *(bytes([byte]) + b"\x80" * n for byte in (0x80, 0x90, 0xA0) for n in range(3))]
"""What completes any unfinished character: one of these."""


def is_whole(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def begins(data: bytes) -> bool:
    """Whether UTF-8 can begin with ``data``. (Python's incremental decoder also waits after half a surrogate.)"""
    return any(is_whole(data + ending) for ending in ENDINGS)


def lacking(data: bytes) -> bytes:
    """The bytes of the unfinished character that ``data`` ends with."""
    last = [data[-n:] for n in (1, 2, 3) if n <= len(data)]
    return next((part for part in last if begins(part) and not is_whole(part)), b"")


def id_bytes(token: int) -> bytes:
    return bytes([token - BYTE_IDS.start]) if token in BYTE_IDS else b"[%d]" % token


class Shouting(nn.Module):
    """A model whose logits are random, another draw for each length, and larger for byte pieces."""

    context_length = 10_000

    def __init__(self, seed: int, louder: float, vocab_size: int = VOCAB_SIZE, byte_ids: range = BYTE_IDS) -> None:
        super().__init__()
        self.out_head = nn.Linear(vocab_size, vocab_size, bias=False)
        self.out_head.weight.data.copy_(torch.eye(vocab_size))
        self.seed, self.louder = seed, torch.zeros(vocab_size)
        self.louder[list(byte_ids)] = louder

    def hidden(self, ids: Tensor, cache: object | None = None) -> Tensor:
        random = torch.Generator().manual_seed(self.seed + 1000 * ids.shape[1])
        states = 3 * torch.randn(len(ids), 1, self.out_head.in_features, generator=random) + self.louder
        return states.expand(-1, ids.shape[1], -1)


EXTREMES = (0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF)
"""Where the ranges of a second byte begin and end."""


def beginnings() -> list[bytes]:
    """How a character of UTF-8 can be unfinished: all first bytes, of others the extremes."""
    found, last = [b""], [b""]
    for bytes_after in (range(0x80, 0x100), EXTREMES, (0x80, 0xBF)):
        longer = [data + bytes([byte]) for data in last for byte in bytes_after]
        last = [data for data in longer if lacking(data) == data]
        found += last
    return found


def test_a_byte_may_follow_exactly_where_strict_utf_8_lets_it() -> None:
    rule = WholeCharacters(BYTE_IDS, VOCAB_SIZE)
    n_of_three, n_of_four = 16 * 6 - 4 - 2, 5 * 6 - 2 - 4  # two bytes of characters of so many
    assert len(beginnings()) == 1 + 51 + n_of_three + n_of_four + 2 * n_of_four
    for data in beginnings():
        missing = rule.after([BYTE_IDS[byte] for byte in data])
        allowed = [rule.allows(token, missing) for token in range(VOCAB_SIZE)]
        assert [allowed[token] for token in BYTE_IDS] == [begins(data + bytes([byte])) for byte in range(256)]
        others = {allowed[token] for token in range(VOCAB_SIZE) if token not in BYTE_IDS}
        assert others == {not data}  # the end of the text among them
        mask = rule.mask(missing)
        assert mask is not None and mask.tolist() == [0 if is_allowed else -torch.inf for is_allowed in allowed]


@given(st.lists(st.one_of(st.sampled_from(BYTE_IDS), st.integers(0, VOCAB_SIZE - 1)), max_size=12))
@example([BYTE_IDS[byte] for byte in b"\xe3\x81\xe3\x81"])
@example([BYTE_IDS[0xE3], EOS, BYTE_IDS[0x81]])
@example([BYTE_IDS[byte] for byte in b"\xed\xa0\x80\xf4\x90"])
def test_a_prompt_of_any_ids_leaves_the_text_at_its_last_character(ids: list[int]) -> None:
    left = lacking(b"".join(map(id_bytes, ids)))
    rule = WholeCharacters(BYTE_IDS, VOCAB_SIZE)
    assert rule.after(ids) == rule.after([BYTE_IDS[byte] for byte in left])
    assert bool(rule.after(ids)) == bool(left)


SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
    top_k=st.sampled_from([0, 1, 5, 100]),
    top_p=st.sampled_from([1.0, 0.9, 0.1]),
    min_p=st.sampled_from([0.0, 0.2]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.5]),
    seed=st.integers(0, 9),
)
PROMPTS = st.lists(st.one_of(st.integers(0, VOCAB_SIZE - 1), st.sampled_from(BYTE_IDS)), min_size=1, max_size=5)


@given(seed=st.integers(0, 1 << 30), louder=st.sampled_from([0.0, 3.0, 30.0]), prompt=PROMPTS, sampling=SAMPLINGS)
@example(seed=0, louder=30.0, prompt=[BYTE_IDS[0xE3]], sampling=Sampling())
@example(seed=0, louder=30.0, prompt=[BYTE_IDS[0xF0], BYTE_IDS[0x9F]], sampling=Sampling(temperature=1.0))
def test_whatever_the_logits_are_the_bytes_are_utf_8(
    seed: int, louder: float, prompt: list[int], sampling: Sampling
) -> None:
    model, rule = Shouting(seed, louder), WholeCharacters(BYTE_IDS, VOCAB_SIZE)
    ids = list(stream_ids(model, prompt, N_NEW, sampling, EOS, characters=rule, use_cache=False))  # type: ignore[arg-type]
    data = lacking(b"".join(map(id_bytes, prompt))) + b"".join(map(id_bytes, ids))
    assert begins(data)
    if len(ids) < N_NEW:
        assert not lacking(data)  # the text ends after a whole character
    prompts, samplings = [prompt, [EOS, *prompt]], [sampling, sampling]
    for start, found in zip(
        prompts,
        continue_ids(model, prompts, N_NEW, samplings, EOS, characters=rule, use_cache=False),  # type: ignore[arg-type]
        strict=True,
    ):
        data = lacking(b"".join(map(id_bytes, start))) + b"".join(map(id_bytes, found))
        assert begins(data)
        assert len(found) == N_NEW or not lacking(data)


def test_without_the_rule_the_same_models_break_characters() -> None:
    broken = 0
    for seed in range(10):
        ids = list(stream_ids(Shouting(seed, 30.0), [5], N_NEW, eos_id=EOS, use_cache=False))  # type: ignore[arg-type]
        broken += not begins(b"".join(map(id_bytes, ids)))
    assert broken == 10


def with_loud_bytes(little: Little, architecture: str) -> LanguageModel:
    """A model in float64, where no rounding turns a choice, that likes byte pieces."""
    model = random_model(sizes_for(little.tokenizer, context_length=CONTEXT), architecture=architecture)
    with torch.no_grad():
        model.out_head.weight[little.tokenizer.byte_ids] *= 4
    return model


@torch.inference_mode()
def naive(model: LanguageModel, tokenizer: Tokenizer, ids: list[int], n: int) -> list[int]:
    """The most likely id of those after which the bytes can still be UTF-8, over all logits, for each new one."""
    ids, data = list(ids), b""
    for _ in range(n):
        logits = model(torch.tensor([ids[-model.context_length :]]))[0, -1]
        for token in logits.argsort(descending=True, stable=True).tolist():
            is_byte = tokenizer.piece(token).startswith("<0x")
            following = data + tokenizer.token_bytes(token)
            if begins(following) if is_byte else not lacking(data):
                break
        ids.append(token)
        data = following
    return ids[-n:]


@pytest.mark.parametrize("counts_fast", [True, False])
@EVERY
def test_the_fast_path_is_the_naive_loop(
    architecture: str, counts_fast: bool, little: Little, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Head.__init__

    def init(self: Head, weight: Tensor, native: Native | None) -> None:
        made(self, weight, native)
        self._counts_fast = counts_fast

    monkeypatch.setattr(Head, "__init__", init)
    model = with_loud_bytes(little, architecture)
    assert supports_fast_decode(model)
    rule = WholeCharacters.of(little.tokenizer)
    free = list(stream_ids(model, [5, 6, 7], 2 * CONTEXT))
    expected = naive(model, little.tokenizer, [5, 6, 7], 2 * CONTEXT)
    assert expected != free
    assert len({*expected} & {*little.tokenizer.byte_ids}) > 2
    assert list(stream_ids(model, [5, 6, 7], 2 * CONTEXT, characters=rule)) == expected
    assert list(stream_ids(model, [5, 6, 7], 2 * CONTEXT, characters=rule, use_cache=False)) == expected
    assert continue_ids(model, [[5, 6, 7]] * 2, 2 * CONTEXT, [Sampling()] * 2, characters=rule) == [expected] * 2


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.5, seed=1), Sampling(repetition_penalty=1.2)])
def test_text_of_a_model_that_likes_bytes_has_no_replacement_character(little: Little, sampling: Sampling) -> None:
    model = with_loud_bytes(little, "qwen3").double()
    prompts = ["豆の", "", "𠮷"]
    for n in (20, 21, 22, 23, 24):  # ends within characters, too
        many = list(generate_many(model, little.tokenizer, prompts, n, sampling))
        alone = [
            generate(model, little.tokenizer, prompt, n, dataclasses.replace(sampling, seed=sampling.seed + i))
            for i, prompt in enumerate(prompts)
        ]
        assert many == alone
        assert not any("\ufffd" in text for text in alone)
        scored = stream_tokens(model, little.tokenizer, "豆の", n, sampling, n_alternatives=1)
        assert "".join(token.text for token in scored) == alone[0]
    assert any(ord(character) > 0x7F for text in alone for character in text)


def test_a_model_that_writes_no_broken_characters_writes_what_it_would_without_the_rule(little: Little) -> None:
    model = random_model(sizes_for(little.tokenizer, context_length=CONTEXT))
    with torch.no_grad():
        model.out_head.weight[little.tokenizer.byte_ids] = 0
    rule = WholeCharacters.of(little.tokenizer)
    for sampling in (Sampling(), Sampling(temperature=0.7, top_k=20, repetition_penalty=1.2, seed=4)):
        free = list(stream_ids(model, [5, 6], 30, sampling))
        assert begins(b"".join(map(little.tokenizer.token_bytes, free)))
        assert list(stream_ids(model, [5, 6], 30, sampling, characters=rule)) == free


def test_a_tokenizer_without_byte_pieces_forbids_nothing(little: Little) -> None:
    model = train_directly(["豆の木の話"] * 50, vocab_size=12, byte_fallback=False, hard_vocab_limit=False)
    tokenizer = Tokenizer(model, Path("no_bytes.model"))
    assert tokenizer.byte_ids == []
    rule = WholeCharacters(tokenizer.byte_ids, tokenizer.vocab_size)
    assert rule.mask(()) is None
    assert all(rule.allows(token, ()) for token in range(tokenizer.vocab_size))
    assert [little.tokenizer.token_bytes(token) for token in little.tokenizer.byte_ids] == [
        bytes([byte]) for byte in range(256)
    ]
