"""The fused head and loss equal the plain ones, in value and gradients, one chunk of logits at a time."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mamegpt.models import loss as loss_module
from mamegpt.models.loss import linear_cross_entropy


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy((hidden @ weight.T).flatten(0, -2), targets.flatten(), reduction="sum")


def example(n: int, width: int, vocab: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, width, generator=random).requires_grad_()
    weight = torch.randn(vocab, width, generator=random).requires_grad_()
    return hidden, weight, torch.randint(0, vocab, (n,), generator=random)


class Largest(TorchDispatchMode):
    """Remembers the most elements any tensor had that an operation made."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_)
        return function(*args, **(kwargs or {}))


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 40),
    width=st.integers(1, 9),
    vocab=st.integers(1, 70),
    chunk=st.integers(1, 45),
    scale=st.sampled_from([1.0, -2.5, 0.125]),
)
def test_value_and_gradients_equal_plain_cross_entropy(
    n: int, width: int, vocab: int, chunk: int, scale: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_module, "chunk_tokens", lambda *_: chunk)
        hidden, weight, targets = example(n, width, vocab, seed=n)
        expected = plain(hidden, weight, targets)
        expected_gradients = torch.autograd.grad(expected * scale, (hidden, weight))
        got = linear_cross_entropy(hidden, weight, targets)
        gradients = torch.autograd.grad(got * scale, (hidden, weight))
    assert got.shape == () and got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-4)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=2e-4, atol=2e-5)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 40), k=st.integers(1, 7), chunk=st.integers(1, 45), share=st.sampled_from([0.0, 0.1, 0.7, 1.0]))
def test_soft_targets_have_the_gradients_of_their_own_loss_and_the_value_of_the_true_one(
    n: int, k: int, chunk: int, share: float
) -> None:
    hidden, weight, targets = example(n, 5, 30, seed=n)
    soft = torch.randint(0, 30, (n, k), generator=torch.Generator().manual_seed(k))
    distribution = share * F.one_hot(targets, 30) + (1 - share) * F.one_hot(soft, 30).float().mean(1)
    expected = F.cross_entropy(hidden @ weight.T, distribution, reduction="sum")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_module, "chunk_tokens", lambda *_: chunk)
        got = linear_cross_entropy(hidden, weight, targets, soft_targets=soft, true_share=share)
        gradients = torch.autograd.grad(got, (hidden, weight))
    torch.testing.assert_close(got, plain(hidden, weight, targets), rtol=2e-5, atol=2e-4)
    for gradient, other in zip(gradients, torch.autograd.grad(expected, (hidden, weight)), strict=True):
        torch.testing.assert_close(gradient, other, rtol=2e-4, atol=2e-5)


def test_soft_targets_in_bfloat16_are_as_near_as_the_true_ones() -> None:
    hidden, weight, targets = example(64, 16, 300)
    soft = torch.randint(0, 40, (64, 16), generator=torch.Generator().manual_seed(1)) % 5  # many of a kind
    options = {"soft_targets": soft, "true_share": 0.1}
    exact = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets, **options), (hidden, weight))
    rounded = linear_cross_entropy(hidden, weight, targets, torch.bfloat16, **options)
    for found, gradient in zip(torch.autograd.grad(rounded, (hidden, weight)), exact, strict=True):
        assert (found - gradient).norm() < 0.02 * gradient.norm()


@pytest.mark.parametrize("n", [15, 16, 17, 31, 32, 33])
def test_the_edges_of_chunks_count_every_target_once(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "chunk_tokens", lambda *_: 16)
    hidden, weight, targets = example(n, 8, 50)
    zeros = torch.zeros_like(hidden)  # all pieces equally likely: each target costs exactly log 50
    total = linear_cross_entropy(zeros, weight, targets).item()
    assert total == pytest.approx(n * torch.tensor(50.0).log().item(), rel=1e-6)


def test_batches_of_windows_are_summed_like_flat_ones() -> None:
    hidden, weight, targets = example(12, 8, 50)
    flat = linear_cross_entropy(hidden, weight, targets)
    assert torch.equal(linear_cross_entropy(hidden.view(3, 4, 8), weight, targets.view(3, 4)), flat)
    gradient = torch.autograd.grad(linear_cross_entropy(hidden.view(3, 4, 8), weight, targets.view(3, 4)), hidden)[0]
    assert gradient.shape == hidden.shape


def test_without_gradients_the_value_is_the_same() -> None:
    hidden, weight, targets = example(20, 8, 50)
    expected = linear_cross_entropy(hidden, weight, targets)
    with torch.no_grad():
        got = linear_cross_entropy(hidden, weight, targets)
    with torch.inference_mode():
        inferred = linear_cross_entropy(hidden.detach(), weight.detach(), targets)
    assert not got.requires_grad
    torch.testing.assert_close(got, expected.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(inferred, expected.detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("training", "products"), [(True, 3), (False, 1)])
def test_no_product_is_taken_for_a_gradient_that_nobody_asked_for(training: bool, products: int) -> None:
    hidden, weight, targets = example(20, 8, 50)
    with torch.set_grad_enabled(training), Products() as taken:
        linear_cross_entropy(hidden, weight, targets)
    assert taken.count == products


@pytest.mark.parametrize("needed", ["hidden", "weight"])
def test_one_gradient_alone_is_the_same_as_with_the_other(needed: str) -> None:
    hidden, weight, targets = example(20, 8, 50)
    wanted = {"hidden": hidden, "weight": weight}[needed]
    expected = torch.autograd.grad(plain(hidden, weight, targets), wanted)[0]
    (weight if needed == "hidden" else hidden).requires_grad_(False)
    got = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets), wanted)[0]
    torch.testing.assert_close(got, expected, rtol=2e-4, atol=2e-5)


def test_extreme_logits_stay_finite() -> None:
    hidden, weight, targets = example(6, 4, 10)
    hidden = (hidden.detach() * 1e4).requires_grad_()
    got, expected = linear_cross_entropy(hidden, weight, targets), plain(hidden, weight, targets)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=0)
    assert torch.isfinite(torch.autograd.grad(got, hidden)[0]).all()


@pytest.mark.parametrize("training", [True, False])
def test_all_logits_are_never_there_at_once(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    n, width, vocab, chunk = 512, 4, 3000, 16
    monkeypatch.setattr(loss_module, "chunk_tokens", lambda *_: chunk)
    hidden, weight, targets = example(n, width, vocab)
    with torch.set_grad_enabled(training), Largest() as seen:
        loss = linear_cross_entropy(hidden, weight, targets)
        if training:
            loss.backward()
    assert 0 < seen.elements <= chunk * vocab
    with Largest() as all_at_once:
        plain(hidden, weight, targets)
    assert all_at_once.elements >= n * vocab  # the watch sees what it is there to see
