"""Shares hold what a process that is alone would have, and no more memory than they need."""

import dataclasses
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from architectures import supported
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from mamegpt.config import ModelConfig, TrainConfig
from mamegpt.distributed.processes import World
from mamegpt.distributed.sharding import ShardedInit, init_device, parallelize
from mamegpt.models.base import LanguageModel
from mamegpt.models.registry import ARCHITECTURES, build_model, init_weights
from mamegpt.training.forward import SummedLoss

SIZES = TrainConfig(context_length=8, emb_dim=16, n_layers=3, n_heads=2, drop_rate=0.1).model(101)
VARIANTS = [
    (name, tied) for name in ARCHITECTURES for tied in (False, *supported(name, {"tie_embeddings": True}).values())
]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The last of three processes, the other two of which are not there."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=2, world_size=3, store=FakeStore())
    yield World(2, 3, torch.device("cpu"))
    dist.destroy_process_group()


def shared(architecture: str, sizes: ModelConfig, world: World) -> LanguageModel:
    with init_device("full", world):
        model = build_model(architecture, sizes)
    parallelize(SummedLoss(model, "fp32"), model, "full", world)
    torch.manual_seed(5)
    with ShardedInit():
        init_weights(architecture, model)
    return model


def share(whole: torch.Tensor, world: World) -> torch.Tensor:
    """The rows that fall to a process: as many as to the others, but fewer to the last."""
    n_rows = -(-len(whole) // world.size)
    return whole[world.rank * n_rows : (world.rank + 1) * n_rows]


def assert_shares_of(model: LanguageModel, whole: LanguageModel, world: World) -> None:
    parameters = dict(whole.named_parameters())
    assert parameters.keys() == dict(model.named_parameters()).keys()  # a tied one is there once
    for name, parameter in model.named_parameters():
        assert isinstance(parameter, DTensor)
        assert torch.equal(parameter.to_local(), share(parameters[name], world)), name
    for name, buffer in whole.named_buffers():
        assert torch.equal(dict(model.named_buffers())[name], buffer)


@pytest.mark.parametrize(("architecture", "tied"), VARIANTS)
def test_initial_shares_are_those_of_the_whole_bit_for_bit(architecture: str, tied: bool, world: World) -> None:
    sizes = dataclasses.replace(SIZES, tie_embeddings=tied, **supported(architecture, {"qkv_bias": True}))
    torch.manual_seed(5)
    whole = build_model(architecture, sizes)
    assert_shares_of(shared(architecture, sizes, world), whole, world)


def test_whole_weights_are_loaded_into_shares(world: World) -> None:
    whole, model = build_model("qwen3", SIZES), shared("qwen3", SIZES, world)
    with ShardedInit():
        model.load_state_dict(whole.state_dict())
    assert_shares_of(model, whole, world)


class Peak(TorchDispatchMode):
    """The most bytes that tensors made meanwhile held together."""

    def __init__(self) -> None:
        super().__init__()
        self.held: weakref.WeakValueDictionary[int, torch.UntypedStorage] = weakref.WeakValueDictionary()
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        here = made.to_local() if isinstance(made, DTensor) else made
        if isinstance(here, torch.Tensor) and not here.is_meta:
            storage = here.untyped_storage()
            self.held[storage.data_ptr()] = storage
            self.most = max(self.most, sum(storage.nbytes() for storage in self.held.values()))
        return made


def test_no_process_ever_holds_the_whole(world: World) -> None:
    sizes = dataclasses.replace(SIZES, emb_dim=64, n_layers=12)
    with Peak() as alone:
        n_bytes = sum(4 * p.numel() for p in build_model("qwen3", sizes).parameters())
    with Peak() as together:
        model = shared("qwen3", sizes, world)
    largest = max(4 * p.numel() for p in model.parameters())
    assert alone.most >= n_bytes
    assert 0.9 * n_bytes / 3 < together.most < n_bytes / 3 + 3 * largest < n_bytes / 2
