"""One model on several processes: a replica in each (DDP), or a shard of every weight in each (FSDP2).

With sharding, the weights of a block are gathered before its forward and its backward pass and freed after each;
gradients are reduced and scattered in every micro-batch. Both are PyTorch's own, like the shards that each process
writes into a checkpoint (torch.distributed.checkpoint, as safetensors). Optimizers add communication: AdamW only for
the norm of the gradient, Muon to the owner of a matrix and back (see `mamegpt.training.sharded_muon`).
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mamegpt.distributed.processes import World
from mamegpt.models.base import blocks

if TYPE_CHECKING:  # each takes a second to import, and few runs have several processes
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor
    from torch.nn.parallel import DistributedDataParallel

__all__ = [
    "ShardedInit",
    "empty_state_dict",
    "full_tensor",
    "init_device",
    "is_sharded",
    "load_sharded",
    "local",
    "no_sync",
    "parallelize",
    "save_sharded",
    "snapshot",
    "unsharded",
]


def init_device(sharding: str, world: World) -> torch.device:
    """Return the device to build a model on: "meta", without memory, if its weights will be sharded, else the CPU."""
    return torch.device("meta" if sharding == "full" and world.size > 1 else "cpu")


def parallelize(summed_loss: nn.Module, model: nn.Module, sharding: str, world: World) -> nn.Module:
    """Return a loss of ``model`` that is computed on all processes; its gradients are means over them.

    With full sharding the model's parameters become shards, so build the optimizer afterwards. Parameters on the meta
    device get memory here, and are uninitialized until they are filled (see `ShardedInit`).
    """
    if world.size == 1:
        return summed_loss
    if sharding == "none":
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(summed_loss, broadcast_buffers=False)  # they are constants
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    for block in blocks(model):
        fully_shard(block, mesh=mesh)
    shared = cast(nn.Module, fully_shard(summed_loss, mesh=mesh))
    if any(p.is_meta for p in model.parameters()):
        shared.to_empty(device=world.device)
    return shared


class ShardedInit(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, filling a sharded tensor gives the same values as in one process, drawn or copied from an unsharded
    one.

    Only one full tensor at a time is in memory.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Return the result of an operation (PyTorch's protocol for dispatch modes)."""
        tensor, rest = (args[0], args[1:]) if args else (None, ())
        fills = func in (torch.ops.aten.normal_.default, torch.ops.aten.uniform_.default, torch.ops.aten.copy_.default)
        if not (fills and is_sharded(tensor)) or (rest and is_sharded(rest[0])):
            return func(*args, **(kwargs or {}))
        from torch.distributed.tensor import distribute_tensor

        full = func(torch.empty(tensor.shape, dtype=tensor.dtype), *rest, **(kwargs or {}))
        full = full.to(tensor.device)
        return tensor.copy_(distribute_tensor(full, tensor.device_mesh, tensor.placements, src_data_rank=None))


def no_sync(module: nn.Module, more_follow: bool) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which DDP does not reduce gradients if more micro-batches follow; FSDP reduces each."""
    return module.no_sync() if more_follow and _is_copied(module) else contextlib.nullcontext()


@contextlib.contextmanager
def unsharded(summed_loss: nn.Module) -> Iterator[None]:
    """Gather the weights outside the blocks (embedding, last norm, head), so that the model can be called directly."""
    if not _is_shared(summed_loss):
        yield
        return
    summed_loss.unshard()
    try:
        yield
    finally:
        summed_loss.reshard()


def is_sharded(tensor: object) -> TypeGuard[DTensor]:
    """Return whether a tensor is sharded over processes, so that only a part of it is here."""
    return _is_a(tensor, "torch.distributed.tensor", "DTensor")


def _is_copied(module: nn.Module) -> TypeGuard[DistributedDataParallel]:
    return _is_a(module, "torch.nn.parallel", "DistributedDataParallel")


def _is_shared(module: nn.Module) -> TypeGuard[FSDPModule]:
    return _is_a(module, "torch.distributed.fsdp", "FSDPModule")


def _is_a(value: object, module: str, name: str) -> bool:
    """Return whether a value is an instance of a class; the module is not imported for that."""
    return module in sys.modules and isinstance(value, getattr(sys.modules[module], name))


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a sharded tensor gathered in every process; any other tensor as it is."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds: its shard, or all of an unsharded tensor."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def snapshot(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies on the CPU, which training does not change; for a sharded tensor, this process's shard."""
    from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

    plainly = StagingOptions(False, False, False, False)
    return cast(dict[str, Tensor], DefaultStager(plainly).stage(dict(tensors)))


def save_sharded(folder: Path, tensors: Mapping[str, Tensor], group: dist.ProcessGroup | None = None) -> None:
    """Write tensors into a folder, each process its shards. All processes must call it together; they use ``group``."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    with _alone_is_fine():
        save(
            dict(tensors),
            storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True),
            process_group=group,
            no_dist=not dist.is_initialized(),
        )


def load_sharded(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Fill tensors, or the shards of them that are here, from files written by any number of processes."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    with _alone_is_fine():
        load(
            dict(into),
            storage_reader=HuggingFaceStorageReader(str(folder)),
            no_dist=not dist.is_initialized(),
        )


def empty_state_dict(folder: Path) -> dict[str, Tensor]:
    """Return an empty tensor for each whole tensor whose shards are in a folder."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {
        name: torch.empty(one.size, dtype=one.properties.dtype)
        for name, one in found.items()
        if isinstance(one, TensorStorageMetadata)
    }


@contextlib.contextmanager
def _alone_is_fine() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
