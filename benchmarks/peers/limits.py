"""What the machine can do at most: matrix products in fp32 and bf16, and copying memory. Prints JSON.

    python -m benchmarks.peers.limits [--seconds 1]

A processor without bfloat16 instructions has 0 GFLOP/s of bf16: it emulates them, and nobody should compute so.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch

from benchmarks.peers.without_bf16 import is_imitated
from mamegpt.system.hardware import has_bf16

SIZE = 2048
COPY_BYTES = 256 << 20


def best_seconds(work: Callable[[], object], seconds: float) -> float:
    """The shortest of as many runs as fit into the time given, at least three."""
    work()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def limits(seconds: float = 1.0) -> dict[str, float]:
    """GFLOP/s of square matrix products, and GB/s of a copy, ``seconds`` for each measurement."""
    found: dict[str, float] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if dtype == torch.bfloat16 and (is_imitated() or not has_bf16(torch.device("cpu"))):
            found[f"{name}_gflops"] = 0.0
            continue
        a, b = (torch.randn(SIZE, SIZE).to(dtype) for _ in range(2))
        out = torch.empty(SIZE, SIZE, dtype=dtype)
        found[f"{name}_gflops"] = 2 * SIZE**3 / best_seconds(lambda: torch.mm(a, b, out=out), seconds) / 1e9  # noqa: B023
    source = torch.ones(COPY_BYTES // 4)
    target = torch.empty_like(source)
    # Read once, written once.
    found["copy_gb_per_s"] = 2 * COPY_BYTES / best_seconds(lambda: target.copy_(source), seconds) / 1e9
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each measurement")
    print(json.dumps(limits(parser.parse_args().seconds)))


if __name__ == "__main__":
    main()
