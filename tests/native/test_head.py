"""The head in C++ equals PyTorch's, for all shapes, with the same bits on any number of threads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_helpers import SETS, threads
from torch import Tensor

from mamegpt.models.loss import linear_cross_entropy
from mamegpt.native import library
from mamegpt.native.build import InstructionSet, build
from mamegpt.native.library import Native, load
from mamegpt.system.hardware import cpp_compiler

pytestmark = pytest.mark.skipif(cpp_compiler() is None, reason="no C++ compiler")


@pytest.fixture(params=SETS)
def native(request: pytest.FixtureRequest) -> Native:
    return load(request.param)


def example(N: int, C: int, V: int, K: int, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    random = torch.Generator().manual_seed(N + 31 * C + 977 * V)
    hidden = torch.randn(N, C, generator=random).requires_grad_()
    weight = (scale * torch.randn(V, C, generator=random)).requires_grad_()
    targets = torch.randint(V, (N,), generator=random)
    return hidden, weight, targets, torch.randint(V, (N, K), generator=random) if K else None


def loss_and_gradients(
    hidden: Tensor, weight: Tensor, targets: Tensor, soft: Tensor | None, share: float, native: Native | None
) -> list[Tensor]:
    options = {"soft_targets": soft, "true_share": share, "native": native}
    loss = linear_cross_entropy(hidden, weight, targets, **options)  # type: ignore[arg-type]
    return [loss.detach(), *torch.autograd.grad(0.5 * loss, (hidden, weight))]


def near(found: list[Tensor], exact: list[Tensor], N: int) -> bool:
    """Whether a loss of N positions and its gradients are as near to those in float64 as float32 allows.

    Each loss to 1e-6 of itself or of 1, and gradients to 1e-6 of their norm or of what one number has on average.
    """
    sizes = [N, *(gradient.numel() ** 0.5 for gradient in exact[1:])]
    return all((x.double() - y).norm() <= 1e-6 * (y.norm() + n) for x, y, n in zip(found, exact, sizes, strict=True))


@settings(deadline=None, max_examples=60)
@given(
    instructions=st.sampled_from(SETS),
    N=st.integers(1, 400),
    C=st.sampled_from([16, 32, 48, 80, 128]),
    V=st.integers(1, 700),
    K=st.integers(0, 5),
    share=st.sampled_from([0.0, 0.1, 1.0]),
    n_threads=st.integers(1, 2),
)
def test_loss_and_gradients_equal_those_in_float64(
    instructions: InstructionSet, N: int, C: int, V: int, K: int, share: float, n_threads: int
) -> None:
    hidden, weight, targets, soft = example(N, C, V, K, scale=C**-0.5)
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    expected = loss_and_gradients(*exact, targets, soft, share if K else 1.0, None)
    with threads(n_threads):
        found = loss_and_gradients(hidden, weight, targets, soft, share if K else 1.0, load(instructions))
    assert [x.dtype for x in found] == [torch.float32] * 3
    assert near(found, expected, N)


def test_any_number_of_threads_gives_the_same_bits(native: Native) -> None:
    inputs = example(1001, 48, 333, 4)
    found = []
    for n in (1, 2, 3, 7):
        with threads(n):
            found.append(loss_and_gradients(*inputs, 0.3, native))
    assert all(torch.equal(x, y) for other in found[1:] for x, y in zip(found[0], other, strict=True))


@pytest.mark.parametrize("scale", [3e1, -3e1, 1e4])
def test_logits_that_float32_cannot_take_the_exponential_of_are_computed_nevertheless(
    native: Native, scale: float
) -> None:
    hidden, weight, targets, _ = example(50, 16, 90, 0)
    with torch.no_grad():
        weight.abs_().mul_(scale)
        hidden[::2] = hidden[::2].abs()  # these rows have logits far from zero, all on one side
    expected = loss_and_gradients(
        *(x.detach().double().requires_grad_() for x in (hidden, weight)), targets, None, 1.0, None
    )
    found = loss_and_gradients(hidden, weight, targets, None, 1.0, native)
    assert all(torch.isfinite(x).all() for x in found)
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x.double(), y.double(), rtol=1e-4, atol=1e-5 * y.abs().max().item())


def test_what_is_not_a_number_is_not_hidden(native: Native) -> None:
    hidden, weight, targets, _ = example(20, 16, 40, 0)
    with torch.no_grad():
        hidden[3, 5] = float("nan")
    loss, grad_hidden, grad_weight = loss_and_gradients(hidden, weight, targets, None, 1.0, native)
    assert loss.isnan() and grad_hidden[3].isnan().all() and grad_weight.isnan().any()
    assert not grad_hidden[4].isnan().any()


def test_a_loss_without_gradients_is_the_same(native: Native) -> None:
    hidden, weight, targets, _ = example(300, 32, 200, 0)
    expected = linear_cross_entropy(hidden, weight, targets, native=native)
    with torch.no_grad():
        assert torch.equal(linear_cross_entropy(hidden, weight, targets, native=native), expected)


def test_no_positions_are_no_loss(native: Native) -> None:
    hidden, weight, targets, _ = example(0, 16, 40, 0)
    loss, _, grad_weight = loss_and_gradients(hidden, weight, targets, None, 1.0, native)
    assert loss == 0 and grad_weight.eq(0).all()


def test_layouts_in_memory_do_not_matter(native: Native) -> None:
    hidden, weight, targets, soft = example(40, 32, 70, 3)
    expected = loss_and_gradients(hidden, weight, targets, soft, 0.2, native)
    assert soft is not None
    turned = [x.detach().T.contiguous().T.requires_grad_() for x in (hidden, weight)]
    found = loss_and_gradients(*turned, targets.repeat_interleave(2)[::2], soft.T.contiguous().T, 0.2, native)
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"hidden": torch.zeros(4, 24)}, ValueError),
        ({"weight": torch.zeros(9, 16, dtype=torch.bfloat16)}, ValueError),
        ({"weight": torch.zeros(0, 16)}, ValueError),
        ({"targets": torch.zeros(4, dtype=torch.int32)}, ValueError),
        ({"targets": torch.zeros(3, dtype=torch.int64)}, ValueError),
        ({"soft_targets": torch.zeros(3, 2, dtype=torch.int64)}, ValueError),
        ({"targets": torch.tensor([0, 1, 9, 2])}, IndexError),
        ({"targets": torch.tensor([0, 1, -100, 2])}, IndexError),
        ({"soft_targets": torch.tensor([[1], [9], [0], [0]])}, IndexError),
    ],
)
def test_what_it_cannot_compute_is_refused_before_memory_is_read(
    native: Native, change: dict[str, Tensor], error: type[Exception]
) -> None:
    inputs = {
        "hidden": torch.zeros(4, 16),
        "weight": torch.zeros(9, 16),
        "targets": torch.zeros(4, dtype=torch.int64),
        "soft_targets": None,
        "true_share": 0.5,
        "needs_gradient": True,
    }
    native.head(**inputs)  # type: ignore[arg-type]
    with pytest.raises(error):
        native.head(**(inputs | change))  # type: ignore[arg-type]


def test_threads_of_its_own_give_the_same_bits_as_those_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = example(300, 32, 200, 2)
    with threads(2):
        expected = loss_and_gradients(*inputs, 0.3, load("portable"))
        with monkeypatch.context() as patch:
            patch.setattr(library, "_threads_of_pytorch", lambda: (None, None))
            found = loss_and_gradients(*inputs, 0.3, Native(build("portable"), "portable"))
        Native(build("portable"), "portable")  # those of PyTorch again
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))
