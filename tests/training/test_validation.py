"""Bits per byte and per character are those of a plain loop over the text, one token at a time."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mamegpt.config import TrainConfig
from mamegpt.data.stories import stories
from mamegpt.distributed.processes import World
from mamegpt.errors import DataError
from mamegpt.models.base import LanguageModel
from mamegpt.models.registry import build_model
from mamegpt.run.metrics import Quality
from mamegpt.text.subsample import subsample
from mamegpt.tokenizer.tokenizer import Tokenizer
from mamegpt.training import validation
from mamegpt.training.validation import evaluate, rows_in_pass

ALONE = World(0, 1, torch.device("cpu"))
CONTEXT = 16
EDGE_CASES = [
    "",
    " ",
    "  空白 \n\n\t",
    "か\u3099",
    "👨‍👩‍👧‍👦と🇯🇵",
    "\u3000𠮷野家",
    "<s></s><unk>",
    "\x01\u2028",
    "ÄÖÜß",
]


@pytest.fixture(scope="module")
def tokenizer(stories_model: Path) -> Tokenizer:
    return Tokenizer.load(stories_model)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> LanguageModel:
    torch.manual_seed(1)
    sizes = TrainConfig(context_length=CONTEXT, emb_dim=16, n_layers=2, n_heads=2, drop_rate=0.5).model(
        tokenizer.vocab_size
    )
    model = build_model("custom-gpt", sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.train()  # as in the middle of a run, with dropout


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text for _, text in stories(seed=8, n=3)] + EDGE_CASES


@pytest.fixture(scope="module")
def tokens(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    assert tokenizer.eos_id is not None
    return np.array([i for text in texts for i in (*tokenizer.encode(text), tokenizer.eos_id)], dtype=np.uint16)


def quality_of(
    model: LanguageModel, tokens: np.ndarray, texts: list[str], *, start_id: int | None = 2, **options: Any
) -> Quality:
    """The quality of tokens that were made from texts."""
    text = "".join(texts)
    found = {"context_length": CONTEXT, "world": ALONE, "n_characters": len(text), "n_bytes": len(text.encode())}
    return evaluate(model, tokens, start_id=start_id, **(found | options))


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
    model: LanguageModel, tokens: np.ndarray, texts: list[str], n_tokens: int, batch_size: int
) -> None:
    part = tokens[:n_tokens]
    for start_id in (2, None):
        got = quality_of(model, part, texts, start_id=start_id, batch_size=batch_size)
        nats = naive_nats(model, ([] if start_id is None else [start_id]) + part.tolist())
        assert got.n_tokens == len(nats) == n_tokens - (start_id is None)
        assert got.loss == pytest.approx(sum(nats) / len(nats), rel=1e-5)


def test_a_pass_has_the_rows_that_suit_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda, mps = map(torch.device, ("cpu", "cuda:0", "mps"))
    monkeypatch.setattr(validation, "total_memory", lambda device: 16 << 30)
    assert [rows_in_pass(256, 512, device) for device in (cpu, cuda, mps)] == [32, 128, 64]
    assert rows_in_pass(1 << 20, 512, cpu) == 1
    monkeypatch.setattr(validation, "total_memory", lambda device: 4 << 30)
    assert rows_in_pass(256, 4096, cuda) == 4  # 512 MB


def test_the_bits_are_per_byte_and_character_of_the_text_itself(
    model: LanguageModel, tokens: np.ndarray, texts: list[str]
) -> None:
    got = quality_of(model, tokens, texts)
    text = "".join(texts)
    assert got.n_characters == len(text) and got.n_bytes == len(text.encode())
    bits = sum(naive_nats(model, [2, *tokens.tolist()])) / math.log(2)
    assert got.bits_per_byte == pytest.approx(bits / len(text.encode()), rel=1e-5)
    assert got.bits_per_character == pytest.approx(bits / len(text), rel=1e-5)


def test_evaluating_changes_nothing_and_leaves_the_model_in_training(
    model: LanguageModel, tokens: np.ndarray, texts: list[str]
) -> None:
    random_state = torch.get_rng_state()
    first, second = (quality_of(model, tokens, texts) for _ in range(2))
    assert first == second
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
    model.eval()
    assert quality_of(model, tokens, texts) == first
    assert not model.training
    model.train()


def test_products_in_bfloat16_change_the_bits_by_little(
    model: LanguageModel, tokens: np.ndarray, texts: list[str]
) -> None:
    exact = quality_of(model, tokens, texts, start_id=1)
    rounded = quality_of(model, tokens, texts, start_id=1, compute_dtype=torch.bfloat16)
    assert rounded.loss != exact.loss
    assert (exact.dtype, rounded.dtype) == ("float32", "bfloat16") and exact.of != rounded.of
    assert rounded.loss == pytest.approx(exact.loss, rel=3e-3)


def test_max_tokens_measures_windows_from_all_over_the_text(
    model: LanguageModel, tokens: np.ndarray, texts: list[str]
) -> None:
    whole = quality_of(model, tokens, texts)
    nats = naive_nats(model, [2, *tokens.tolist()])
    windows = [nats[i : i + CONTEXT] for i in range(0, len(nats), CONTEXT)]
    chosen = subsample(range(len(windows)), 50, lambda window: len(windows[window]))
    part = quality_of(model, tokens, texts, max_tokens=50)
    assert chosen[-1] > len(windows) // 2 and part.n_tokens == sum(len(windows[i]) for i in chosen) <= 50
    assert part.loss == pytest.approx(sum(sum(windows[i]) for i in chosen) / part.n_tokens, rel=1e-5)
    # Over the text's own mean length of a token.
    assert part.bits_per_character / part.loss == pytest.approx(whole.bits_per_character / whole.loss)
    assert part.bits_per_byte / part.loss == pytest.approx(whole.bits_per_byte / whole.loss)
    assert part.n_characters == pytest.approx(whole.n_characters * part.n_tokens / whole.n_tokens, abs=1)
    assert whole.n_characters == whole.of_n_characters == part.of_n_characters and part.of != whole.of
    assert quality_of(model, tokens, texts, max_tokens=10**9) == whole
    assert quality_of(model, tokens, texts, max_tokens=1).n_tokens in (CONTEXT, len(tokens) % CONTEXT)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_the_shares_of_several_processes_add_up(
    model: LanguageModel, tokens: np.ndarray, texts: list[str], size: int
) -> None:
    alone = quality_of(model, tokens, texts, batch_size=4)
    shares = [
        quality_of(model, tokens, texts, world=World(rank, size, ALONE.device), batch_size=4) for rank in range(size)
    ]
    assert sum(share.loss for share in shares) == pytest.approx(alone.loss, rel=1e-9)
    assert all(0 < share.loss < alone.loss for share in shares)
    for share in shares:  # the counts are of the whole text in every process
        assert dataclasses.replace(alone, loss=0, bits_per_byte=0, bits_per_character=0) == dataclasses.replace(
            share, loss=0, bits_per_byte=0, bits_per_character=0
        )


def test_too_few_tokens_are_an_error(model: LanguageModel) -> None:
    for tokens, start_id in (([], 2), ([], None), ([5], None)):
        with pytest.raises(DataError, match="less than two tokens"):
            quality_of(model, np.array(tokens, dtype=np.uint16), ["豆"], start_id=start_id)
    one = quality_of(model, np.array([5]), ["豆"])
    assert one.n_tokens == 1 and math.isfinite(one.bits_per_byte)
