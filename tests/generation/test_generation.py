"""Text from a model: the cache against a plain loop, samplers against closed forms, streams without half characters."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import EVERY, VARIANTS
from hypothesis import example, given
from hypothesis import strategies as st
from little import Little, random_model, sizes_for
from tokenizer_texts import train_directly
from torch import Tensor, nn
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mamegpt.data.shards import open_shards
from mamegpt.errors import ConfigError, ModelError
from mamegpt.generation import fast_decode
from mamegpt.generation.batch import continue_ids, generate_many
from mamegpt.generation.cache import KVCache
from mamegpt.generation.fast_decode import DecodeStep, Head, supports_fast_decode
from mamegpt.generation.samplers import choose, keep_min_p, keep_top_k, keep_top_p, penalise_repetition, probabilities
from mamegpt.generation.settings import Sampling
from mamegpt.generation.stream import Continuation, Token, generate, prompt_ids, stream, stream_ids, stream_tokens
from mamegpt.generation.whole_characters import WholeCharacters
from mamegpt.models.base import LanguageModel
from mamegpt.tokenizer.tokenizer import Tokenizer

CONTEXT = 24
WARM = Sampling(temperature=1.0, seed=3)


@pytest.fixture(scope="module")
def model(little: Little) -> LanguageModel:
    return random_model(sizes_for(little.tokenizer, context_length=CONTEXT))


class Scripted(nn.Module):
    """A model that says the same ids whatever it is given after the prompt, and ``eos`` when they are used up."""

    context_length = 10_000

    def __init__(self, tokenizer: Tokenizer, n_prompt: int, script: list[int]) -> None:
        super().__init__()
        self.n_prompt, self.script = n_prompt, script
        self.out_head = nn.Linear(tokenizer.vocab_size, tokenizer.vocab_size, bias=False)
        self.out_head.weight.data.copy_(torch.eye(tokenizer.vocab_size))

    def hidden(self, ids: Tensor, cache: object | None = None) -> Tensor:
        states = torch.zeros(*ids.shape, self.out_head.in_features)
        states[..., [*self.script, 2][min(ids.shape[1] - self.n_prompt, len(self.script))]] = 1.0
        return states


def says(tokenizer: Tokenizer, text: str, **options: object) -> list[str]:
    """The pieces that `stream` yields of a model that says ``text`` after 豆."""
    scripted = Scripted(tokenizer, len(tokenizer.encode("豆")), tokenizer.encode(text))
    sampling = Sampling(**options)  # type: ignore[arg-type]
    return list(stream(scripted, tokenizer, "豆", 500, sampling, use_cache=False))  # type: ignore[arg-type]


@torch.inference_mode()
def naive_greedy(model: LanguageModel, ids: list[int], n: int) -> list[int]:
    """Recompute everything over the last ``context_length`` tokens, for each new one."""
    ids = list(ids)
    for _ in range(n):
        logits = model(torch.tensor([ids[-model.context_length :]]))
        ids.append(int(logits[0, -1].argmax()))
    return ids[-n:]


@pytest.mark.parametrize("n_prompt", [1, 2, 5, CONTEXT - 1, CONTEXT, CONTEXT + 1, 2 * CONTEXT])
def test_greedy_with_cache_is_the_naive_loop_also_past_the_context(model: LanguageModel, n_prompt: int) -> None:
    ids = torch.randint(4, 900, (n_prompt,), generator=torch.Generator().manual_seed(n_prompt)).tolist()
    n_new = 2 * CONTEXT
    expected = naive_greedy(model, ids, n_new)
    assert len(set(expected)) > 3  # not one token over and over, which would hide mistakes
    assert list(stream_ids(model, ids, n_new)) == expected
    assert list(stream_ids(model, ids, n_new, use_cache=False)) == expected


def variant(little: Little, architecture: str, **changes: Any) -> LanguageModel:
    return random_model(sizes_for(little.tokenizer, context_length=CONTEXT, **changes), architecture=architecture)


@VARIANTS
def test_every_architecture_has_a_step(architecture: str, changes: dict[str, Any], little: Little) -> None:
    assert supports_fast_decode(variant(little, architecture, **changes))


@pytest.mark.parametrize("n_prompt", [1, 5, CONTEXT])
@VARIANTS
def test_step_by_step_is_the_naive_loop_for_every_architecture(
    architecture: str, changes: dict[str, Any], n_prompt: int, little: Little
) -> None:
    model = variant(little, architecture, **changes)
    ids = torch.randint(4, 900, (n_prompt,), generator=torch.Generator().manual_seed(n_prompt)).tolist()
    n_new = CONTEXT + 10
    expected = naive_greedy(model, ids, n_new)
    assert len(set(expected)) > 3
    assert list(stream_ids(model, ids, n_new)) == expected


@torch.inference_mode()
@VARIANTS
def test_a_step_is_the_model_at_one_position(architecture: str, changes: dict[str, Any], little: Little) -> None:
    model = variant(little, architecture, **changes)
    ids = torch.randint(4, 900, (CONTEXT,), generator=torch.Generator().manual_seed(0)).tolist()
    stepper = DecodeStep(model)
    found = [stepper.prompt(ids[:3])]
    found += [stepper.hidden(token) for token in ids[3:]]
    assert stepper.get_seq_length() == CONTEXT
    expected = model.hidden(torch.tensor([ids]))[0, 2:]
    torch.testing.assert_close(torch.stack(found), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(
    "sampling",
    [
        WARM,
        Sampling(repetition_penalty=1.3),
        Sampling(temperature=0.9, top_k=40, top_p=0.95, min_p=0.01, repetition_penalty=1.2, seed=5),
    ],
)
@EVERY
def test_samples_are_those_of_the_naive_loop(architecture: str, sampling: Sampling, little: Little) -> None:
    model = variant(little, architecture)
    ids = [5, 6, 7]
    generator = torch.Generator().manual_seed(sampling.seed)
    with torch.inference_mode():
        for _ in range(2 * CONTEXT):
            logits = model(torch.tensor([ids[-CONTEXT:]]))[0, -1]
            ids.append(choose(logits, torch.tensor(ids), sampling, generator))
    assert list(stream_ids(model, ids[:3], 2 * CONTEXT, sampling)) == ids[3:]


@torch.inference_mode()
@pytest.mark.parametrize("counts_fast", [True, False])
@pytest.mark.parametrize(("V", "C"), [(1, 8), (5, 1), (1000, 31), (1025, 128), (3000, 33), (4096, 64)])
def test_the_most_likely_id_is_that_of_all_logits(V: int, C: int, counts_fast: bool) -> None:
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(V, C, generator=generator)
        state = torch.randn(C, generator=generator)
        if seed % 3 == 1:  # one number that leaves few bits to the others
            weight[seed % V, seed % C] = 50.0
        if seed % 3 == 2:
            state[seed % C] = -300.0
        if seed % 4 == 3:  # all but equal, so that roundings would decide
            weight = weight[:1] + 1e-4 * weight
        head = Head(weight)
        head._counts_fast = counts_fast and head._counts_fast
        logits = (weight.double() @ state.double()).float()
        assert logits[head.most_likely(state)] >= logits.max() - 1e-5 * logits.abs().max()


@torch.inference_mode()
def test_of_equal_logits_the_first_is_the_most_likely() -> None:
    weight = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    weight[[7, 20, 49]] = 3 * torch.ones(16)
    assert Head(weight).most_likely(torch.ones(16)) == 7
    assert Head(weight).most_likely(torch.zeros(16)) == 0
    assert Head(weight).most_likely(torch.full((16,), 1e-37)) == 7  # 127 by that is beyond float32
    assert Head(torch.zeros(50, 16)).most_likely(torch.ones(16)) == 0


@torch.inference_mode()
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_an_error_and_choose_nothing(value: float) -> None:
    weight = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    state = torch.ones(16)
    state[3] = value
    with pytest.raises(ModelError, match="NaN or infinite"):
        Head(weight).most_likely(state)
    for sampling in (Sampling(), WARM, Sampling(temperature=1.0, top_k=2, top_p=0.5, min_p=0.1)):
        with pytest.raises(ModelError, match="NaN or infinite"):
            choose(Head(weight).logits(state), [1], sampling, torch.Generator())


@torch.inference_mode()
def test_eight_bits_leave_few_ids_to_compare() -> None:
    generator = torch.Generator().manual_seed(0)
    head, state = Head(torch.randn(16_000, 128, generator=generator)), torch.randn(128, generator=generator)
    if not head._counts_fast:
        pytest.skip("this processor does not multiply 8-bit numbers fast")
    rounded, largest = head._rounded
    scaled = 127 * state / state.abs().max()
    rough = torch._int_mm(scaled.round().to(torch.int8)[None], rounded)[0]
    assert torch.equal(rough.long(), (scaled.round().long()[:, None] * rounded.long()).sum(0))
    assert 0 < (rough >= rough.max() - scaled.abs().sum() - largest).sum() < 100


_LARGEST_LOGITS = """
import torch
from mamegpt.generation.fast_decode import Head
generator = torch.Generator().manual_seed(0)
weight = torch.rand(500, 64, generator=generator).sub_(0.3).sign_()
states = torch.rand(50, 64, generator=generator).add_(1)
head = Head(weight)
print(sum(head.most_likely(state) == int(torch.mv(weight, state).argmax()) for state in states))
"""


@pytest.mark.parametrize("instructions", ["DEFAULT", "AVX2", "AVX512_CORE"])
def test_the_largest_logit_where_instructions_are_refused_to_pytorch(instructions: str) -> None:
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    command = [sys.executable, "-c", _LARGEST_LOGITS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "50"


def test_what_a_step_does_not_know_takes_the_long_way(little: Little, monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    replaced = variant(little, "custom-gpt")
    block = replaced.trf_blocks[0]  # type: ignore[index]
    doubled = Doubled(32, 32)
    doubled.load_state_dict(block.att.proj.state_dict())
    block.att.proj = doubled
    hooked = variant(little, "qwen3")
    hooked.model.layers[1].register_forward_hook(lambda _module, _inputs, out: -out)  # type: ignore[union-attr]
    for model in (replaced, hooked):
        assert not supports_fast_decode(model)
        assert list(stream_ids(model, [5, 6], CONTEXT)) == naive_greedy(model, [5, 6], CONTEXT)
    plain = variant(little, "custom-gpt")
    assert supports_fast_decode(plain)
    assert not supports_fast_decode(plain.double())
    monkeypatch.setattr(fast_decode, "MAX_PARAMETERS", 1000)
    assert not supports_fast_decode(plain.float())


def test_generation_leaves_model_and_threads_as_they_were(model: LanguageModel) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for _ in stream_ids(model, [5, 6], 5):
            assert torch.get_num_threads() == 2
            assert not torch.is_inference_mode_enabled()
    finally:
        torch.set_num_threads(n_threads)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) and after[name].is_contiguous() for name, tensor in before.items())


def test_a_training_model_is_put_into_evaluation_mode(little: Little) -> None:
    dropping = random_model(sizes_for(little.tokenizer, drop_rate=0.5)).train()
    first = list(stream_ids(dropping, [5, 6, 7], 12))
    assert first == naive_greedy(dropping.eval(), [5, 6, 7], 12)


def test_while_the_text_fits_each_new_token_costs_one_position(model: LanguageModel) -> None:
    lengths = []
    handle = model.final_norm.register_forward_hook(lambda _m, inputs, _out: lengths.append(inputs[0].shape[1]))
    try:
        list(stream_ids(model, [5] * 6, CONTEXT))
    finally:
        handle.remove()
    n_cached = CONTEXT - 6
    assert lengths == [6] + [1] * n_cached + [CONTEXT] * (CONTEXT - 1 - n_cached)


def test_cache_grows_in_order_and_holds_what_it_was_given() -> None:
    cache = KVCache(6)
    assert cache.get_seq_length() == 0
    keys, values = torch.randn(2, 3, 6, 4), torch.randn(2, 3, 6, 4)
    for start, end in ((0, 3), (3, 4), (4, 6)):
        for layer in (0, 1):
            k, v = cache.update(keys[:, :, start:end] + layer, values[:, :, start:end] - layer, layer)
            assert torch.equal(k, keys[:, :, :end] + layer)
            assert torch.equal(v, values[:, :, :end] - layer)
        assert cache.get_seq_length() == end


def test_eos_ends_the_text_and_is_not_shown(model: LanguageModel) -> None:
    free = list(stream_ids(model, [5, 6], 20))
    eos = free[7]
    expected = free[: free.index(eos)]
    assert list(stream_ids(model, [5, 6], 20, eos_id=eos)) == expected


@pytest.mark.parametrize("k", [1, 5, 999, 5000])
def test_top_k_is_transformers_and_keeps_k(k: int) -> None:
    logits = torch.randn(1000, generator=torch.Generator().manual_seed(k))
    found = keep_top_k(logits, k)
    assert torch.equal(found, TopKLogitsWarper(k)(None, logits[None])[0])
    assert found.isfinite().sum() == min(k, 1000)


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.999])
def test_top_p_is_transformers_and_the_fewest_tokens_that_reach_p(p: float) -> None:
    logits = 3 * torch.randn(1000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = keep_top_p(logits, p)
    assert torch.equal(found, TopPLogitsWarper(p)(None, logits[None])[0])
    kept = logits.softmax(-1)[found.isfinite()]
    assert kept.sum() >= p
    assert kept.sum() - kept.min() < p


@pytest.mark.parametrize("p", [0.001, 0.05, 0.5, 1.0])
def test_min_p_is_transformers_and_a_share_of_the_largest(p: float) -> None:
    logits = torch.randn(1000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = keep_min_p(logits, p)
    assert torch.equal(found, MinPLogitsWarper(p)(None, logits[None])[0])
    assert torch.equal(found.isfinite(), logits - logits.max() >= torch.tensor(p).log() - 1e-12)


@pytest.mark.parametrize("penalty", [0.7, 1.3])
def test_repetition_penalty_is_transformers_and_counts_an_id_once(penalty: float) -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(3))
    seen = torch.tensor([3, 7, 7, 7, 12])
    found = penalise_repetition(logits.clone(), seen, penalty)
    assert torch.equal(found, RepetitionPenaltyLogitsProcessor(penalty)(seen[None], logits[None].clone())[0])
    others = [i for i in range(50) if i not in (3, 7, 12)]
    assert torch.equal(found[others], logits[others])


def test_all_samplers_together_draw_from_transformers_distribution() -> None:
    logits = torch.tensor([2.0, 1.5, 1.0, 0.5, -0.5, -3.0, 0.9, 1.2])
    seen = torch.tensor([1, 4])
    sampling = Sampling(temperature=0.8, top_k=6, top_p=0.9, min_p=0.1, repetition_penalty=1.2)
    expected = logits[None].clone()
    for step in (
        RepetitionPenaltyLogitsProcessor(1.2),
        TemperatureLogitsWarper(0.8),
        TopKLogitsWarper(6),
        TopPLogitsWarper(0.9),
        MinPLogitsWarper(0.1),
    ):
        expected = step(seen[None], expected)
    probabilities = expected[0].softmax(-1)
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    drawn = [choose(logits, seen, sampling, generator) for _ in range(n)]
    counts = torch.bincount(torch.tensor(drawn), minlength=8) / n
    assert (counts[probabilities == 0] == 0).all()
    # Five standard deviations of a binomial share.
    assert ((counts - probabilities).abs() <= 5 * (probabilities * (1 - probabilities) / n).sqrt()).all()


NUMBERS = st.one_of(
    st.floats(), st.floats(0, 2), st.sampled_from([0.0, 1e-45, 1e-40, 1e-300, 1e-3, 1.0, 1e6, math.nan, math.inf])
)


@given(
    temperature=NUMBERS,
    top_p=NUMBERS,
    min_p=NUMBERS,
    repetition_penalty=NUMBERS,
    top_k=st.integers(-1, 100),
    seed=st.integers(-1, 1 << 64),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4, 1e8]),
)
@example(temperature=math.nan, top_p=1.0, min_p=0.0, repetition_penalty=1.0, top_k=0, seed=0, scale=1.0)
@example(temperature=1e-40, top_p=1.0, min_p=0.0, repetition_penalty=1.0, top_k=0, seed=0, scale=1.0)
@example(temperature=1.0, top_p=1e-300, min_p=0.0, repetition_penalty=1.0, top_k=0, seed=0, scale=1.0)
@example(temperature=1.0, top_p=1.0, min_p=0.0, repetition_penalty=1e-45, top_k=0, seed=0, scale=1.0)
@example(temperature=1e-3, top_p=1e-9, min_p=1.0, repetition_penalty=1e6, top_k=1, seed=(1 << 63) - 1, scale=1e8)
def test_settings_are_refused_or_every_way_to_sample_works(
    scale: float, model: LanguageModel, **settings: float
) -> None:
    sampling = Sampling(**settings)  # type: ignore[arg-type]
    try:
        sampling.validate()
    except ConfigError:
        return
    logits = scale * torch.randn(50, generator=torch.Generator().manual_seed(0))
    seen = [int(logits.argmax()), int(logits.argmin()), 7]
    assert 0 <= choose(logits, seen, sampling, torch.Generator().manual_seed(sampling.seed)) < 50
    if sampling.temperature > 0:
        found = probabilities(penalise_repetition(logits, torch.tensor(seen), sampling.repetition_penalty), sampling)
        assert found.isfinite().all() and found.sum().item() == pytest.approx(1, abs=1e-5)
    several = [sampling.of_text(i) for i in range(2)]
    for one in several:
        one.validate()
    for use_cache in (True, False):
        alone = [list(stream_ids(model, [5, 6], 2, one, use_cache=use_cache)) for one in several]
        assert all(len(ids) == 2 for ids in alone)
        assert [len(ids) for ids in continue_ids(model, [[5, 6]] * 2, 2, several, use_cache=use_cache)] == [2, 2]


@given(st.integers(0, (1 << 63) - 1), st.integers(1, 1000))
def test_each_of_several_texts_has_a_seed_of_its_own(seed: int, n: int) -> None:
    seeds = [Sampling(seed=seed).of_text(i).seed for i in range(n)]
    assert seeds[0] == seed and len(set(seeds)) == n
    assert all(0 <= one < 1 << 63 for one in seeds)


def test_greedy_ignores_the_seed_and_top_k_1_is_greedy(model: LanguageModel) -> None:
    greedy = list(stream_ids(model, [5, 6], 10))
    assert list(stream_ids(model, [5, 6], 10, Sampling(seed=9))) == greedy
    assert list(stream_ids(model, [5, 6], 10, Sampling(temperature=1.0, top_k=1))) == greedy


def test_same_seed_same_text_other_seed_other_text(model: LanguageModel, little: Little) -> None:
    texts = [generate(model, little.tokenizer, "昔々、", 20, Sampling(temperature=1.0, seed=s)) for s in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


def test_sampling_does_not_touch_or_need_the_global_random_state(model: LanguageModel) -> None:
    torch.manual_seed(1)
    first = list(stream_ids(model, [5, 6], 10, WARM))
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(3))
    torch.manual_seed(2)
    assert list(stream_ids(model, [5, 6], 10, WARM)) == first


def test_repetition_penalty_changes_the_text(model: LanguageModel) -> None:
    free = list(stream_ids(model, [5, 6], 20))
    strict = list(stream_ids(model, [5, 6], 20, Sampling(repetition_penalty=1e6)))
    assert len(set(free)) < 20
    assert len({5, 6, *strict}) == 22


@pytest.mark.parametrize("text", ["𠮷野家で🍣を食べた😀。", "👨‍👩‍👧と髙島屋", "一\n二"])
def test_a_stream_never_yields_half_a_character_and_adds_up(little: Little, text: str) -> None:
    assert any(little.tokenizer.piece(i).startswith("<0x") for i in little.tokenizer.encode(text))
    pieces = says(little.tokenizer, text)
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece and piece for piece in pieces)
    assert len(pieces) > 1


def test_a_character_cut_off_by_the_length_is_left_out(little: Little) -> None:
    ids = little.tokenizer.encode("あ𠮷")
    assert len(ids) > 4  # 𠮷 is spelt in four bytes
    scripted = Scripted(little.tokenizer, len(little.tokenizer.encode("豆")), ids)
    pieces = list(stream(scripted, little.tokenizer, "豆", len(ids) - 1, use_cache=False))  # type: ignore[arg-type]
    assert pieces == ["あ"]
    assert list(generate_many(scripted, little.tokenizer, ["豆"], len(ids) - 1, use_cache=False)) == ["あ"]  # type: ignore[arg-type]


def test_a_space_after_the_prompt_stays_with_a_tokenizer_that_puts_one_before_the_text() -> None:
    model = train_directly(["the bean grew and the bean fell"] * 50, vocab_size=290, hard_vocab_limit=False)
    tokenizer = Tokenizer(model, Path("with_prefix.model"))
    assert tokenizer.settings.add_dummy_prefix
    ids, n_prompt = tokenizer.encode("the bean grew"), len(tokenizer.encode("the bean"))
    scripted = Scripted(tokenizer, n_prompt, ids[n_prompt:])
    assert generate(scripted, tokenizer, "the bean", 9, use_cache=False) == " grew"  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_random_streams_add_up_to_the_decoded_ids(model: LanguageModel, little: Little, seed: int) -> None:
    sampling = Sampling(temperature=2.0, seed=seed)
    prompt = little.tokenizer.encode("豆の")
    characters = WholeCharacters.of(little.tokenizer)
    ids = list(stream_ids(model, prompt, 60, sampling, little.tokenizer.eos_id, characters=characters))
    pieces = list(stream(model, little.tokenizer, "豆の", 60, sampling))
    assert "豆の" + "".join(pieces) == little.tokenizer.decode(prompt + ids).rstrip("\ufffd")
    assert "".join(pieces) == generate(model, little.tokenizer, "豆の", 60, sampling)


@pytest.mark.parametrize("sampling", [Sampling(), WARM, Sampling(temperature=0.5, top_k=3, repetition_penalty=1.5)])
def test_tokens_are_the_stream_and_the_models_own_probabilities(
    model: LanguageModel, little: Little, sampling: Sampling
) -> None:
    prompt = little.tokenizer.encode("豆の")
    *tokens, last = stream_tokens(model, little.tokenizer, "豆の", 40, sampling, n_alternatives=4)
    characters = WholeCharacters.of(little.tokenizer)
    ids = list(stream_ids(model, prompt, 40, sampling, little.tokenizer.eos_id, characters=characters))
    assert [token.id for token in tokens] == ids
    assert [token.text for token in (*tokens, last) if token.text] == list(
        stream(model, little.tokenizer, "豆の", 40, sampling)
    )
    assert (last.id, last.finish) == (None, "length" if len(ids) == 40 else "stop")
    for i, token in enumerate(tokens):
        with torch.inference_mode():
            expected = model(torch.tensor([[*prompt, *ids[:i]][-CONTEXT:]]))[0, -1].log_softmax(-1)
        best = expected.topk(4)
        assert token.logprob == pytest.approx(expected[ids[i]].item(), abs=1e-3)
        assert [logprob for _, logprob in token.alternatives] == pytest.approx(best.values.tolist(), abs=1e-3)
        assert token.offset == len("".join(t.text for t in tokens[:i]))
    plain = list(stream_tokens(model, little.tokenizer, "豆の", 40, sampling))
    assert [t._replace(logprob=None, alternatives=()) for t in (*tokens, last)] == plain


def test_tokens_know_where_they_begin_and_why_the_text_ended(little: Little) -> None:
    ids = little.tokenizer.encode("あ𠮷い")
    scripted = Scripted(little.tokenizer, len(little.tokenizer.encode("豆")), ids)

    def tokens(n: int, *stop: str) -> list[Token]:
        sampling = Sampling(stop=list(stop))
        return list(stream_tokens(scripted, little.tokenizer, "豆", n, sampling, use_cache=False))  # type: ignore[arg-type]

    assert [token.offset for token in tokens(99)] == [0, 1, 1, 1, 1, 2, 3]  # 𠮷 is spelt in four bytes
    assert [token.text for token in tokens(99)] == ["あ", "", "", "", "𠮷", "い", ""]
    assert tokens(99)[-1].finish == "stop"
    assert tokens(3)[-1] == Token("", 1, finish="length")
    assert tokens(99, "い")[-1] == tokens(6, "い")[-1] == Token("", 3, finish="stop")
    assert tokens(5, "𠮷い")[-1] == Token("𠮷", 2, finish="length")  # it was no stop string after all


STORY = "むかし、豆のきつねが、きのこを、見つけました。おしまい。\n\n【次】"


@pytest.mark.parametrize(
    "stop", [["。"], ["きの"], ["きつねが、きのこ"], ["おしまい", "見つ"], ["\n\n"], ["次】を"], ["無い"]]
)
def test_stop_strings_are_never_shown_even_across_tokens(little: Little, stop: list[str]) -> None:
    pieces = says(little.tokenizer, STORY, stop=stop)
    cut = min((STORY.find(s) for s in stop if s in STORY), default=len(STORY))
    assert "".join(pieces) == STORY[:cut]
    shown = ["".join(pieces[: i + 1]) for i in range(len(pieces))]
    assert all(STORY[:cut].startswith(text) for text in shown)


def test_every_stop_string_of_the_text_cuts_where_it_first_stands(little: Little) -> None:
    text = "豆、豆豆、豆豆豆の木"
    for a, b in itertools.combinations(range(len(text) + 1), 2):
        assert "".join(says(little.tokenizer, text, stop=[text[a:b]])) == text[: text.find(text[a:b])]


def test_of_several_stop_strings_in_one_token_the_first_cuts(little: Little) -> None:
    texts = [piece.text for piece in little.tokenizer.pieces if piece.kind == "normal"]
    token = max((text for text in texts if len(set(text)) == len(text)), key=len)
    assert len(token) > 2
    assert says(little.tokenizer, token, stop=list(reversed(token[1:]))) == [token[0]]


class Spoken:
    """Stands for a tokenizer whose tokens are given pieces of text."""

    def __init__(self, parts: list[str]) -> None:
        self.parts = parts

    def stream(self) -> Spoken:
        return self

    def push(self, token: int) -> str:
        return self.parts[token]

    def flush(self) -> str:
        return ""


def naive_cut(text: str, stops: list[str]) -> str:
    """Read character by character, and end before the longest stop string at the first end of one."""
    for end in range(1, len(text) + 1):
        if found := [stop for stop in stops if text[:end].endswith(stop)]:
            return text[: end - max(map(len, found))]
    return text


@given(
    parts=st.lists(st.text("abc😀", max_size=4), max_size=8),
    stops=st.lists(st.text("abc😀", min_size=1, max_size=4), max_size=3),
)
@example(parts=["a", "b", "c"], stops=["abc", "b"])
@example(parts=["abc"], stops=["abc", "b"])
@example(parts=["ab", "ab", "c"], stops=["babc", "abab"])
def test_stop_strings_cut_a_text_the_same_however_it_is_cut_into_tokens(parts: list[str], stops: list[str]) -> None:
    text = Continuation(Spoken(parts), [], stops)  # type: ignore[arg-type]
    shown = ""
    for i in range(len(parts)):
        shown += text.push(i)
        assert naive_cut("".join(parts), stops).startswith(shown)
    assert shown + text.end() == naive_cut("".join(parts), stops)
    assert text.stopped == (naive_cut("".join(parts), stops) != "".join(parts))


def test_text_that_cannot_become_a_stop_string_is_shown_at_once(little: Little) -> None:
    n_tokens = len(little.tokenizer.encode(STORY))
    assert len(says(little.tokenizer, STORY, stop=["無い"])) == len(says(little.tokenizer, STORY)) <= n_tokens


def test_a_prompt_is_spelt_as_training_text_is(model: LanguageModel, little: Little) -> None:
    first, second = (generate(model, little.tokenizer, prompt, 8) for prompt in ("か\u3099\r\n豆\0", "が\n豆"))
    assert little.tokenizer.encode("か\u3099\r\n豆\0") != little.tokenizer.encode("が\n豆")
    assert first == second


def test_an_empty_prompt_starts_a_document(model: LanguageModel, little: Little) -> None:
    characters = WholeCharacters.of(little.tokenizer)
    expected = list(stream_ids(model, [2], 8, eos_id=2, characters=characters))
    assert generate(model, little.tokenizer, "", 8) == little.tokenizer.decode(expected)


def test_a_beginning_is_read_as_in_training(model: LanguageModel, little: Little) -> None:
    """What stands before each text in the stream that training and evaluation read stands before a prompt."""
    tokenizer = little.tokenizer
    splits = open_shards(little.run / "tokens", tokenizer)[1]
    tokens = splits["train"].tokens.tolist()
    stream = [tokenizer.start_id, *tokens]
    begins = [0, *(i + 1 for i, token in enumerate(tokens[:-1]) if token == splits["train"].eos_id)]
    assert len(begins) > 50
    for begin, end in itertools.pairwise(begins):
        text = tokenizer.decode(tokens[begin:end])
        assert prompt_ids(tokenizer, text, at_start=True) == stream[begin:end]
    assert prompt_ids(tokenizer, "", at_start=True) == prompt_ids(tokenizer, "") == [tokenizer.start_id]
    assert prompt_ids(tokenizer, "豆の") == tokenizer.encode("豆の")
    ids = [2, *tokenizer.encode("豆の")]
    characters = WholeCharacters.of(tokenizer)
    expected = tokenizer.decode(list(stream_ids(model, ids, 8, eos_id=2, characters=characters)))
    assert generate(model, tokenizer, "豆の", 8, at_start=True) == expected != generate(model, tokenizer, "豆の", 8)
    assert list(generate_many(model, tokenizer, ["豆の"], 8, at_start=True)) == [expected]


def test_an_empty_prompt_needs_an_end_of_text_token(model: LanguageModel, little: Little) -> None:
    class Endless(Tokenizer):
        eos_id = None  # type: ignore[assignment]

    endless = Endless(little.spm.read_bytes(), little.spm)
    with pytest.raises(ConfigError, match=r"prompt is empty.*no end-of-text"):
        generate(model, endless, "", 8)
    with pytest.raises(ConfigError, match=r"at_start True needs an end-of-text"):
        generate(model, endless, "豆", 8, at_start=True)
    assert generate(model, endless, "豆", 8)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"stop": ["。", ""]}, "stop"),
    ],
)
def test_impossible_settings_are_named(
    model: LanguageModel, little: Little, options: dict[str, object], flag: str
) -> None:
    with pytest.raises(ConfigError, match=flag):
        generate(model, little.tokenizer, "豆", 4, Sampling(**options))  # type: ignore[arg-type]


def test_all_impossible_settings_are_named_at_once(model: LanguageModel, little: Little) -> None:
    with pytest.raises(ConfigError, match=r"temperature.*top_k.*min_p"):
        generate(model, little.tokenizer, "豆", 4, Sampling(temperature=-1.0, top_k=-1, min_p=2.0))
    with pytest.raises(ConfigError, match=r"max_new_tokens must be at least 1 \(got 0\)"):
        generate(model, little.tokenizer, "豆", 0)
