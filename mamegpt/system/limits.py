"""Cores and memory that this process may use: the machine's, or less in a container, under systemd or Slurm; and what
its libraries are told of them.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

__all__ = ["Memory", "configure_libraries", "default_threads", "keep_freed_memory", "memory", "usable_cores"]

SPIN_COUNT = "3000"
"""How many times a waiting thread of GNU OpenMP polls before it sleeps. By default it waits so long that another busy
program can make training twenty times slower; with this value it is two to three times slower at worst, and not slower
when alone (docs/log.md)."""

KEPT_BYTES = 512 << 20
"""Freed memory that glibc's allocator keeps for the next one who asks, in training; by default some tens of MB."""
LARGEST_KEPT_BYTES = 32 << 20
"""The largest piece that it may keep. Larger ones always go back to the system."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's ``mallopt``."""
_OF_THE_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")

PROC = Path("/proc/self")
"""Where Linux lists the control groups of this process, and where they are mounted."""


@dataclass(frozen=True)
class Memory:
    """Bytes that this process and others in its control groups may use, and how many of them are free."""

    total: int
    available: int


def configure_libraries() -> None:
    """Set the variables that PyTorch and Arrow read when they are imported, those that the user has not set."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # Arrow's own keeps 70 MB more (docs/log.md)
    if (n_threads := default_threads()) is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(n_threads))


def keep_freed_memory() -> None:
    """Let the C library of Linux keep what is freed, since a training step asks for the same memory again and again.

    Otherwise the system takes it back, and gives it page by page, filled with zeros: a twentieth to a tenth of a step
    (docs/log.md). Other systems have no such setting; one of the user's, in the environment, goes first.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _OF_THE_USER):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)


def usable_cores() -> int:
    """Return how many hardware threads this process may use, by affinity, CPU quotas and Slurm's allocation.

    A fraction of a core counts as one, as in the JVM and Go: threads that are throttled together lose nothing.
    """
    slurm = _number(os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE"))
    limits = [math.ceil(quota) for group in _groups("cpu") if (quota := _quota(group))]
    return max(1, min([_affinity(), *limits, *([slurm] if slurm else [])]))


def default_threads() -> int | None:
    """Return the number of threads for computation if libraries would start more, else None.

    OpenMP, and so PyTorch, considers affinity and physical cores, but not quotas or Slurm.
    """
    usable = usable_cores()
    return min(usable, psutil.cpu_count(logical=False) or usable) if usable < _affinity() else None


def memory() -> Memory:
    """Return the memory of this process: the machine's, or the limit of its control groups or Slurm."""
    host = psutil.virtual_memory()
    limits = [(host.total, host.available)]
    for group in _groups("memory"):
        used, cache = _read(group, "memory.current", "memory.usage_in_bytes"), _read_cache(group)
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            if (limit := _read(group, name)) is not None:
                limits.append((limit, max(0, limit - (used or 0) + cache)))
    if slurm := _slurm_memory():
        limits.append((slurm, slurm))
    return Memory(*map(min, zip(*limits, strict=True)))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folder of each control group of this process, from its own upwards; the limits of all of them apply.

    There is one hierarchy (version 2), or one per controller (version 1). A container sees only the part that is
    mounted.
    """
    try:
        memberships, mounts = (
            list(filter(None, os.fsdecode((PROC / name).read_bytes()).split("\n"))) for name in ("cgroup", "mountinfo")
        )
    except OSError:
        return  # not Linux
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        for mount in mounts:
            left, _, right = mount.partition(" - ")
            (root, point), (kind, options) = left.split(" ")[3:5], right.split(" ")[:3:2]
            in_second = not controllers and kind == "cgroup2"
            if in_second or (kind == "cgroup" and controller in {*controllers.split(",")} & {*options.split(",")}):
                top = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), point))
                within = PurePosixPath(path)
                below = within.relative_to(root) if within.is_relative_to(root) else PurePosixPath()
                folder = top / below if ".." not in below.parts else top
                yield from (one for one in (folder, *folder.parents) if one.is_relative_to(top))


def _quota(group: Path) -> float | None:
    """Return the cores that a group may use in each period of time, None if there is no limit."""
    try:
        quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        found, of = _read(group, "cpu.cfs_quota_us"), _read(group, "cpu.cfs_period_us")
    else:
        found, of = _number(quota), _number(period)
    return found / of if found and of else None


def _read(group: Path, *names: str) -> int | None:
    """Return the number in the first existing one of some files of a group; None for "max", -1 or no file."""
    for name in names:
        try:
            return _number((group / name).read_text(encoding="utf-8"))
        except OSError:
            continue
    return None


def _read_cache(group: Path) -> int:
    """Return the bytes of page cache that a group holds and would give up."""
    try:
        lines = (group / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    found = dict(line.split(maxsplit=1) for line in lines)
    return int(found.get("total_inactive_file", found.get("inactive_file", 0)))


def _number(text: str | None) -> int | None:
    """Return a non-negative whole number, None for anything else."""
    return int(text) if text and text.strip().isdecimal() else None


def _slurm_memory() -> int | None:
    """Return the bytes that Slurm gave a job on this node, None if it sets no limit (0: all of them)."""
    mib = _number(os.environ.get("SLURM_MEM_PER_NODE"))
    if mib is None:
        of_one, cores = (_number(os.environ.get(f"SLURM_{name}")) for name in ("MEM_PER_CPU", "CPUS_ON_NODE"))
        mib = (of_one or 0) * (cores or 0)
    return mib << 20 or None
