"""Where the time of mamegpt's training step goes, and what a perfect one would still need.

    python -m benchmarks.own.profile_step [--compiled] [--steps 5] [--data FOLDER]

Groups the processor time of every PyTorch operation of the default recipe's step (the task's sizes), as shares of the
whole; below it the same step's matrix products alone, by shape, at the speed they reach here without anything between
them. What those need beyond the peak of `limits` is the price of the model's narrow shapes; what the step needs beyond
them is the price of everything that is not a matrix product.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import Counter
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.peers.contestants import mamegpt_config
from benchmarks.peers.limits import limits
from benchmarks.peers.task import DATA, Task, load
from mamegpt.config import Precision
from mamegpt.models.loss import chunk_tokens
from mamegpt.models.registry import build_model
from mamegpt.training.forward import SummedLoss, micro_batch
from mamegpt.training.optim import build_optimizer

KINDS = {
    "matrix products": (
        "aten::mm",
        "aten::bmm",
        "aten::addmm",
        "aten::_scaled_dot",
        "mkldnn",
        "aten::addbmm",
        "onednn",
    ),
    "softmax": ("aten::_softmax", "aten::_log_softmax"),
    "optimizer": ("Optimizer", "aten::_fused_adamw_", "aten::_foreach"),
    "compiled pointwise": ("graph_", "cpp_fused", "CompiledFxGraph", "Torch-Compiled"),
    "copies and conversions": ("aten::copy_", "aten::to", "aten::_to_copy", "aten::contiguous", "aten::clone"),
}


def kind(name: str) -> str:
    """The group of an operation."""
    return next((group for group, starts in KINDS.items() if name.startswith(starts)), "other")


def products(task: Task, dtype: torch.dtype, rounds: int = 5) -> float:
    """Seconds of one step's matrix products, forward and backward, back to back: a lower bound that holds here."""
    width, ffn, tokens = task.emb_dim, -(-8 * task.emb_dim // 24) * 8, task.tokens_per_step
    rows = chunk_tokens(task.vocab_size, dtype, torch.device("cpu"))
    # (rows, inner, columns, how often): a linear layer's three products have the same numbers in another order.
    shapes = [
        (4096, width, width, 4 * task.n_layers * tokens // 4096),
        (4096, width, ffn, 3 * task.n_layers * tokens // 4096),
        (rows, width, task.vocab_size, tokens // rows),
    ]
    total = 0.0
    for m, k, n, times in shapes:
        x, w, y = (torch.randn(shape, dtype=dtype) for shape in ((m, k), (k, n), (m, n)))
        best = min(_seconds(x, w, y) for _ in range(rounds))
        print(f"  {m:>5} x {k:>4} x {n:>6}: {3 * 2 * m * k * n / best / 1e9:>6.0f} GFLOP/s, {times} times a step")
        total += best * times
    return total


def _seconds(x: torch.Tensor, w: torch.Tensor, y: torch.Tensor) -> float:
    begin = time.perf_counter()
    x @ w
    y @ w.T
    x.T @ y
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA if DATA.is_dir() else None)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    task = dataclasses.replace(load(args.data, 16_000), n_heads=2)
    most = limits()
    precision: Precision = "bf16" if most["bf16_gflops"] else "fp32"
    config = mamegpt_config(task, Path("unused"), precision=precision)
    model = build_model(config.architecture, config.model(task.vocab_size))
    optimizer = build_optimizer(model, config)
    summed_loss = SummedLoss(model, precision, compiled=args.compiled)
    windows = micro_batch(config, task.batch_size, torch.device("cpu"))
    batches = task.batches()

    def step() -> None:
        x, y = next(batches)
        for inputs, targets in zip(torch.from_numpy(x).split(windows), torch.from_numpy(y).split(windows), strict=True):
            (summed_loss(inputs, targets) / task.tokens_per_step).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(3):
        step()
    begin = time.perf_counter()
    for _ in range(args.steps):
        step()
    step_s = (time.perf_counter() - begin) / args.steps
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(args.steps):
            step()
    times: Counter[str] = Counter()
    for event in profiled.key_averages():
        times[kind(event.key)] += event.self_cpu_time_total
    total = sum(times.values())
    reached = task.flops_per_token * task.tokens_per_step / step_s / 1e9
    peak = most[f"{precision}_gflops"]
    print(f"{task.tokens_per_step:,} tokens take {step_s:.3f} s: {reached:.0f} of {peak:.0f} GFLOP/s, {precision}")
    for name, microseconds in times.most_common():
        print(f"  {name:<24} {microseconds / total:>6.1%}")
    for event in sorted(profiled.key_averages(), key=lambda event: -event.self_cpu_time_total)[:14]:
        print(f"    {event.key[:48]:<50} {event.self_cpu_time_total / total:>6.1%} {event.count:>7}")
    print("matrix products alone:")
    alone = products(task, torch.bfloat16 if precision == "bf16" else torch.float32)
    print(f"  {alone:.3f} s a step, {alone / step_s:.0%} of it")


if __name__ == "__main__":
    main()
