"""Muon by the library is as near to float64 as in PyTorch's bfloat16, on any number of threads."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_helpers import SETS_OF_BF16, threads
from torch import Tensor, nn

from mamegpt.native import muon
from mamegpt.native.build import InstructionSet
from mamegpt.native.library import Native, load
from mamegpt.native.muon import muon_step
from mamegpt.system.hardware import cpp_compiler
from mamegpt.training.muon import Muon

pytestmark = pytest.mark.skipif(cpp_compiler() is None, reason="no C++ compiler")
SHAPES = [(32, 32), (48, 32), (32, 48), (64, 33), (17, 100), (1, 5), (1, 1), (128, 344), (344, 128)]
LR = 0.5


def matrices(shapes: list[tuple[int, int]], scale: float = 1.0) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(3)
    found = [nn.Parameter(torch.randn(shape, generator=random) * 0.01) for shape in shapes]
    for one in found:
        one.grad = scale * torch.randn(one.shape, generator=random)
    return found


def copies(weights: list[nn.Parameter]) -> list[nn.Parameter]:
    found = copy.deepcopy(weights)
    for one, other in zip(found, weights, strict=True):
        one.grad = None if other.grad is None else other.grad.clone()
    return found


def after(
    weights: list[nn.Parameter], native: Native | None, dtype: torch.dtype = torch.bfloat16, n_steps: int = 2
) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and momenta after some steps, whose gradients shrink."""
    weights = copies(weights)
    optimizer = Muon(weights, lr=LR, weight_decay=0.1, compute_dtype=dtype, native=native)
    for _ in range(n_steps):
        optimizer.step()
        for one in weights:
            assert one.grad is not None
            one.grad *= 0.7
    return [one.detach() for one in weights], [optimizer.state[one]["momentum_buffer"] for one in weights]


@settings(deadline=None, max_examples=60)
@given(
    instructions=st.sampled_from(SETS_OF_BF16),
    rows=st.integers(1, 130),
    columns=st.integers(1, 130),
    scale=st.sampled_from([1e-12, 1e-3, 1.0, 1e6]),
)
def test_it_is_near_float64(instructions: InstructionSet, rows: int, columns: int, scale: float) -> None:
    weights = matrices([(rows, columns)], scale)
    in_float64 = [nn.Parameter(one.detach().double()) for one in weights]
    for one, other in zip(in_float64, weights, strict=True):
        assert other.grad is not None
        one.grad = other.grad.double()
    (exact,), (exact_momentum,) = after(in_float64, None, torch.float64)
    (pytorchs,), _ = after(weights, None)
    (ours,), (momentum,) = after(weights, load(instructions))
    torch.testing.assert_close(momentum.double(), exact_momentum, rtol=1e-5, atol=1e-6 * scale)
    error, its_error = ((one.double() - exact).norm() / exact.norm() for one in (ours, pytorchs))
    assert error <= 1.5 * its_error + 0.03  # of few numbers, those of one may be lucky


@pytest.mark.parametrize("instructions", SETS_OF_BF16)
def test_it_has_the_same_bits_on_any_number_of_threads(instructions: InstructionSet) -> None:
    native = load(instructions)
    found = []
    for n_threads in (1, 2, 3):
        with threads(n_threads):
            found.append([x for several in after(matrices(SHAPES), native) for x in several])
    for others in found[1:]:
        assert all(map(torch.equal, found[0], others))


def test_a_matrix_is_updated_as_alone() -> None:
    native = load()
    together = after(matrices(SHAPES), native)[0]
    for weight, expected in zip(matrices(SHAPES), together, strict=True):
        assert torch.equal(after([weight], native)[0][0], expected)


def test_a_gradient_of_zero_only_decays() -> None:
    ours, _ = after(matrices([(40, 33)], scale=0.0), load(), n_steps=1)
    torch.testing.assert_close(ours[0], matrices([(40, 33)])[0].detach() * (1 - LR * 0.1))


def test_what_the_library_cannot_update_pytorch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large matrices, matrices in pieces, those without a gradient, and all of a run in float32."""
    native = load()
    monkeypatch.setattr(muon, "LARGEST", 64 * 64)
    weights = matrices([(40, 40), (65, 40), (40, 40), (32, 32)])
    weights[2].data = torch.randn(40, 40).T
    weights[3].grad = None
    plain, ours = copies(weights), copies(weights)
    for one in (plain, ours):
        Muon(one, lr=LR, weight_decay=0.1, compute_dtype=torch.bfloat16, native=native if one is ours else None).step()
    assert [torch.equal(a, b) for a, b in zip(plain, ours, strict=True)] == [False, True, True, True]
    assert torch.equal(ours[3], weights[3])
    in_float32 = matrices(SHAPES)
    expected = after(in_float32, None, torch.float32)[0]
    assert all(map(torch.equal, after(in_float32, native, torch.float32)[0], expected))


def test_gradients_that_are_no_numbers_do_not_end_the_process() -> None:
    (found,), _ = after(matrices([(40, 33)], scale=float("nan")), load(), n_steps=1)
    assert found.isnan().all()


@pytest.mark.parametrize(
    "change",
    [lambda x: x.double(), lambda x: x.T, lambda x: x[:16], lambda x: x.flatten(), lambda x: x.to("meta")],
)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_other_tensors_are_refused(which: int, change: object) -> None:
    tensors = [torch.ones(32, 48) for _ in range(3)]
    tensors[which] = change(tensors[which])  # type: ignore[operator]
    group = Muon([nn.Parameter(torch.ones(2, 2))], lr=1, weight_decay=0, compute_dtype=torch.bfloat16).param_groups[0]
    with pytest.raises(ValueError, match="cannot be updated"):
        muon_step(load(), *([one] for one in tensors), group)
