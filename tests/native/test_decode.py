"""The decoding step and the head for one position in C++ equal the models, with the same bits on any threads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from architectures import EVERY
from hypothesis import given, settings
from hypothesis import strategies as st
from little import random_model
from native_helpers import SETS, threads
from torch import Tensor

from mamegpt.config import ModelConfig, TrainConfig
from mamegpt.generation import fast_decode
from mamegpt.generation.fast_decode import DecodeStep, Head, native_for
from mamegpt.generation.settings import Sampling
from mamegpt.generation.stream import stream_ids
from mamegpt.models.base import LanguageModel
from mamegpt.models.registry import ARCHITECTURES, architecture_of
from mamegpt.native import library
from mamegpt.native.build import InstructionSet
from mamegpt.native.decode import NativeHead, NativeStep
from mamegpt.native.library import Native, load
from mamegpt.system.hardware import cpp_compiler

pytestmark = pytest.mark.skipif(cpp_compiler() is None, reason="no C++ compiler")
CONTEXT = 37
VOCAB = 101


@pytest.fixture(params=SETS)
def native(request: pytest.FixtureRequest) -> Native:
    return load(request.param)


def model_of(architecture: str, **changes: Any) -> LanguageModel:
    few: dict[str, Any] = {"context_length": CONTEXT, "emb_dim": 32, "n_layers": 2, "n_heads": 2, "drop_rate": 0.0}
    sizes: ModelConfig = TrainConfig(**(few | changes)).model(VOCAB)
    return random_model(sizes, architecture=architecture)


def ids_of(n: int) -> list[int]:
    found: list[int] = torch.randint(VOCAB, (n,), generator=torch.Generator().manual_seed(n)).tolist()
    return found


@torch.inference_mode()
def states(model: LanguageModel, ids: list[int], n_prompt: int, native: Native) -> Tensor:
    """Hidden states (T, C) from the last position of the prompt, by the native step."""
    step = DecodeStep(model, native)
    return torch.stack([step.prompt(ids[:n_prompt]), *map(step.hidden, ids[n_prompt:])])


@settings(deadline=None, max_examples=40)
@given(
    instructions=st.sampled_from(SETS),
    architecture=st.sampled_from(list(ARCHITECTURES)),
    heads=st.sampled_from([(1, 1), (2, 1), (4, 2), (3, 3)]),
    width=st.sampled_from([16, 48]),
    ffn_dim=st.sampled_from([8, 24, 40, 176]),
    n_prompt=st.integers(1, CONTEXT),
    bias=st.booleans(),
)
def test_a_step_equals_the_model_in_float64(
    instructions: InstructionSet,
    architecture: str,
    heads: tuple[int, int],
    width: int,
    ffn_dim: int,
    n_prompt: int,
    bias: bool,
) -> None:
    only = {"qkv_bias": bias} if architecture == "custom-gpt" else {"n_kv_heads": heads[1], "ffn_dim": ffn_dim}
    model = model_of(architecture, emb_dim=heads[0] * width, n_heads=heads[0], **only)
    ids = ids_of(CONTEXT)
    found = states(model, ids, n_prompt, load(instructions))
    with torch.inference_mode():
        expected = model.double().hidden(torch.tensor([ids]))[0, n_prompt - 1 :]
    assert (found.double() - expected).norm() <= 1e-5 * expected.norm()


@EVERY
def test_any_number_of_threads_gives_the_same_bits(
    architecture: str, native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = model_of(architecture), ids_of(CONTEXT)
    monkeypatch.setattr(fast_decode, "MAX_PARAMETERS", 0)
    found = []
    for n in (1, 2, 3, 7):
        with threads(n), torch.inference_mode():
            hidden = states(model, ids, 1, native)
            head = Head(model.out_head.weight, native)
            found.append([hidden, *(head.logits(state) for state in hidden)])
            found[-1].append(torch.tensor([head.most_likely(state) for state in hidden]))
    assert all(torch.equal(x, y) for other in found[1:] for x, y in zip(found[0], other, strict=True))


@EVERY
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, repetition_penalty=1.2, seed=3)])
def test_a_text_is_that_of_the_model_also_past_its_context(
    architecture: str, sampling: Sampling, native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(architecture)
    found = {}
    for engine in (native, None):
        monkeypatch.setattr(fast_decode, "load_if_built", lambda engine=engine: engine)
        assert native_for(model) is engine
        found[engine] = list(stream_ids(model, [5, 6, 7], 2 * CONTEXT, sampling))
    assert found[native] == found[None] and len(set(found[None])) > 3


@torch.inference_mode()
@pytest.mark.parametrize(("V", "C"), [(1, 16), (1000, 48), (1025, 128), (4096, 64)])
def test_the_most_likely_id_is_that_of_all_logits(V: int, C: int, native: Native) -> None:
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        weight, state = torch.randn(V, C, generator=generator), torch.randn(C, generator=generator)
        if seed % 3 == 1:  # one number that leaves few bits to the others
            weight[seed % V, seed % C] = 50.0
        if seed % 3 == 2:
            state[seed % C] = -300.0
        if seed % 4 == 3:  # all but equal, so that roundings would decide
            weight = weight[:1] + 1e-4 * weight
        head, logits = Head(weight, native), weight.double() @ state.double()
        tolerance = 1e-5 * logits.abs().max()
        assert (head.logits(state) - logits).abs().max() <= tolerance
        assert logits[head.most_likely(state)] >= logits.max() - tolerance


@torch.inference_mode()
def test_of_equal_logits_the_first_is_the_most_likely(native: Native) -> None:
    weight = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    weight[[7, 20, 49]] = 3 * torch.ones(16)
    assert Head(weight, native).most_likely(torch.ones(16)) == 7
    assert Head(torch.zeros(50, 16), native).most_likely(torch.ones(16)) == 0


@torch.inference_mode()
def test_whole_numbers_are_rounded_and_multiplied_exactly(native: Native) -> None:
    weight = torch.randn(300, 48, generator=torch.Generator().manual_seed(0))
    head, largest = NativeHead(native, weight, 1), weight.abs().max()
    rounded, largest_row = head.rounded(largest.item())
    assert (rounded - weight * (127 / largest)).abs().max() <= 0.501 and largest_row == rounded.int().abs().sum(1).max()
    x = torch.randint(-127, 128, (48,), dtype=torch.int16, generator=torch.Generator().manual_seed(1))
    product = (rounded.long() * x.long()).sum(1)
    assert head.most_likely(weight[int(product.argmax())], rounded, x, 0) == product.argmax()


def test_what_does_not_fit_is_refused_before_a_pointer_is_read(native: Native) -> None:
    model = model_of("qwen3")
    weights = architecture_of(model).step_weights(model)  # type: ignore[union-attr]
    block = weights.blocks[0]
    for wrong in (
        weights._replace(embedding=weights.embedding.double()),
        weights._replace(embedding=torch.empty(32, VOCAB).t()),
        weights._replace(rope=weights.rope[:, :3]),  # type: ignore[index]
        weights._replace(last=weights.last._replace(scale=torch.ones(3))),
        weights._replace(blocks=[block._replace(down=block.up), weights.blocks[1]]),
    ):
        with pytest.raises(ValueError, match="float32"):
            NativeStep(native, wrong, 1)
    step = NativeStep(native, weights, 1)
    for token, position in ((VOCAB, 0), (-1, 0), (0, CONTEXT), (0, -1)):
        with pytest.raises(IndexError, match="position"):
            step(token, position)
    for weight, message in ((torch.randn(9, 8), "multiple of 16"), (torch.randn(9, 16).double(), "float32")):
        with pytest.raises(ValueError, match=message):
            NativeHead(native, weight, 1)


def test_sizes_that_it_does_not_know_are_computed_in_pytorch(native: Native, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_decode, "load_if_built", lambda: native)
    assert native_for(model_of("qwen3")) is native
    assert native_for(model_of("qwen3", n_heads=4)) is None  # heads of 8
    assert native_for(model_of("custom-gpt").double()) is None


def test_nothing_is_compiled_for_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "is_built", lambda _path: False)
    monkeypatch.setattr(library, "build", lambda *_: pytest.fail("compiled"))
    library._loaded_if_built.cache_clear()
    assert library.load_if_built() is None
