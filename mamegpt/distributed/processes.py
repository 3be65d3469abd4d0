"""The process group: rank, world size, device, and collective operations.

A process that was started without ``torchrun`` is alone, and all operations here do nothing. Under ``torchrun``, each
process reads its rank from the environment, and the processes communicate over gloo (CPU) or NCCL (CUDA).
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from mamegpt.errors import ConfigError

__all__ = [
    "World",
    "any_process",
    "barrier",
    "from_main",
    "group_for_a_thread",
    "job",
    "join",
    "pick_device",
    "started_again",
    "sum_over_processes",
]


T = TypeVar("T")

_GROUPS = itertools.count()

PATIENCE = timedelta(hours=12)
"""How long processes wait for each other: while the main process tokenizes a large text, the others wait. ``torchrun``
notices at once if a process dies."""


@dataclass(frozen=True)
class World:
    """The rank of this process, the number of processes, and its device."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0


@contextmanager
def join(device: str) -> Iterator[World]:
    """Join the process group that ``torchrun`` describes, if any, and leave it at the end.

    A group that another program has initialized (Ray Train) is used as it is.
    """
    size = dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))
    chosen = pick_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    if size == 1:
        yield World(0, 1, chosen)
        return
    if dist.is_initialized():
        yield World(dist.get_rank(), size, chosen)
        return
    # The store outlives processes and groups, so each group stores its addresses under its own name.
    store, rank, size = next(rendezvous("env://"))
    name = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_GROUPS)}"
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=PrefixStore(name, store), rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), size, chosen)
    finally:
        # Gloo's threads need the GIL to release the tensors of their last operation. A thread that requests it while
        # the group is destroyed waits forever; one that requests it while Python exits aborts it (docs/log.md).
        time.sleep(0.1)
        dist.destroy_process_group()


def job() -> str:
    """Return the id that ``torchrun`` gives all processes of one command, "" without torchrun."""
    return os.environ.get("TORCHELASTIC_RUN_ID", "")


def started_again() -> bool:
    """Return whether ``torchrun --max-restarts`` has restarted all processes because one of them died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def group_for_a_thread(world: World) -> dist.ProcessGroup | None:
    """Return a second group of all processes, over gloo, which a thread can use while training uses the first."""
    return dist.new_group(backend="gloo", timeout=PATIENCE) if world.size > 1 else None


def sum_over_processes(value: torch.Tensor, group: dist.ProcessGroup | None = None) -> torch.Tensor:
    """Sum a tensor over all processes, in place, and return it."""
    if dist.is_initialized():
        dist.all_reduce(value, group=group)
    return value


def any_process(value: bool, device: torch.device, group: dist.ProcessGroup | None = None) -> bool:
    """Return whether ``value`` is true in at least one process."""
    if not dist.is_initialized():
        return value
    return bool(sum_over_processes(torch.tensor(float(value), device=device), group).item())


def from_main(value: T, world: World) -> T:
    """Return the main process's ``value`` in every process."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, device=world.device)
    return values[0]


def barrier() -> None:
    """Wait until every process has reached this call."""
    if dist.is_initialized():
        dist.barrier()


def pick_device(name: str) -> torch.device:
    """Return the device called ``name``; "auto" is CUDA if available, else the CPU.

    Raises `ConfigError` for an unknown device, or one that is not available; there is no silent fallback.
    """
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = "cuda" if has["cuda"] else "cpu"
    if name not in has:
        raise ConfigError("--device must be one of auto, {names} (got {name})", name=name, names=", ".join(has))
    if not has[name]:
        raise ConfigError("--device {name} was asked for, but PyTorch sees none here; use --device cpu", name=name)
    return torch.device(name)
