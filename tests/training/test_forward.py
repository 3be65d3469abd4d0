"""Number formats agree within what they can, and blocks that are run again give the same gradients."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from training_helpers import final_weights, finish, tiny

from mamegpt.config import Precision, TrainConfig
from mamegpt.models.base import LanguageModel
from mamegpt.models.registry import ARCHITECTURES, build_model
from mamegpt.system.hardware import has_bf16, has_compiler
from mamegpt.training.forward import SummedLoss, checkpoint_activations, micro_batch
from mamegpt.training.optim import OPTIMIZERS, build_optimizer
from mamegpt.training.trainer import train

SIZES = TrainConfig(context_length=32, emb_dim=64, n_layers=2, n_heads=2, drop_rate=0.0).model(300)


def model_of(architecture: str) -> LanguageModel:
    torch.manual_seed(0)
    model = build_model(architecture, SIZES)
    with torch.no_grad():
        for parameter in model.parameters():  # also those that begin at zero
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_bf16_agrees_with_fp32(architecture: str) -> None:
    ids, targets = torch.randint(300, (2, 8, 32), generator=torch.Generator().manual_seed(1))
    found: dict[Precision, tuple[float, torch.Tensor]] = {}
    for precision in ("fp32", "bf16"):
        model = model_of(architecture)
        loss = SummedLoss(model, precision)(ids, targets)
        loss.backward()
        assert all(p.dtype == torch.float32 and p.grad is not None for p in model.parameters())
        found[precision] = loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    (loss32, gradient32), (loss16, gradient16) = found["fp32"], found["bf16"]
    assert loss16 != loss32  # it really is another format
    assert loss16 == pytest.approx(loss32, rel=1e-3)
    assert (gradient16 - gradient32).norm() < 0.02 * gradient32.norm()


class Types(TorchDispatchMode):
    """Every type of a tensor that goes into an operation of PyTorch or comes out of one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen |= {x.dtype for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)}
        return result


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_nothing_of_a_step_is_computed_in_16_bits_if_float32_was_chosen(architecture: str, optimizer: str) -> None:
    ids, targets = torch.randint(300, (2, 8, 32), generator=torch.Generator().manual_seed(1))
    seen = {}
    for precision in ("fp32", "bf16"):
        model = build_model(architecture, dataclasses.replace(SIZES, drop_rate=0.1))
        made = build_optimizer(model, TrainConfig(architecture=architecture, optimizer=optimizer, precision=precision))
        summed_loss = SummedLoss(model, precision)
        with Types() as types:
            summed_loss(ids, targets).backward()
            made.step()
        seen[precision] = types.seen & {torch.bfloat16, torch.float16}
    assert seen == {"fp32": set(), "bf16": {torch.bfloat16}}


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_blocks_that_are_run_again_keep_less_and_give_the_same_gradients(architecture: str) -> None:
    ids, targets = torch.randint(300, (2, 8, 32), generator=torch.Generator().manual_seed(1))
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        model = build_model(architecture, dataclasses.replace(SIZES, drop_rate=0.3))
        if again:
            checkpoint_activations(model)
        kept = []

        def keep(tensor: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept.append(tensor.nbytes)
            return tensor

        torch.manual_seed(7)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = SummedLoss(model, "fp32")(ids, targets)
        loss.backward()
        found.append((loss.item(), {name: p.grad for name, p in model.named_parameters()}, sum(kept)))
    (loss, gradients, n_bytes), (same_loss, same_gradients, fewer_bytes) = found
    assert same_loss == loss and same_gradients.keys() == gradients.keys()
    assert all(torch.equal(same_gradients[name], gradients[name]) for name in gradients)
    assert fewer_bytes < n_bytes / 3


@pytest.mark.parametrize(
    ("device", "context_length", "share", "asked", "expected"),
    [
        ("cpu", 256, 32, 0, 16),
        ("cpu", 256, 8, 0, 8),
        ("cpu", 256, 17, 0, 9),
        ("cpu", 8192, 4, 0, 1),
        ("cpu", 256, 24, 0, 12),
        ("cpu", 256, 32, 4, 4),
        ("cuda", 256, 32, 0, 32),
        ("mps", 256, 128, 0, 64),
    ],
)
def test_a_step_is_cut_into_passes_of_one_size(
    device: str, context_length: int, share: int, asked: int, expected: int
) -> None:
    config = TrainConfig(context_length=context_length, micro_batch_size=asked)
    assert micro_batch(config, share, torch.device(device)) == expected


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True}, False)],
)
def test_a_processor_without_bf16_is_known(
    capabilities: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert has_bf16(torch.device("cpu")) is expected
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    assert has_bf16(torch.device("cpu")) is expected
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx2")  # with which a step in bfloat16 takes a hundred times as long
    assert has_bf16(torch.device("cpu")) is False
    assert has_bf16(torch.device("mps")) is False


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(torch.device("cpu")), reason="no C++ compiler")
def test_a_compiled_run_is_that_of_eager_code_and_goes_on_bitwise(
    stories_txt: Path, stories_model: Path, tmp_path: Path
) -> None:
    """Losses agree with eager ones while rounding has had no time to grow."""
    config = tiny(stories_txt, stories_model, tmp_path / "eager", optimizer="adamw", lr=1e-3)
    eager = train(config).losses
    counters.clear()
    compiled = train(dataclasses.replace(config, out=str(tmp_path / "compiled"), compile="true"))
    assert compiled.losses == pytest.approx(eager, rel=1e-4)
    assert counters["stats"]["unique_graphs"] == 2  # it really was compiled, tried and then used, each in one piece
    final = final_weights(compiled.out, 12)
    newest = compiled.out / "checkpoints" / "step-00000012"
    shutil.rmtree(newest)
    finish("-m", "mamegpt", "train", "--resume", str(compiled.out))
    assert final_weights(compiled.out, 12) == final
