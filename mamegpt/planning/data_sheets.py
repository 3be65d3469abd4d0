"""Estimate the speed of a GPU from its data sheet, until it has been measured: an analytical model of one step.

A step takes the longer of two times, since a GPU computes while the CPU launches:

    launching    kernels per step * seconds per kernel
    computing    FLOPs / (peak * share of it) + bytes moved / memory bandwidth

With small models and batches, launching decides. No GPU was at hand: the constants without a source are guesses.
"""

from __future__ import annotations

from dataclasses import dataclass

from mamegpt.config import Precision
from mamegpt.planning.cluster_cost import CLUSTERS, HALF_RATE_WIDTH, OPTIMIZER_TRAFFIC

__all__ = ["ACTIVATION_BYTES", "DATA_SHEETS", "OWN_BYTES", "DataSheet", "seconds_per_step"]

SUSTAINED = 0.5
"""Share of the peak that wide models reach: 0.43 to 0.67 in the published runs of docs/scale.md."""
KERNELS, KERNELS_PER_LAYER = 100, 246
"""Operations that write a tensor in a forward pass, a backward pass and an update with Muon (Qwen3; docs/log.md)."""
KERNEL_S = 8e-6
"""Seconds in which PyTorch launches one, from Python; a guess."""
ACTIVATION_BYTES = 113
"""Bytes kept for the backward pass, per token of a forward pass, layer and unit of width. Measured from 1m to 30m on a
CPU: with 16 bytes per parameter it predicts the peak memory from one size to the next to 2 % (docs/log.md)."""
LOGIT_BYTES = 16
"""Bytes moved per token and token of the vocabulary: a float32 number is written and read, forward and backward."""
OWN_BYTES = 500_000_000
"""Bytes that a GPU's runtime and PyTorch's kernels take; a guess."""


@dataclass(frozen=True)
class DataSheet:
    """What a manufacturer publishes about a GPU. ``peak_flops`` are those of dense products in ``precision``, summed in
    float32; ``source`` says where they are from.
    """

    name: str
    precision: Precision
    peak_flops: float
    memory_bytes: float
    memory_bandwidth: float
    source: str


def _of_cluster(name: str, title: str, source: str) -> DataSheet:
    one = CLUSTERS[name]
    return DataSheet(title, "bf16", one.peak_flops, one.memory_bytes, one.memory_bandwidth, source)


_GEFORCE = "tensor cores x boost clock x 128 FLOP"
"""GeForce boards sum in float32 at half of the rate that is advertised, which is that of sums in float16."""

# fmt: off
DATA_SHEETS: dict[str, DataSheet] = {
    "t4": DataSheet("NVIDIA T4", "fp16", 65e12, 16e9, 320e9, "NVIDIA T4 data sheet"),
    "l4": DataSheet("NVIDIA L4", "bf16", 121e12, 24e9, 300e9, "NVIDIA L4 data sheet, without sparsity"),
    "a100": _of_cluster("a100", "NVIDIA A100 80GB", "NVIDIA A100 data sheet, SXM"),
    "h100": _of_cluster("h100", "NVIDIA H100 80GB", "NVIDIA H100 data sheet, SXM, without sparsity"),
    "h200": _of_cluster("h200", "NVIDIA H200", "NVIDIA H200 data sheet, SXM, without sparsity"),
    "rtx3060": DataSheet("NVIDIA RTX 3060 12GB", "bf16", 25.5e12, 12e9, 360e9, f"specifications: 112 {_GEFORCE}"),
    "rtx3090": DataSheet("NVIDIA RTX 3090", "bf16", 71e12, 24e9, 936e9, "NVIDIA GA102 white paper, appendix A"),
    "rtx4060": DataSheet("NVIDIA RTX 4060 8GB", "bf16", 30.2e12, 8e9, 272e9, f"specifications: 96 {_GEFORCE}"),
    "rtx4090": DataSheet("NVIDIA RTX 4090", "bf16", 165.2e12, 24e9, 1008e9, "NVIDIA Ada white paper, appendix A"),
    "m1": DataSheet("Apple M1 (8 GPU cores)", "fp32", 2.6e12, 8e9, 68e9, "Apple, November 2020"),
    "m2": DataSheet("Apple M2 (10 GPU cores)", "fp32", 3.6e12, 8e9, 100e9, "Apple, June 2022"),
    "m3": DataSheet("Apple M3 (10 GPU cores)", "fp32", 3.6e12, 8e9, 100e9, "bandwidth: Apple; 1,280 lanes, 1.40 GHz"),
    "m4": DataSheet("Apple M4 (10 GPU cores)", "fp32", 3.8e12, 16e9, 120e9, "bandwidth: Apple; 1,280 lanes, 1.47 GHz"),
}
# fmt: on
"""By the names that ``plan --gpu`` takes. Macs are the smallest of each generation; 16 bits are no faster on them."""


def seconds_per_step(
    sheet: DataSheet, *, n_tokens: int, flops: float, n_parameters: int, n_layers: int, emb_dim: int, vocab_size: int
) -> float:
    """Return the seconds of one step of ``n_tokens`` tokens, of ``flops`` each."""
    reached = sheet.peak_flops * SUSTAINED * emb_dim / (emb_dim + HALF_RATE_WIDTH)
    moved = OPTIMIZER_TRAFFIC * n_parameters
    moved += n_tokens * (2 * ACTIVATION_BYTES * n_layers * emb_dim + LOGIT_BYTES * vocab_size)
    launching = (KERNELS + KERNELS_PER_LAYER * n_layers) * KERNEL_S
    return max(launching, n_tokens * flops / reached + moved / sheet.memory_bandwidth)
