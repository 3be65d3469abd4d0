"""RMSNorm, rotation and SwiGLU in C++ equal the models' own, and so do the gradients of a whole model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from little import random_model
from native_helpers import SETS, threads
from torch import Tensor

from mamegpt.config import TrainConfig
from mamegpt.models.qwen3.modeling_qwen3 import rms_norm, rope_table, rotate, swiglu
from mamegpt.native.build import InstructionSet
from mamegpt.native.library import load
from mamegpt.native.pointwise import Pointwise
from mamegpt.system.hardware import cpp_compiler
from mamegpt.training.forward import SummedLoss

pytestmark = pytest.mark.skipif(cpp_compiler() is None, reason="no C++ compiler")
EPS = 1e-6


def results(function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of the inputs for a gradient that is another one everywhere."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(*inputs)
    gradient = torch.arange(out.numel()).cos().to(out.dtype).view(out.shape)
    return [out.detach(), *torch.autograd.grad(out, inputs, gradient)]


def assert_near(function: Callable[..., Tensor], reference: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    expected = results(reference, [x.double() for x in inputs])
    for n in (1, 3):
        with threads(n):
            found = results(function, inputs)
        for x, y in zip(found, expected, strict=True):
            assert x.dtype == torch.float32 and x.shape == y.shape
            assert (x.double() - y).norm() <= 2e-6 * (y.norm() + y.numel() ** 0.5)


@settings(deadline=None, max_examples=30)
@given(
    instructions=st.sampled_from(SETS),
    shape=st.sampled_from([(1,), (257,), (2, 300), (2, 3, 5)]),
    n=st.sampled_from([8, 16, 40, 128]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_rms_norm(instructions: InstructionSet, shape: tuple[int, ...], n: int, scale: float) -> None:
    random = torch.Generator().manual_seed(n)
    x, weight = scale * torch.randn(*shape, n, generator=random), torch.randn(n, generator=random)
    native = Pointwise(load(instructions))
    assert_near(lambda x, w: native.normalize(x, w, EPS), lambda x, w: rms_norm(x, w, EPS), [x, weight])


@settings(deadline=None, max_examples=30)
@given(
    instructions=st.sampled_from(SETS),
    B=st.integers(1, 3),
    H=st.integers(1, 3),
    T=st.sampled_from([1, 7, 70]),
    D=st.sampled_from([16, 48]),
    past=st.integers(0, 3),
)
def test_rotation(instructions: InstructionSet, B: int, H: int, T: int, D: int, past: int) -> None:
    x = torch.randn(B, T, H, D, generator=torch.Generator().manual_seed(T)).transpose(1, 2)
    rope = rope_table(80, D, 10_000.0)[:, past : past + T]
    native = Pointwise(load(instructions))
    assert_near(lambda x: native.rotate(x, rope), lambda x: rotate(x, rope.double()), [x])
    assert native.rotate(x, rope).is_contiguous()


@settings(deadline=None, max_examples=30)
@given(
    instructions=st.sampled_from(SETS),
    n=st.sampled_from([1, 7, 8, 9, 1000, 8192, 20_003]),
    scale=st.sampled_from([1.0, 30.0]),
)
def test_swiglu(instructions: InstructionSet, n: int, scale: float) -> None:
    gate, up = scale * torch.randn(2, n, generator=torch.Generator().manual_seed(n))
    native = Pointwise(load(instructions))
    assert_near(native.swiglu, swiglu, [gate, up])


@pytest.mark.parametrize("instructions", SETS)
def test_any_number_of_threads_gives_the_same_bits_and_nan_stays(instructions: InstructionSet) -> None:
    native = Pointwise(load(instructions))
    x, weight = torch.randn(1000, 48), torch.randn(48)
    x[3, 5] = torch.nan
    rope = rope_table(1000, 48, 10_000.0)
    for function, inputs in (
        (lambda x, w: native.normalize(x, w, EPS), [x, weight]),
        (lambda x: native.rotate(x, rope), [x[None, None]]),
        (native.swiglu, [x, x + 1]),
    ):
        found = []
        for n in (1, 2, 7):
            with threads(n):
                found.append(results(function, inputs))  # type: ignore[arg-type]
        for other in found[1:]:
            assert all(torch.equal(a.nan_to_num(9), b.nan_to_num(9)) for a, b in zip(found[0], other, strict=True))
        assert found[0][0].isnan().any() and found[0][0].isnan().sum() <= 48


def test_what_does_not_fit_is_refused_before_a_pointer_is_read() -> None:
    native = Pointwise(load())
    x = torch.randn(4, 16)
    for call in (
        lambda: native.normalize(x, torch.ones(8), EPS),
        lambda: native.normalize(x[:, :12], torch.ones(12), EPS),
        lambda: native.normalize(x.double(), torch.ones(16), EPS),
        lambda: native.rotate(x[None, None], rope_table(3, 16, 1e4)),
        lambda: native.rotate(x[None, None, :, :8], rope_table(4, 8, 1e4)),
        lambda: native.swiglu(x, x[:2]),
    ):
        with pytest.raises(ValueError, match=r"cannot|differ|float32"):
            call()


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("qwen3", {}),
        ("qwen3", {"n_kv_heads": 1, "tie_embeddings": True, "ffn_dim": 44}),
        ("llama", {}),
        ("llama", {"n_heads": 4}),
    ],
)
def test_loss_and_gradients_of_a_model(architecture: str, changes: dict[str, Any]) -> None:
    few: dict[str, Any] = {"context_length": 37, "emb_dim": 32, "n_layers": 2, "n_heads": 2, "drop_rate": 0.0}
    model = random_model(TrainConfig(**(few | changes)).model(101), architecture=architecture, spread=0.1).train()
    ids, targets = torch.randint(101, (2, 3, 37), generator=torch.Generator().manual_seed(0))

    def loss_and_gradients(forward: SummedLoss) -> list[Tensor]:
        loss = forward(ids, targets)
        return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]

    found = loss_and_gradients(SummedLoss(model, "fp32", native=load()))
    plain = SummedLoss(model, "fp32")
    assert not torch.equal(found[1], loss_and_gradients(plain)[1])  # another one computes
    model.double()
    for name, x, y in zip(["loss", *dict(model.named_parameters())], found, loss_and_gradients(plain), strict=True):
        assert (x.double() - y).norm() <= 1e-5 * y.norm(), name
