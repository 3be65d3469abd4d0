"""The step-time model of `cluster_cost` against published runs, and runs of one, two and four processes here.

python -m benchmarks.research.check_cluster            # published runs
python -m benchmarks.research.check_cluster --measure  # also runs here, minutes; writes results/cluster.json
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mamegpt.cli.console import columns
from mamegpt.planning.cluster_cost import CLUSTERS, Cluster, Shape, estimate

RESULT = Path(__file__).parents[1] / "results" / "cluster.json"

LLAMA_7B = Shape(32, 4096, 11008, 32_000, 4096)
LLAMA_13B = Shape(40, 5120, 13824, 32_000, 4096)
LLAMA3_8B = Shape(32, 4096, 14336, 128_256, 8192, kv_dim=1024)
LLAMA3_70B = Shape(80, 8192, 28672, 128_256, 8192, kv_dim=1024)
GPT2_124M = Shape(12, 768, 2048, 50_304, 1024)
FOUR_A_NODE = dataclasses.replace(CLUSTERS["h200"], devices_per_node=4)


@dataclass(frozen=True)
class Published:
    """A run that others measured, in tokens a second and device; ``fitted`` if the model was fitted to it."""

    what: str
    source: str
    shape: Shape
    cluster: Cluster
    devices: int
    windows: int
    recomputes: bool
    tokens_per_s: float
    fitted: bool = False
    sharded: bool = True


TITAN = "torchtitan docs/performance.md (2024)"
TITAN_H100 = "torchtitan benchmarks/llama3_h100_202412"
KEMPNER = "KempnerForge docs/reference/benchmarks.md"
# fmt: off
RUNS = (
    Published("Llama 3 8B, 64 A100", TITAN, LLAMA3_8B, CLUSTERS["a100"], 64, 1, False, 2904, fitted=True),
    Published("Llama 3.1 8B, 8 H100", TITAN_H100, LLAMA3_8B, CLUSTERS["h100"], 8, 2, False, 6667, fitted=True),
    Published("Llama 3.1 8B, 128 H100", TITAN_H100, LLAMA3_8B, CLUSTERS["h100"], 128, 2, False, 6514, fitted=True),
    Published("Llama 7B, 2 H200", KEMPNER, LLAMA_7B, FOUR_A_NODE, 2, 1, True, 18_728 / 2, fitted=True),
    Published("Llama 3 70B, 64 A100", TITAN, LLAMA3_70B, CLUSTERS["a100"], 64, 1, True, 331),
    Published("Llama 2 13B, 64 A100", TITAN, LLAMA_13B, CLUSTERS["a100"], 64, 2, False, 2162),
    Published("Llama 2 7B, 128 A100", "PyTorch blog, FSDP (2024)", LLAMA_7B, CLUSTERS["a100"], 128, 2, False, 3700),
    Published("Llama 7B, 1 H200", KEMPNER, LLAMA_7B, FOUR_A_NODE, 1, 1, True, 10_471),
    Published("Llama 7B, 4 H200", KEMPNER, LLAMA_7B, FOUR_A_NODE, 4, 1, True, 38_983 / 4),
    Published("Llama 13B, 8 H200", KEMPNER, LLAMA_13B, FOUR_A_NODE, 8, 1, True, 35_405 / 8),
    Published("GPT-2 124M, 8 A100 (PyTorch)", "nanoGPT README: 300B tokens in 4 days", GPT2_124M,
              CLUSTERS["a100"], 8, 64, False, 300e9 / (4 * 86_400) / 8, sharded=False),
    Published("GPT-2 124M, 8 A100 (CUDA)", "llm.c discussion 481: 10B tokens in 90 min", GPT2_124M,
              CLUSTERS["a100"], 8, 64, False, 10e9 / 5400 / 8, sharded=False),
)
# fmt: on


def estimated(run: Published) -> float:
    """Tokens a second and device."""
    shape = dataclasses.replace(run.shape, batch_tokens=run.windows * run.devices * run.shape.context_length)
    way = estimate(
        shape,
        run.cluster,
        run.devices,
        "full" if run.sharded else "none",
        recomputes=run.recomputes,
        weight_bytes=2,  # all of these gather weights in bfloat16
    )
    return way.tokens_per_s / run.devices


def error(run: Published) -> float:
    """Of the model, as a share of what was measured."""
    return estimated(run) / run.tokens_per_s - 1


def table() -> str:
    """Published and estimated speeds."""
    rows = [
        (
            run.what,
            f"{run.tokens_per_s:,.0f}",
            f"{estimated(run):,.0f}",
            f"{error(run):+.0%}",
            "fitted" if run.fitted else "",
            run.source,
        )
        for run in RUNS
    ]
    return columns(("run", "published", "estimate", "error", "", "source"), rows)


# What is measured here: one thread a process, as two cores allow.
STEPS, WINDOWS, VOCAB = 16, 32, 2_000
HERE = Shape(4, 128, 344, VOCAB, 256, batch_tokens=WINDOWS * 256)
BANDWIDTH = """
import time, torch, torch.distributed as dist
dist.init_process_group("gloo"); torch.set_num_threads(1)
x = torch.ones(5_000_000); times = []
for _ in range(12):
    begin = time.perf_counter(); dist.all_reduce(x); times.append(time.perf_counter() - begin)
n = dist.get_world_size()
if dist.get_rank() == 0: print(2 * (n - 1) / n * x.numel() * 4 / sorted(times)[len(times) // 2])
dist.destroy_process_group()
"""


def torchrun(n: int, *words: str) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def step_seconds(n: int, folder: Path) -> float:
    """The median step of a run of ``n`` processes, the first steps left out."""
    out = folder / f"run-{n}"
    torchrun(
        n,
        "-m",
        "mamegpt",
        "train",
        "--data",
        str(folder / "text.txt"),
        "--tokenizer",
        str(folder / "tok.model"),
        "--out",
        str(out),
        "--max-steps",
        str(STEPS),
        "--batch-size",
        str(WINDOWS),
        "--precision",
        "fp32",
        "--compile",
        "false",
        "--log-every-steps",
        "1",
        "--val-fraction",
        "0",
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["elapsed_s"] for line in lines if "loss" in line]
    return statistics.median(b - a for a, b in itertools.pairwise(seconds[3:]))


def measure() -> list[dict[str, float]]:
    """Steps of 1, 2 and 4 processes, beside what the model makes of the first and of the bandwidth between two."""
    from mamegpt.data.stories import stories
    from mamegpt.tokenizer.tokenizer import train_tokenizer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [text for _, text in stories(seed=1, n=6000)]
        (folder / "text.txt").write_text("\n\n".join(texts), encoding="utf-8")
        train_tokenizer(texts, folder / "tok", vocab_size=VOCAB)
        script = folder / "bandwidth.py"
        script.write_text(BANDWIDTH)
        bandwidth = float(torchrun(2, str(script)).split()[-1])
        measured = {n: step_seconds(n, folder) for n in (1, 2, 4)}
    cores = os.cpu_count() or 1
    rows = []
    for n, seconds in measured.items():
        here = Cluster(1, 1, 24e9, 10e9, n, bandwidth / 0.8, bandwidth, 1e9, 1.0, latency_s=1e-4)
        lone = estimate(HERE, here, 1, "none")
        optimizer = lone.step_s - HERE.batch_tokens * HERE.flops_per_token * (128 + 372) / 128
        rate = (measured[1] - optimizer) / (lone.step_s - optimizer)
        here = dataclasses.replace(here, peak_flops=min(1, cores / n) / rate)
        way = estimate(HERE, here, n, "none")
        rows.append({"processes": n, "measured_s": seconds, "estimated_s": way.step_s, "bandwidth": bandwidth})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    print(table())
    if parser.parse_args().measure:
        rows = measure()
        RESULT.write_text(json.dumps({"when": time.strftime("%Y-%m-%d"), "rows": rows}, indent=1) + "\n")
        for row in rows:
            print(row)


if __name__ == "__main__":
    main()
