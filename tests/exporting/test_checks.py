"""The comparison itself: what counts as equal, what as a tie, and that nothing passes because it is not a number."""

from __future__ import annotations

import io
import math
import random
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from little import ROOT, Little, random_model, sizes_for
from tokenizers import Tokenizer as Fast
from transformers import PreTrainedTokenizerFast, pipeline

from mamegpt.data.stories import stories
from mamegpt.exporting import checks
from mamegpt.exporting.checks import Cases, greedy_check, last_logits, logits_check, make_cases, text_checks, whole_text
from mamegpt.exporting.hf import written_checks, written_prompts
from mamegpt.exporting.prompts import PROMPTS
from mamegpt.exporting.verify_hf import written
from mamegpt.generation.stream import prompt_ids, stream_ids
from mamegpt.models.custom_gpt.modeling_custom_gpt import CustomGPTConfig, CustomGPTForCausalLM
from mamegpt.tokenizer.hf import fast_tokenizer_json, tokenizer_config
from mamegpt.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def cases(little: Little) -> Cases:
    sizes = sizes_for(little.tokenizer)
    return make_cases(random_model(sizes), little.tokenizer, ["一つ。二つ！\n三つ"], "here")


def test_prompts_are_fifty_different_beginnings() -> None:
    assert len(PROMPTS) == len({prompt[:8] for prompt in PROMPTS}) == 50
    assert all(len(prompt) >= 20 for prompt in PROMPTS)


def test_what_is_asked_fits_the_model_and_the_text(cases: Cases) -> None:
    assert cases.texts == [*checks.EDGE_CASES, "一つ。", "二つ！", "\n", "三つ"]
    assert {len(row) for row in cases.prompts} == {8} and {len(row) for row in cases.greedy} == {12}
    assert cases.logits.shape == (2, 24, 1000)
    torch.testing.assert_close(last_logits(cases.model, cases.rows[1]), cases.logits[1, -1])


def test_a_continuation_may_leave_the_models_own_only_at_a_tie(cases: Cases) -> None:
    assert greedy_check("greedy", cases, cases.greedy, cases.greedy, 0.0).passed
    logits = last_logits(cases.model, cases.prompts[3] + cases.greedy[3][:5])
    first, second = logits.topk(2).indices.tolist()
    assert first == cases.greedy[3][5]
    gap = (logits[first] - logits[second]).item()
    parted = [list(row) for row in cases.greedy]
    parted[3][5:] = [second, *[0] * 6]  # what comes after is another text
    assert greedy_check("greedy", cases, cases.greedy, parted, 0.51 * gap).passed
    refused = greedy_check("greedy", cases, cases.greedy, parted, 0.49 * gap)
    assert not refused.passed and refused.found.startswith(
        "49 of 50 prompts are continued with the same 12 tokens, 0 differ"
    )
    shorter = [row[:-1] if i == 7 else row for i, row in enumerate(cases.greedy)]
    assert not greedy_check("greedy", cases, cases.greedy, shorter, 1e9).passed


def test_what_is_not_a_number_does_not_pass(cases: Cases) -> None:
    assert logits_check(1.0, 1.0, "").passed and not logits_check(math.nan, 1.0, "").passed


def test_texts_are_compared_one_by_one(cases: Cases) -> None:
    decoded = [cases.tokenizer.decode(ids) for ids in cases.text_ids]
    assert all(check.passed for check in text_checks(cases, cases.text_ids, decoded, must_agree=True))
    wrong = [*cases.text_ids[:-1], [0]]
    ids_check, round_trip = text_checks(cases, wrong, decoded[:9], must_agree=True)
    assert not ids_check.passed and round_trip.passed
    stated = "12 of 13 texts have the same token ids (92.3%; here and 9 edge cases), not '三つ'"
    assert ids_check.found == stated
    assert round_trip.found.startswith("9 of 9 texts are restored from their token ids")
    assert text_checks(cases, wrong, decoded, must_agree=False)[0].passed  # only stated


# ---------------------------------------------------------------- a right export passes, whatever the model writes


ALPHABET = [*"豆の、髙𠮷😀 \n1é\u2581", "  ", "\r\n", "か\u3099", "ﾃﾞ", "<s>", "<0xE3>"]


def some_tokenizers(folder: Path, little: Little) -> list[Tokenizer]:
    """Ours, and what SentencePiece makes with other settings."""
    own = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "add_dummy_prefix": False}
    spaces = {"user_defined_symbols": ["  ", "    ", "\n", "[SEP]"], **own}
    settings: list[dict[str, Any]] = [
        {"model_type": "bpe", **spaces},
        {"model_type": "unigram", **spaces},
        {"model_type": "bpe", **own, "add_dummy_prefix": True},
        {"model_type": "bpe", **own, "byte_fallback": False},
        {"model_type": "unigram"},
    ]
    found = [little.tokenizer]
    for i, changed in enumerate(settings):
        written = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(line for _, text in stories(seed=2, n=40) for line in text.split("\n")),
            model_writer=written,
            **({"vocab_size": 700, "byte_fallback": True, "minloglevel": 2} | changed),
        )
        (folder / f"{i}.model").write_bytes(written.getvalue())
        found.append(Tokenizer.load(folder / f"{i}.model"))
    shared = ROOT.parent / "shared" / "bugs" / "spaces.model"
    return [*found, Tokenizer.load(shared)] if shared.exists() else found


@pytest.mark.parametrize("n_seeds", [14, pytest.param(200, marks=pytest.mark.slow)])
def test_no_random_model_is_refused(
    little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_seeds: int
) -> None:
    tokenizers_there = some_tokenizers(tmp_path, little)
    n_cut = 0
    for seed in range(n_seeds):
        draw = random.Random(seed)
        tokenizer = tokenizers_there[seed % len(tokenizers_there)]
        texts = ["".join(draw.choices(ALPHABET, k=draw.randint(1, 12))) for _ in range(20)]
        monkeypatch.setattr(checks, "PROMPTS", [text for text in texts if prompt_ids(tokenizer, text)][:2])
        sizes = sizes_for(tokenizer, context_length=8, emb_dim=8, n_layers=1, n_heads=1)
        cases = make_cases(random_model(sizes, seed), tokenizer, texts, "here")
        config = CustomGPTConfig(
            **{name: getattr(sizes, name) for name in ("context_length", "emb_dim", "n_layers")},
            vocab_size=tokenizer.vocab_size,
            n_heads=1,
            drop_rate=0.0,
        )
        model = CustomGPTForCausalLM(config).eval()
        model.backbone.load_state_dict(cases.model.state_dict())
        model.generation_config.bos_token_id = model.generation_config.eos_token_id = tokenizer.start_id
        model.generation_config.pad_token_id = 0
        fast = PreTrainedTokenizerFast(
            tokenizer_object=Fast.from_str(fast_tokenizer_json(tokenizer)), **tokenizer_config(tokenizer, 8)
        )
        asked = written_prompts(cases)
        found = written(pipeline("text-generation", model=model, tokenizer=fast), asked, 4)
        outcome = written_checks(cases, asked, found["written_ids"], found["written"], 1e-4 * cases.scale)
        ids = fast(cases.texts, split_special_tokens=True)["input_ids"]
        outcome += text_checks(cases, ids, fast.batch_decode(ids), tokenizer.settings.is_lossless)
        assert [check for check in outcome if not check.passed] == [], (seed, tokenizer.path)
        n_cut += any(whole_text(tokenizer, row) is None for row in found["written_ids"])
    assert n_cut > n_seeds / 20  # some models ended within a character


def test_a_pipeline_that_reads_or_writes_otherwise_is_found(cases: Cases) -> None:
    asked = written_prompts(cases)
    assert asked[0] == "" and len(asked) == 2
    rows = [[*prompt_ids(cases.tokenizer, prompt)] for prompt in asked]
    rows = [[*row, *stream_ids(cases.model, row, 8)] for row in rows]
    texts = [cases.tokenizer.decode(row) for row in rows]

    def passed(rows: list[list[int]], texts: list[str]) -> list[bool]:
        return [check.passed for check in written_checks(cases, asked, rows, texts, 1e-4)]

    assert passed(rows, texts) == [True, True]
    assert passed([[1, *rows[0][1:]], rows[1]], texts) == [False, True]  # begins with <s>
    assert passed([rows[0], [*rows[1][:-1], 5]], texts) == [True, False]
    assert passed([rows[0], rows[1][1:]], texts) == [True, False]
