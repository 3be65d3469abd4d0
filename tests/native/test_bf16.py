"""Head and blocks with products in bfloat16 are as near to float64 as PyTorch's, on any number of threads."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from little import random_model
from native_helpers import SETS_OF_BF16, threads
from torch import Tensor, nn

from mamegpt.config import TrainConfig
from mamegpt.models.dropout import FastDropout
from mamegpt.models.lora import add_adapters
from mamegpt.models.loss import linear_cross_entropy
from mamegpt.native.block import Blocks
from mamegpt.native.build import InstructionSet
from mamegpt.native.library import load
from mamegpt.system.hardware import cpp_compiler
from mamegpt.training.forward import SummedLoss, compute_with

pytestmark = pytest.mark.skipif(cpp_compiler() is None, reason="no C++ compiler")
BF16 = torch.bfloat16


# --- the head ---


def example(N: int, C: int, V: int, K: int, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    random = torch.Generator().manual_seed(N + 31 * C + 977 * V)
    hidden = torch.randn(N, C, generator=random).requires_grad_()
    weight = (scale * C**-0.5 * torch.randn(V, C, generator=random)).requires_grad_()
    targets = torch.randint(V, (N,), generator=random)
    return hidden, weight, targets, torch.randint(V, (N, K), generator=random) if K else None


def loss_and_gradients(
    inputs: tuple[Tensor, Tensor, Tensor, Tensor | None],
    share: float,
    instructions: InstructionSet | None,
    dtype: torch.dtype | None = BF16,
) -> list[Tensor]:
    hidden, weight, targets, soft = inputs
    native = None if instructions is None else load(instructions)
    loss = linear_cross_entropy(
        hidden, weight, targets, dtype, soft_targets=soft, true_share=share if soft is not None else 1.0, native=native
    )
    return [loss.detach(), *torch.autograd.grad(0.5 * loss, (hidden, weight))]


def exactly(inputs: tuple[Tensor, Tensor, Tensor, Tensor | None], share: float) -> list[Tensor]:
    hidden, weight = (x.detach().double().requires_grad_() for x in inputs[:2])
    return loss_and_gradients((hidden, weight, *inputs[2:]), share, None, None)


def distance(x: Tensor, y: Tensor, least: float = 1e-3) -> float:
    """|x - y| by |y|, where each number counts as ``least`` at least."""
    return float((x.double() - y).norm() / (y.double().norm() + least * y.numel() ** 0.5))


@settings(deadline=None, max_examples=60)
@given(
    instructions=st.sampled_from(SETS_OF_BF16),
    N=st.integers(1, 300),
    C=st.sampled_from([32, 64, 96, 160]),
    V=st.integers(1, 700),
    K=st.integers(0, 5),
    share=st.sampled_from([0.0, 0.1, 1.0]),
    n_threads=st.integers(1, 2),
)
def test_the_head_is_near_float64(
    instructions: InstructionSet, N: int, C: int, V: int, K: int, share: float, n_threads: int
) -> None:
    inputs = example(N, C, V, K)
    with threads(n_threads):
        found = loss_and_gradients(inputs, share, instructions)
    assert [x.dtype for x in found] == [torch.float32] * 3
    loss, of_hidden, of_weight = exactly(inputs, share)
    assert abs(found[0] - loss) <= 0.01 * N**0.5 + 1e-3 * N
    # E, less its targets, is rounded once for each of them, by 2^-9 of what it was.
    assert distance(found[1], of_hidden, 0.1 * C**-0.5) <= 0.01 and distance(found[2], of_weight, 0.1 + 0.5 * K) <= 0.01
    if V == 1 and K == 0:
        assert found[1].abs().max() < 1e-6 and found[2].abs().max() < 1e-6


@pytest.mark.parametrize("instructions", SETS_OF_BF16)
def test_the_head_has_the_same_bits_on_any_number_of_threads(instructions: InstructionSet) -> None:
    inputs = example(1001, 64, 333, 4)
    found = []
    for n in (1, 2, 3, 7):
        with threads(n):
            found.append(loss_and_gradients(inputs, 0.3, instructions))
    assert all(torch.equal(x, y) for other in found[1:] for x, y in zip(found[0], other, strict=True))
    portable = loss_and_gradients(inputs, 0.3, "portable")
    assert all(distance(x, y) <= 1e-3 for x, y in zip(found[0], portable, strict=True))


@pytest.mark.parametrize("instructions", SETS_OF_BF16)
@pytest.mark.parametrize("scale", [3e1, -3e1, 1e4])
def test_logits_that_float32_cannot_take_the_exponential_of(instructions: InstructionSet, scale: float) -> None:
    inputs = example(50, 32, 90, 0)
    with torch.no_grad():
        inputs[1].abs_().mul_(scale)
        inputs[0][::2] = inputs[0][::2].abs()  # these rows have logits far from zero, all on one side
        for x in inputs[:2]:
            x.copy_(x.to(BF16))
    found, expected = loss_and_gradients(inputs, 1.0, instructions), exactly(inputs, 1.0)
    assert all(torch.isfinite(x).all() for x in found)
    assert abs(found[0] - expected[0]) <= 1e-5 * abs(expected[0]) + 0.1
    assert all(distance(x, y) <= 0.02 for x, y in zip(found[1:], expected[1:], strict=True))


@pytest.mark.parametrize("instructions", SETS_OF_BF16)
def test_no_gradients_no_positions_and_no_numbers(instructions: InstructionSet) -> None:
    inputs = example(300, 32, 200, 0)
    loss, *_ = loss_and_gradients(inputs, 1.0, instructions)
    with torch.no_grad():
        assert torch.equal(linear_cross_entropy(*inputs[:3], BF16, native=load(instructions)), loss)
    loss, _, of_weight = loss_and_gradients(example(0, 32, 40, 0), 1.0, instructions)
    assert loss == 0 and of_weight.eq(0).all()
    with torch.no_grad():
        inputs[0][3, 5] = float("nan")
    loss, of_hidden, of_weight = loss_and_gradients(inputs, 1.0, instructions)
    assert loss.isnan() and of_hidden[3].isnan().all() and of_weight.isnan().any() and of_hidden[4].isfinite().all()
    with pytest.raises(ValueError, match="multiple of 32"):
        loss_and_gradients(example(3, 48, 40, 0), 1.0, instructions)


# --- blocks ---

SHAPES: list[tuple[str, dict[str, Any]]] = [
    ("qwen3", {}),
    ("qwen3", {"n_kv_heads": 1, "ffn_dim": 44, "context_length": 33}),
    ("qwen3", {"n_heads": 4, "n_kv_heads": 2, "head_dim": 32, "context_length": 32}),
    ("qwen3", {"n_heads": 1, "head_dim": 96, "context_length": 1}),
    ("llama", {"context_length": 100}),
    ("llama", {"n_kv_heads": 1, "context_length": 70}),
]


def block_of(architecture: str, changes: dict[str, Any]) -> tuple[Any, Tensor]:
    """A block with random weights, and the angles of its rotations."""
    few = {"context_length": 37, "emb_dim": 64, "n_layers": 1, "n_heads": 2, "drop_rate": 0.0}
    model: Any = random_model(TrainConfig(**(few | changes)).model(11), architecture=architecture, spread=0.125)
    return model.train().model.layers[0], model.model.rope


def inputs_of(block: Any, rope: Tensor, B: int) -> tuple[Tensor, Tensor]:
    """An input of B windows, and a gradient of the output."""
    shape = (B, rope.shape[1], block.input_layernorm.weight.shape[0])
    random = torch.Generator().manual_seed(B)
    return torch.randn(shape, generator=random).requires_grad_(), torch.randn(shape, generator=random)


def computed(block: Any, rope: Tensor, x: Tensor, d_out: Tensor, instructions: InstructionSet | None) -> list[Tensor]:
    """What a block adds to x, and all gradients: by the engine, or in the numbers that x has."""
    out = Blocks(load(instructions)).compute(block, x, rope) if instructions else block(x, rope, None, None)
    return [(out - x).detach(), *torch.autograd.grad(out, [x, *block.parameters()], d_out)]


@pytest.mark.parametrize("instructions", SETS_OF_BF16)
@pytest.mark.parametrize(("architecture", "changes"), SHAPES)
def test_a_block_is_as_near_to_float64_as_pytorch(
    architecture: str, changes: dict[str, Any], instructions: InstructionSet
) -> None:
    block, rope = block_of(architecture, changes)
    x, d_out = inputs_of(block, rope, 3)
    assert Blocks.fits(block)
    found = computed(block, rope, x, d_out, instructions)
    with torch.autocast("cpu", BF16):
        of_pytorch = computed(block, rope, x, d_out, None)
    exact = computed(
        copy.deepcopy(block).double(), rope.double(), x.detach().double().requires_grad_(), d_out.double(), None
    )
    names = ["out", "x", *dict(block.named_parameters())]
    for name, a, b, y in zip(names, found, of_pytorch, exact, strict=True):
        assert a.dtype == torch.float32 and a.shape == y.shape
        assert distance(a, y) <= 1.2 * distance(b, y) + 1e-4, name
        assert distance(a, y) <= 0.02, name


@pytest.mark.parametrize("instructions", SETS_OF_BF16)
def test_a_block_has_the_same_bits_on_any_number_of_threads(instructions: InstructionSet) -> None:
    block, rope = block_of("qwen3", {"n_kv_heads": 1, "ffn_dim": 44})
    x, d_out = inputs_of(block, rope, 5)
    found = []
    for n in (1, 2, 3, 7):
        with threads(n):
            found.append(computed(block, rope, x, d_out, instructions))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
    for a, b in zip(found[0], computed(block, rope, x, d_out, "portable"), strict=True):
        assert distance(a, b) <= 3e-3


@pytest.mark.parametrize("instructions", SETS_OF_BF16)
def test_a_position_depends_on_those_before_it_and_on_no_other_window(instructions: InstructionSet) -> None:
    block, rope = block_of("llama", {"context_length": 70})
    x, d_out = inputs_of(block, rope, 3)
    out, dx, *_ = computed(block, rope, x, d_out, instructions)
    alone = computed(block, rope, x.detach()[1:2].requires_grad_(), d_out[1:2], instructions)
    assert torch.equal(alone[0], out[1:2]) and torch.equal(alone[1], dx[1:2])
    changed = x.detach().clone()
    changed[1, 40] = float("nan")
    other = computed(block, rope, changed.requires_grad_(), d_out, instructions)[0]
    assert torch.equal(other[[0, 2]], out[[0, 2]]) and other[1, 40:].isnan().all()
    changed = x.detach().clone()
    changed[:, 40:] *= 3
    other = computed(block, rope, changed.requires_grad_(), d_out, instructions)[0]
    assert torch.equal(other[:, :40], out[:, :40]) and not torch.equal(other[:, 40:], out[:, 40:])


@pytest.fixture
def filled_memory() -> Iterator[None]:
    """Let memory that nobody has written to contain what is no number."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("instructions", SETS_OF_BF16)
@pytest.mark.parametrize("B", [0, 3])
def test_nothing_is_read_before_it_is_written(B: int, instructions: InstructionSet, filled_memory: None) -> None:
    block, rope = block_of("qwen3", {"ffn_dim": 44})
    found = computed(block, rope, *inputs_of(block, rope, B), instructions)
    assert all(one.isfinite().all() for one in found)
    assert B > 0 or all(one.eq(0).all() for one in found)


@pytest.mark.parametrize("instructions", SETS_OF_BF16)
def test_scores_of_any_size_have_a_softmax(instructions: InstructionSet) -> None:
    block, rope = block_of("llama", {"context_length": 40})
    with torch.no_grad():
        block.self_attn.q_proj.weight.mul_(1e3)
    x, d_out = inputs_of(block, rope, 1)
    assert all(one.isfinite().all() for one in computed(block, rope, x, d_out, instructions))


def test_a_second_derivative_is_refused() -> None:
    block, rope = block_of("qwen3", {})
    x, _ = inputs_of(block, rope, 1)
    (first,) = torch.autograd.grad(Blocks(load()).compute(block, x, rope).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_other_blocks_are_left_to_pytorch() -> None:
    block, rope = block_of("qwen3", {})
    x, _ = inputs_of(block, rope, 1)
    for changes in ({"emb_dim": 48}, {"head_dim": 48}, {"drop_rate": 0.1}):
        assert not Blocks.fits(block_of("qwen3", changes)[0])
    for dropout in (nn.Dropout(0.1), FastDropout(0.1)):
        block.dropout = dropout
        assert not Blocks.fits(block)
    few: dict[str, Any] = {"context_length": 37, "emb_dim": 64, "n_layers": 1, "n_heads": 2, "drop_rate": 0.0}
    for architecture, has_adapters in (("custom-gpt", False), ("qwen3", True)):
        model: Any = random_model(TrainConfig(**few).model(11), architecture=architecture)
        if has_adapters:
            add_adapters(model, 2)
        compute_with(load(), model, BF16)
        assert not any("native" in module.__dict__ for module in model.modules())
    compute = Blocks(load()).compute
    for wrong in (
        lambda: compute(block, x.double(), rope),
        lambda: compute(block, x[:, :36], rope),
        lambda: compute(block, x, rope[:, :, :8]),
        lambda: compute(copy.deepcopy(block).double(), x, rope),
        lambda: compute(block_of("qwen3", {"emb_dim": 32, "head_dim": 16})[0], x[..., :32].contiguous(), rope[..., :8]),
    ):
        with pytest.raises(ValueError, match=r"block with heads|float32|is not computed"):
            wrong()


@pytest.mark.parametrize(("architecture", "changes"), [*SHAPES[:2], ("llama", {}), ("custom-gpt", {})])
def test_loss_and_gradients_of_a_model(architecture: str, changes: dict[str, Any]) -> None:
    few: dict[str, Any] = {"context_length": 37, "emb_dim": 64, "n_layers": 2, "n_heads": 2, "drop_rate": 0.0}
    sizes = TrainConfig(**(few | changes)).model(101)
    model = random_model(sizes, architecture=architecture, spread=0.125).train()
    ids, targets = torch.randint(101, (2, 3, sizes.context_length), generator=torch.Generator().manual_seed(0))

    def results(forward: SummedLoss) -> list[Tensor]:
        loss = forward(ids, targets)
        return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]

    found, of_pytorch = results(SummedLoss(model, "bf16", native=load())), results(SummedLoss(model, "bf16"))
    assert not torch.equal(found[-1], of_pytorch[-1])  # another one computes
    model.double()
    names = ["loss", *dict(model.named_parameters())]
    for name, x, y, exact in zip(names, found, of_pytorch, results(SummedLoss(model, "fp32")), strict=True):
        assert distance(x, exact) <= 1.3 * distance(y, exact) + 1e-3, name
