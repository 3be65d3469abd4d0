"""The process group: rank, world size, device, and collective operations.

A process that was started without ``torchrun`` is alone, and all operations here do nothing. Under ``torchrun``, each
process reads its rank from the environment. Tensors of a device are exchanged over its own library (NCCL for CUDA, XCCL
for XPU, gloo for the CPU), what is asked of the processes themselves over gloo, so that no device is waited for.
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

from mamegpt.system.devices import choose_device

__all__ = [
    "World",
    "any_process",
    "barrier",
    "from_main",
    "group_for_a_thread",
    "job",
    "join",
    "started_again",
    "sum_over_processes",
]


T = TypeVar("T")

_GROUPS = itertools.count()

PATIENCE = timedelta(hours=12)
"""How long processes wait for each other: while the main process tokenizes a large text, the others wait. ``torchrun``
notices at once if a process dies."""
STEP_PATIENCE = timedelta(minutes=30)
"""How long an accelerator waits for the tensors of another one, which is in the same step."""


@dataclass(frozen=True)
class World:
    """The rank of this process, the number of processes, and its device.

    ``notices`` are what is to be said about devices that are not used. ``host_group`` exchanges what is in the memory
    of the host; None: the default group does.
    """

    rank: int
    size: int
    device: torch.device
    notices: tuple[str, ...] = ()
    host_group: dist.ProcessGroup | None = None

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
    local_rank, n_local = (int(os.environ.get(name, n)) for name, n in (("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1)))
    choice = choose_device(device, local_rank, n_local)
    chosen, notices = choice.device, choice.notices
    if chosen.index is not None:  # there is one MPS, without a number
        torch.accelerator.set_device_index(chosen)
    if size == 1:
        yield World(0, 1, chosen, notices)
        return
    if dist.is_initialized():
        yield World(dist.get_rank(), size, chosen, notices, _host_group(chosen))
        return
    # The store outlives processes and groups, so each group stores its addresses under its own name.
    store, rank, size = next(rendezvous("env://"))
    name = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_GROUPS)}"
    backend = dist.get_default_backend_for_device(chosen)
    if not dist.is_backend_available(backend):
        backend = "gloo"  # as on Windows; it copies the tensors of a device to the host
    dist.init_process_group(
        backend,
        store=PrefixStore(name, store),
        rank=rank,
        world_size=size,
        timeout=PATIENCE if chosen.type == "cpu" else STEP_PATIENCE,
        device_id=chosen if backend != "gloo" else None,
    )
    world = World(dist.get_rank(), size, chosen, notices, _host_group(chosen))
    try:
        yield world
    except BaseException:
        # One process may be alone in its error: NCCL would wait in its teardown for the others, which wait in a step.
        # This one ends, with its error, and torchrun ends them.
        if backend == "gloo":
            _leave()
        raise
    _leave()


def _leave() -> None:
    """Leave the process group."""
    # Gloo's threads need the GIL to release the tensors of their last operation. A thread that requests it while
    # the group is destroyed waits forever; one that requests it while Python exits aborts it (docs/log.md).
    time.sleep(0.1)
    dist.destroy_process_group()


def _host_group(device: torch.device) -> dist.ProcessGroup | None:
    """Return a group that does not need the device; None if the default group is such a one."""
    return None if device.type == "cpu" else dist.new_group(backend="gloo", timeout=PATIENCE)


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


def any_process(value: bool, group: dist.ProcessGroup | None) -> bool:
    """Return whether ``value`` is true in at least one process; ``group`` is one of the host, such as a world's."""
    if not dist.is_initialized():
        return value
    return bool(sum_over_processes(torch.tensor(float(value)), group).item())


def from_main(value: T, world: World) -> T:
    """Return the main process's ``value`` in every process."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, group=world.host_group)
    return values[0]


def barrier(world: World) -> None:
    """Wait until every process has reached this call."""
    if dist.is_initialized():
        dist.barrier(group=world.host_group)
