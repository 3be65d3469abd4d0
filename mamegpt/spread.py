"""One model on several processes: a whole copy in each (DDP), or a share of every weight in each (FSDP2).

With shares, the weights of a block are gathered just before its forward and its backward pass and dropped after each;
gradients are summed and scattered in every micro-batch. Both are PyTorch's own; so are the parts of a checkpoint that
every process writes for itself (torch.distributed.checkpoint, as safetensors). What the optimizers add: AdamW nothing,
Muon the products of its Newton-Schulz steps, for which each matrix's momentum is gathered (by DTensor) at every step.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mamegpt.distributed import World
from mamegpt.models import blocks

__all__ = ["empty_parts", "no_sync", "own_copy", "read_parts", "spread", "whole", "whole_tensor", "write_parts"]


def spread(summed_loss: nn.Module, model: nn.Module, sharding: str, world: World) -> nn.Module:
    """A loss of ``model`` that is computed on all processes; its gradients are means over them.

    With full sharding the model's parameters become shares of themselves, so build the optimizer afterwards.
    """
    if world.size == 1:
        return summed_loss
    if sharding == "none":
        return DistributedDataParallel(summed_loss)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    for block in blocks(model):
        fully_shard(block, mesh=mesh)
    return cast(nn.Module, fully_shard(summed_loss, mesh=mesh))


def no_sync(module: nn.Module, more_follow: bool) -> contextlib.AbstractContextManager[Any]:
    """Gradients of all but the last micro-batch stay in their process, where each has room for all of them."""
    if more_follow and isinstance(module, DistributedDataParallel):
        return module.no_sync()
    return contextlib.nullcontext()


@contextlib.contextmanager
def whole(summed_loss: nn.Module) -> Iterator[None]:
    """Gather what lies outside the blocks (embedding, last norm, head), so that the model can be called by itself."""
    from torch.distributed.fsdp import FSDPModule

    if not isinstance(summed_loss, FSDPModule):
        yield
        return
    summed_loss.unshard()
    try:
        yield
    finally:
        summed_loss.reshard()


def whole_tensor(tensor: Tensor) -> Tensor:
    """A tensor that is shared out, gathered in every process; any other as it is."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, which training does not change; of tensors that are shared out, of the shares here."""
    from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

    plainly = StagingOptions(False, False, False, False)
    return cast(dict[str, Tensor], DefaultStager(plainly).stage(dict(tensors)))


def write_parts(folder: Path, tensors: Mapping[str, Tensor], group: dist.ProcessGroup | None = None) -> None:
    """Write tensors, every process its share, into a folder. All processes call it together, and talk in ``group``."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    with _alone_is_fine():
        save(
            dict(tensors),
            storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True),
            process_group=group,
            no_dist=not dist.is_initialized(),
        )


def read_parts(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Fill tensors, or the shares of them that are here, from parts written by any number of processes."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    with _alone_is_fine():
        load(
            dict(into),
            storage_reader=HuggingFaceStorageReader(str(folder)),
            no_dist=not dist.is_initialized(),
        )


def empty_parts(folder: Path) -> dict[str, Tensor]:
    """Room for each whole tensor whose parts are in a folder."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {name: torch.empty(one.size, dtype=one.properties.dtype) for name, one in found.items()
            if isinstance(one, TensorStorageMetadata)}  # fmt: skip


@contextlib.contextmanager
def _alone_is_fine() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
