"""Attention in C++ equals PyTorch's, for all shapes, with the same bits on any number of threads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from native_helpers import SETS, threads
from torch import Tensor

from mamegpt.config import TrainConfig
from mamegpt.models.base import LanguageModel
from mamegpt.models.registry import build_model
from mamegpt.native.build import InstructionSet
from mamegpt.native.library import Native, load
from mamegpt.system.hardware import cpp_compiler
from mamegpt.training.forward import SummedLoss

pytestmark = pytest.mark.skipif(cpp_compiler() is None, reason="no C++ compiler")


@pytest.fixture(params=SETS)
def native(request: pytest.FixtureRequest) -> Native:
    return load(request.param)


def example(B: int, H: int, K: int, T: int, D: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values and a gradient of the result."""
    random = torch.Generator().manual_seed(B + 10 * H + 100 * T + D)
    q, k, v, gradient = (torch.randn(B, heads, T, D, generator=random) for heads in (H, K, K, H))
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_(), gradient


def results(native: Native, q: Tensor, k: Tensor, v: Tensor, gradient: Tensor) -> list[Tensor]:
    out = native.attention(q, k, v)
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), gradient)]


def exact(q: Tensor, k: Tensor, v: Tensor, gradient: Tensor) -> list[Tensor]:
    q, k, v = (x.detach().double().requires_grad_() for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), gradient.double())]


@settings(deadline=None, max_examples=30)
@given(
    instructions=st.sampled_from(SETS),
    B=st.integers(1, 3),
    K=st.integers(1, 3),
    group=st.integers(1, 3),
    T=st.integers(1, 120),
    D=st.sampled_from([16, 32, 48, 64]),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    n_threads=st.integers(1, 2),
)
def test_it_equals_attention_in_float64(
    instructions: InstructionSet, B: int, K: int, group: int, T: int, D: int, scale: float, n_threads: int
) -> None:
    q, k, v, gradient = example(B, K * group, K, T, D)
    with torch.no_grad():
        q.mul_(scale)
    with threads(n_threads):
        found = results(load(instructions), q, k, v, gradient)
    for x, y in zip(found, exact(q, k, v, gradient), strict=True):
        assert (x.double() - y).norm() <= 2e-6 * max(1.0, scale) * (y.norm() + y.numel() ** 0.5)


def test_the_future_is_not_seen(native: Native) -> None:
    q, k, v, _ = example(1, 2, 1, 40, 16)
    before = native.attention(q, k, v)
    with torch.no_grad():
        for x in (q, k, v):
            x[:, :, 23:] = 1e3
    assert torch.equal(native.attention(q, k, v)[:, :, :23], before[:, :, :23])


def test_any_number_of_threads_gives_the_same_bits(native: Native) -> None:
    inputs = example(3, 4, 2, 77, 32)
    found = []
    for n in (1, 2, 3, 7):
        with threads(n):
            found.append(results(native, *inputs))
    assert all(torch.equal(x, y) for other in found[1:] for x, y in zip(found[0], other, strict=True))


def test_layouts_in_memory_do_not_matter(native: Native) -> None:
    q, k, v, gradient = example(2, 4, 2, 33, 16)
    turned = [x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in (q, k, v)]
    found = results(native, *turned, gradient.transpose(1, 2).contiguous().transpose(1, 2))
    assert all(torch.equal(x, y) for x, y in zip(found, results(native, q, k, v, gradient), strict=True))


@pytest.mark.parametrize(
    ("q", "k"),
    [
        (torch.zeros(1, 2, 5, 24), torch.zeros(1, 2, 5, 24)),  # no multiple of 16
        (torch.zeros(1, 3, 5, 16), torch.zeros(1, 2, 5, 16)),  # 3 heads over 2
        (torch.zeros(1, 2, 5, 16), torch.zeros(1, 2, 6, 16)),
        (torch.zeros(1, 2, 5, 16), torch.zeros(2, 2, 5, 16)),
        (torch.zeros(1, 2, 5, 16, dtype=torch.float64), torch.zeros(1, 2, 5, 16)),
        (torch.zeros(1, 2, 5, 16), torch.zeros(1, 2, 5, 16, device="meta")),
    ],
)
def test_what_it_cannot_compute_is_refused_before_memory_is_read(native: Native, q: Tensor, k: Tensor) -> None:
    with pytest.raises(ValueError):
        native.attention(q, k, k)


def model_of(architecture: str, **changes: int) -> LanguageModel:
    torch.manual_seed(0)
    sizes = TrainConfig(context_length=32, emb_dim=64, n_layers=2, n_heads=4, **changes).model(300)  # type: ignore[arg-type]
    model = build_model(architecture, sizes)
    with torch.no_grad():
        for parameter in model.parameters():  # also those that begin at zero
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("qwen3", {}),
        ("qwen3", {"n_kv_heads": 2}),
        ("llama", {"n_kv_heads": 1}),
        ("qwen3", {"head_dim": 8}),
    ],
)
def test_a_model_has_the_gradients_that_it_has_in_pytorch(
    architecture: str, changes: dict[str, int], native: Native
) -> None:
    ids = torch.randint(300, (2, 8, 32), generator=torch.Generator().manual_seed(1))
    model = model_of(architecture, **changes)
    found = {}
    for engine in (None, native, None):  # the last one computes as the first
        model.zero_grad()
        loss = SummedLoss(model, "fp32", native=engine)(*ids)
        loss.backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        if engine is None and found:
            assert all(torch.equal(gradients[name], found[None][name]) for name in gradients)
        found[engine] = gradients
    assert any(not torch.equal(x, y) for x, y in zip(found[None].values(), found[native].values(), strict=True))
    for name, expected in found[None].items():
        assert (found[native][name] - expected).norm() <= 1e-5 * expected.norm(), name
