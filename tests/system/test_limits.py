"""Cores and memory are those that affinity, control groups and Slurm leave, wherever a program asks for them."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from command import Mame
from little import ROOT

from mamegpt.system import limits
from mamegpt.system.limits import default_threads, memory, usable_cores

HOST = psutil.virtual_memory()
MIB = 1 << 20


@pytest.fixture(autouse=True)
def large_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """64 hardware threads, 32 cores, 256 GiB, no limits."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 64 if logical else 32)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: HOST._replace(total=256 << 30, available=200 << 30))
    monkeypatch.setattr(limits, "PROC", tmp_path / "proc")
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


def linux(tmp_path: Path, memberships: str, mounts: list[tuple[str, str, str, str]], files: dict[str, str]) -> None:
    """Write what Linux would show: groups of this process, mounts (root, point, kind, options), files by path."""
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_bytes(os.fsencode(memberships))
    lines = ["22 1 0:21 / /proc rw,nosuid - proc proc rw", "23 1 0:22 / /x rw - tmpfs  rw"]  # the second of no source
    for root, point, kind, options in mounts:
        spelled = str(tmp_path / point).replace(" ", r"\040")
        lines.append(f"30 23 0:26 {root} {spelled} rw,nosuid shared:4 - {kind} {kind} rw,{options}")
    (proc / "mountinfo").write_bytes(os.fsencode("\n".join(lines)))
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


SJIS = os.fsdecode("犬".encode("cp932"))
SECOND = [("/", "cg", "cgroup2", "nsdelegate")]
FIRST = [("/", "cg/cpu", "cgroup", "cpu,cpuacct"), ("/", "cg/memory", "cgroup", "memory")]


@pytest.mark.parametrize(
    ("memberships", "mounts", "files", "cores", "threads"),
    [
        ("0::/\n", SECOND, {"cg/cpu.max": "max 100000\n"}, 64, None),
        ("0::/\n", SECOND, {"cg/cpu.max": "400000 100000\n"}, 4, 4),
        ("0::/\n", SECOND, {"cg/cpu.max": "150000 100000\n"}, 2, 2),
        ("0::/\n", SECOND, {"cg/cpu.max": "1000 100000\n"}, 1, 1),
        ("0::/\n", SECOND, {"cg/cpu.max": "4800000 100000\n"}, 48, 32),  # no more threads than cores
        ("0::/\n", [("/", "a b", "cgroup2", "x")], {"a b/cpu.max": "300000 100000\n"}, 3, 3),
        ("0::/a/b\n", SECOND, {"cg/a/b/cpu.max": "max 100000", "cg/a/cpu.max": "200000 100000"}, 2, 2),
        ("0::/a/b\n", SECOND, {"cg/a/b/cpu.max": "300000 100000", "cg/a/cpu.max": "800000 100000"}, 3, 3),
        # Names that are not UTF-8 or hold white space.
        (
            "0::/\n",
            [("/", SJIS, "tmpfs", "x"), ("/", "豆\u2028木", "tmpfs", "x"), *SECOND],
            {"cg/cpu.max": "200000 100000"},
            2,
            2,
        ),
        (f"1:name=x:/{SJIS}\n0::/\n", SECOND, {"cg/cpu.max": "200000 100000"}, 2, 2),
        # A container that sees its own group as the root of what is mounted, or is in a group outside of it.
        ("0::/docker/x\n", [("/docker/x", "cg", "cgroup2", "x")], {"cg/cpu.max": "500000 100000"}, 5, 5),
        ("0::/../../other\n", SECOND, {"cg/cpu.max": "600000 100000"}, 6, 6),
        (
            "4:cpu,cpuacct:/\n3:memory:/\n0::/\n",
            FIRST,
            {"cg/cpu/cpu.cfs_quota_us": "-1", "cg/cpu/cpu.cfs_period_us": "100000"},
            64,
            None,
        ),
        (
            "4:cpu,cpuacct:/a/b\n3:memory:/\n",
            FIRST,
            {
                "cg/cpu/a/cpu.cfs_quota_us": "250000",
                "cg/cpu/a/cpu.cfs_period_us": "50000",
                "cg/memory/cpu.cfs_quota_us": "1000",
                "cg/memory/cpu.cfs_period_us": "1000",
            },
            5,
            5,
        ),
    ],
)
def test_a_quota_of_processor_time_counts(
    tmp_path: Path,
    memberships: str,
    mounts: list[tuple[str, str, str, str]],
    files: dict[str, str],
    cores: int,
    threads: int | None,
) -> None:
    linux(tmp_path, memberships, mounts, files)
    assert (usable_cores(), default_threads()) == (cores, threads)


@pytest.mark.parametrize(
    ("memberships", "mounts", "files", "total_mib", "available_mib"),
    [
        ("0::/\n", SECOND, {"cg/memory.max": "max\n", "cg/memory.current": "7\n"}, 256 << 10, 200 << 10),
        (
            "0::/\n",
            SECOND,
            {
                "cg/memory.max": f"{512 * MIB}\n",
                "cg/memory.current": f"{300 * MIB}\n",
                "cg/memory.stat": f"anon 5\ninactive_file {100 * MIB}\n",
            },
            512,
            312,
        ),
        (
            "0::/a/b\n",
            SECOND,
            {"cg/a/b/memory.max": "max", "cg/a/memory.max": f"{900 * MIB}", "cg/a/memory.current": f"{1000 * MIB}"},
            900,
            0,
        ),
        (
            "0::/a\n",
            SECOND,
            {
                "cg/a/memory.max": f"{900 * MIB}",
                "cg/a/memory.high": f"{700 * MIB}",
                "cg/a/memory.current": f"{100 * MIB}",
            },
            700,
            600,
        ),
        (
            "3:memory:/a\n",
            FIRST,
            {"cg/memory/a/memory.limit_in_bytes": "9223372036854771712", "cg/memory/a/memory.usage_in_bytes": "5"},
            256 << 10,
            200 << 10,
        ),
        (
            "3:memory:/a\n",
            FIRST,
            {
                "cg/memory/a/memory.limit_in_bytes": f"{64 * MIB}",
                "cg/memory/a/memory.usage_in_bytes": f"{40 * MIB}",
                "cg/memory/a/memory.stat": f"inactive_file 1\ntotal_inactive_file {16 * MIB}",
            },
            64,
            40,
        ),
    ],
)
def test_a_limit_of_memory_counts(
    tmp_path: Path,
    memberships: str,
    mounts: list[tuple[str, str, str, str]],
    files: dict[str, str],
    total_mib: int,
    available_mib: int,
) -> None:
    linux(tmp_path, memberships, mounts, files)
    assert memory() == limits.Memory(total_mib * MIB, available_mib * MIB)


@pytest.mark.parametrize(
    ("environment", "cores", "total_mib"),
    [
        ({"CPUS_PER_TASK": "6", "CPUS_ON_NODE": "24", "MEM_PER_CPU": "2048"}, 6, 24 * 2048),
        ({"CPUS_ON_NODE": "24", "MEM_PER_NODE": "9000"}, 24, 9000),
        ({"CPUS_ON_NODE": "128", "MEM_PER_NODE": "0"}, 64, 256 << 10),
    ],
)
def test_slurm_s_allocation_counts(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], cores: int, total_mib: int
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert (usable_cores(), memory().total) == (cores, total_mib * MIB)


def test_without_linux_it_is_the_machine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (usable_cores(), default_threads(), memory()) == (64, None, limits.Memory(256 << 30, 200 << 30))
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert usable_cores() == 12


def test_a_command_starts_no_more_threads_and_says_what_there_is(
    mame: Mame, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    linux(tmp_path, "0::/\n", SECOND, {"cg/cpu.max": "300000 100000", "cg/memory.max": str(1 << 30)})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that it is put back as it was
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("mamegpt.system.hardware._hub", lambda: "")
    out = " ".join(mame("doctor")[1].split())
    assert "3 threads usable" in out and "memory 1.0 GiB, 1.0 GiB free" in out
    assert os.environ["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # what the user says goes first
    mame("doctor")
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_nothing_else_asks_the_machine_for_its_cores_or_memory() -> None:
    asks = re.compile(r"cpu_count\(\)|sched_getaffinity|virtual_memory|process_cpu_count")
    found = {path.name for path in (ROOT / "mamegpt").rglob("*.py") if asks.search(path.read_text(encoding="utf-8"))}
    assert found == {"limits.py"}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    program = """
import resource, sys
from mamegpt.system.limits import keep_freed_memory
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step(): [bytearray(16 << 20) for _ in range(4)]  # all zeros, so every page is written
if sys.argv[1] == "kept": keep_freed_memory()
step()
before = faults()
for _ in range(5): step()
print((faults() - before) // 5)
"""
    found = {}
    for how, environment in (("kept", {}), ("not", {}), ("kept otherwise", {"MALLOC_TRIM_THRESHOLD_": "100000"})):
        command = [sys.executable, "-c", program, how.partition(" ")[0]]
        everything = {**os.environ, **environment}
        done = subprocess.run(command, cwd=ROOT, env=everything, capture_output=True, encoding="utf-8", check=True)
        found[how] = int(done.stdout)
    assert found["kept"] < 500 < 10_000 < min(found["not"], found["kept otherwise"])  # of the 16,384 pages of a step
