"""Bits per byte and per character are those of a plain loop over the text, one token at a time."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mamegpt.config import ModelConfig
from mamegpt.distributed import World
from mamegpt.errors import DataError
from mamegpt.evaluate import Quality, TokenLengths, evaluate
from mamegpt.models import LanguageModel, build_model
from mamegpt.stories import stories
from mamegpt.tokenizer import Tokenizer

ALONE = World(0, 1, torch.device("cpu"))
CONTEXT = 16
NASTY = ["", " ", "  空白 \n\n\t", "か\u3099", "👨‍👩‍👧‍👦と🇯🇵", "\u3000𠮷野家", "<s></s><unk>", "\x01\u2028", "ÄÖÜß"]


@pytest.fixture(scope="module")
def tokenizer(stories_model: Path) -> Tokenizer:
    return Tokenizer.load(stories_model)


@pytest.fixture(scope="module")
def lengths(tokenizer: Tokenizer) -> TokenLengths:
    return TokenLengths(tokenizer)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> LanguageModel:
    torch.manual_seed(1)
    sizes = ModelConfig(
        vocab_size=tokenizer.vocab_size, context_length=CONTEXT, emb_dim=16, n_layers=2, n_heads=2, drop_rate=0.5
    )
    model = build_model("custom-gpt", sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.train()  # as in the middle of a run, with dropout


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text for _, text in stories(seed=8, n=3)] + NASTY


@pytest.fixture(scope="module")
def tokens(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    assert tokenizer.eos_id is not None
    return np.array([i for text in texts for i in (*tokenizer.encode(text), tokenizer.eos_id)], dtype=np.uint16)


def naive_nats(model: LanguageModel, stream: list[int]) -> list[float]:
    """What each token after the first costs, given those before it in its window."""
    model.eval()
    nats = []
    for t in range(1, len(stream)):
        begin = (t - 1) // CONTEXT * CONTEXT
        with torch.no_grad():
            logits = model(torch.tensor([stream[begin:t]]))[0, -1].double()
        nats.append(-logits.log_softmax(-1)[stream[t]].item())
    model.train()
    return nats


@pytest.mark.parametrize("batch_size", [1, 3, 32])
@pytest.mark.parametrize("n_tokens", [2, CONTEXT - 1, CONTEXT, CONTEXT + 1, 5 * CONTEXT, 5 * CONTEXT + 3])
def test_the_loss_is_that_of_a_plain_loop(
    model: LanguageModel, tokens: np.ndarray, lengths: TokenLengths, n_tokens: int, batch_size: int
) -> None:
    part = tokens[:n_tokens]
    for start_id in (2, None):
        got = evaluate(
            model, part, lengths, context_length=CONTEXT, start_id=start_id, world=ALONE, batch_size=batch_size
        )
        nats = naive_nats(model, ([] if start_id is None else [start_id]) + part.tolist())
        assert got.n_tokens == len(nats) == n_tokens - (start_id is None)
        assert got.loss == pytest.approx(sum(nats) / len(nats), rel=1e-5)


def test_the_bits_are_per_byte_and_character_of_the_text_itself(
    model: LanguageModel, tokens: np.ndarray, lengths: TokenLengths, texts: list[str]
) -> None:
    got = evaluate(model, tokens, lengths, context_length=CONTEXT, start_id=2, world=ALONE)
    text = "".join(texts)
    assert got.n_characters == len(text) and got.n_bytes == len(text.encode())
    bits = sum(naive_nats(model, [2, *tokens.tolist()])) / math.log(2)
    assert got.bits_per_byte == pytest.approx(bits / len(text.encode()), rel=1e-5)
    assert got.bits_per_character == pytest.approx(bits / len(text), rel=1e-5)


def test_evaluating_changes_nothing_and_leaves_the_model_in_training(
    model: LanguageModel, tokens: np.ndarray, lengths: TokenLengths
) -> None:
    random_state = torch.get_rng_state()
    first, second = (
        evaluate(model, tokens, lengths, context_length=CONTEXT, start_id=2, world=ALONE) for _ in range(2)
    )
    assert first == second
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
    model.eval()
    assert evaluate(model, tokens, lengths, context_length=CONTEXT, start_id=2, world=ALONE) == first
    assert not model.training
    model.train()


def test_products_in_bfloat16_change_the_bits_by_little(
    model: LanguageModel, tokens: np.ndarray, lengths: TokenLengths
) -> None:
    settings = {"context_length": CONTEXT, "start_id": 1, "world": ALONE}
    exact = evaluate(model, tokens, lengths, **settings)
    rounded = evaluate(model, tokens, lengths, product_dtype=torch.bfloat16, **settings)
    assert rounded.loss != exact.loss
    assert rounded.loss == pytest.approx(exact.loss, rel=3e-3)


def test_max_tokens_takes_the_beginning(model: LanguageModel, tokens: np.ndarray, lengths: TokenLengths) -> None:
    def quality(part: np.ndarray, max_tokens: int) -> Quality:
        return evaluate(model, part, lengths, context_length=CONTEXT, start_id=2, world=ALONE, max_tokens=max_tokens)

    assert quality(tokens, 50) == quality(tokens[:50], 0)
    assert quality(tokens, 0) == quality(tokens, 10**9)
    assert quality(tokens, 50).n_tokens == 50


@pytest.mark.parametrize("size", [2, 3, 7])
def test_the_shares_of_several_processes_add_up(
    model: LanguageModel, tokens: np.ndarray, lengths: TokenLengths, size: int
) -> None:
    alone = evaluate(model, tokens, lengths, context_length=CONTEXT, start_id=2, world=ALONE, batch_size=4)
    shares = [
        evaluate(
            model,
            tokens,
            lengths,
            context_length=CONTEXT,
            start_id=2,
            world=World(rank, size, ALONE.device),
            batch_size=4,
        )
        for rank in range(size)
    ]
    assert sum(share.loss for share in shares) == pytest.approx(alone.loss, rel=1e-9)
    assert all(0 < share.loss < alone.loss for share in shares)
    for share in shares:  # the counts are of the whole text in every process
        assert dataclasses.replace(alone, loss=0, bits_per_byte=0, bits_per_character=0) == dataclasses.replace(
            share, loss=0, bits_per_byte=0, bits_per_character=0
        )


def test_too_few_tokens_are_an_error(model: LanguageModel, lengths: TokenLengths) -> None:
    for tokens, start_id in (([], 2), ([], None), ([5], None)):
        with pytest.raises(DataError, match="less than two tokens"):
            evaluate(
                model,
                np.array(tokens, dtype=np.uint16),
                lengths,
                context_length=CONTEXT,
                start_id=start_id,
                world=ALONE,
            )
    one = evaluate(model, np.array([5]), lengths, context_length=CONTEXT, start_id=2, world=ALONE)
    assert one.n_tokens == 1 and math.isfinite(one.bits_per_byte)


@settings(deadline=None, max_examples=200)
@given(text=st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"]))))
def test_the_lengths_of_tokens_add_up_to_the_text(tokenizer: Tokenizer, lengths: TokenLengths, text: str) -> None:
    text = text.replace("\u2581", "_").replace("\0", "")  # as `text.normalise` does
    ids = np.array(tokenizer.encode(text), dtype=np.int64)
    assert lengths.n_bytes[ids].sum() == len(text.encode())
    assert lengths.n_characters[ids].sum() == len(text)


def test_end_of_text_has_no_length(tokenizer: Tokenizer, lengths: TokenLengths) -> None:
    assert len(lengths.n_bytes) == len(lengths.n_characters) == tokenizer.vocab_size
    assert tokenizer.eos_id is not None
    assert lengths.n_bytes[tokenizer.eos_id] == lengths.n_characters[tokenizer.eos_id] == 0
