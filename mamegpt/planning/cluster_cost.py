"""Estimate a training run on a cluster: an analytical model of one step.

A step on n devices takes the time of its arithmetic, of the optimizer's pass over memory, and of the communication that
arithmetic does not hide:

    arithmetic     tokens per device * FLOPs per token / (peak * share of the peak that one device reaches)
    optimizer      bytes per parameter read and written * parameters per device / memory bandwidth
    communication  bytes sent per device / bandwidth + hops * latency, depending on the sharding (`SHARDINGS`)

FLOPs per token are 6 for each parameter of a matrix product (not the input embedding) plus 12 L C T for attention
(Chowdhery et al. 2022, "PaLM", appendix B). Activations take 34 bytes per token, layer and unit of width, or 2 if they
are recomputed (Korthikanti et al. 2022, eq. 2 and section 5, with attention that stores no scores). docs/scale.md
compares the estimates with published runs that were not fitted.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from mamegpt.errors import ConfigError, first_line
from mamegpt.system.parse import ParseError, parse_toml
from mamegpt.system.validation import FromJSON, Within, validated

__all__ = [
    "CLUSTERS",
    "MODELS",
    "SHARDINGS",
    "TOKENS_PER_PARAMETER",
    "Cluster",
    "ClusterPlan",
    "Estimate",
    "Shape",
    "best",
    "estimate",
    "plan_cluster",
]

Positive = Annotated[float, Within(gt=0)]
Sharding = Literal["none", "full"]
SHARDINGS: tuple[Sharding, ...] = ("none", "full")
"""The values of ``train --sharding``: each device holds all weights (DDP), or all devices hold them once (FSDP)."""

STATE_BYTES = 16
"""Bytes per parameter of training state: weight, gradient and AdamW's two moments, in float32."""
WEIGHT_BYTES = 4
"""Bytes per parameter as `mamegpt.distributed.sharding` gathers it: float32, also if products are in bfloat16."""
SAVED_BYTES = 12
"""Bytes per parameter in a checkpoint: the weight and two moments."""
OPTIMIZER_TRAFFIC = 28
"""Bytes per parameter that AdamW's step reads (four numbers) and writes (three)."""
ACTIVATION_BYTES, RECOMPUTED_BYTES = 34, 2
COLLECTIVE_SHARE = 0.8
"""Share of a link's bandwidth that collectives reach with messages of some megabytes."""
HALF_RATE_WIDTH = 372
"""Hidden size at which a device reaches half of its sustained share. From nanochat's 41 % at 768 and 46 % at 1,152."""
JITTER = 0.006
"""Relative increase of a step's time for each doubling of the nodes: 2.3 % from 1 node to 16 in torchtitan's runs."""
RESERVED = 0.9
"""Share of a device's memory that training may use."""
TOKENS_PER_PARAMETER = 20
"""Tokens per parameter of a compute-optimal run: Hoffmann et al. 2022 ("Chinchilla"), table 3, rounded as usual."""
DEVICES = (8, 64, 256, 1024)


@dataclass(frozen=True)
class Cluster(FromJSON):
    """A cluster of nodes with several devices. Rates are per device and second, in one direction; the price is per
    device hour.
    """

    peak_flops: Positive
    """FLOP/s of dense bfloat16 products."""
    sustained: Positive
    """Share of the peak that one device reaches alone with a very wide model."""
    memory_bytes: Positive
    memory_bandwidth: Positive
    devices_per_node: Annotated[int, Within(gt=0)]
    link_bandwidth: Positive
    """Bytes between devices of one node."""
    network_bandwidth: Positive
    """Bytes between nodes, per device."""
    storage_bandwidth: Positive
    """Bytes that a node writes to the storage for checkpoints."""
    price: Positive
    """US dollars."""
    latency_s: Positive = 10e-6
    """Latency of one hop of a collective."""


CLUSTERS: dict[str, Cluster] = {
    "a100": Cluster(312e12, 0.59, 80e9, 2.0e12, 8, 300e9, 25e9, 2e9, 1.8),
    "h100": Cluster(989e12, 0.43, 80e9, 3.35e12, 8, 450e9, 50e9, 2e9, 2.5),
    "h200": Cluster(989e12, 0.665, 141e9, 4.8e12, 8, 450e9, 50e9, 2e9, 3.5),
}
"""Figures from the data sheets of the SXM boards and of NVLink; 200 and 400 Gb/s networks. ``sustained`` is what a
published run reached (docs/scale.md). Storage and prices (on demand, 2026) vary: describe your own cluster."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that determine time and memory; ``kv_dim`` is the width of all keys (0: the hidden
    size).
    """

    n_layers: int
    emb_dim: int
    ffn_dim: int
    vocab_size: int = 32_000
    context_length: int = 2048
    kv_dim: int = 0
    batch_tokens: int = 1 << 19
    """Tokens per step, over all devices."""

    @property
    def block_parameters(self) -> int:
        """Parameters of one layer: four matrices of attention and three of a gated feed-forward network."""
        attention = 2 * self.emb_dim * self.emb_dim + 2 * self.emb_dim * (self.kv_dim or self.emb_dim)
        return attention + 3 * self.emb_dim * self.ffn_dim

    @property
    def n_parameters(self) -> int:
        """All parameters, including the input embedding and a separate output head, without vectors."""
        return self.n_layers * self.block_parameters + 2 * self.vocab_size * self.emb_dim

    @property
    def flops_per_token(self) -> float:
        """FLOPs of a forward and a backward pass."""
        products = self.n_parameters - self.vocab_size * self.emb_dim
        return 6 * products + 12 * self.n_layers * self.emb_dim * self.context_length


MODELS: dict[str, Shape] = {
    "125M": Shape(12, 768, 2048, batch_tokens=1 << 19),
    "350M": Shape(24, 1024, 2736, batch_tokens=1 << 19),
    "760M": Shape(24, 1536, 4096, batch_tokens=1 << 19),
    "1.3B": Shape(24, 2048, 5456, batch_tokens=1 << 20),
    "2.7B": Shape(32, 2560, 6832, batch_tokens=1 << 20),
    "7B": Shape(32, 4096, 11008, batch_tokens=1 << 21),
}
"""Depths, widths and batches of Brown et al. 2020 ("GPT-3"), table 2.1; gated networks of 8/3 of the width; 7B is Llama
2's (Touvron et al. 2023)."""


@dataclass(frozen=True)
class Estimate:
    """Estimate of one step of a model on ``devices``; ``efficiency`` is relative to as many devices that work alone."""

    devices: int
    sharding: Sharding
    recomputes: bool
    batch_tokens: int
    step_s: float
    hidden_s: float
    """Communication that arithmetic hides."""
    exposed_s: float
    """Communication that it does not hide."""
    tokens_per_s: float
    efficiency: float
    memory_bytes: float
    """Memory of one device."""
    checkpoint_s: float


def estimate(
    shape: Shape,
    cluster: Cluster,
    devices: int,
    sharding: Sharding,
    *,
    recomputes: bool = False,
    weight_bytes: int = WEIGHT_BYTES,
) -> Estimate:
    """Estimate one optimizer step of ``shape.batch_tokens``, with at least one sequence per device.

    A pass processes as many sequences as memory allows (`RESERVED`), at least one. With sharding, weights
    (``weight_bytes`` per parameter) and gradients are sent in every pass; otherwise gradients are sent once per step.
    """
    batch = max(shape.batch_tokens, devices * shape.context_length)
    tokens = batch / devices
    nodes = math.ceil(devices / cluster.devices_per_node)
    inside = min(devices, cluster.devices_per_node)
    held_by = {"none": 1, "full": devices}[sharding]  # devices that share one copy
    n = shape.n_parameters

    rate = cluster.peak_flops * cluster.sustained * shape.emb_dim / (shape.emb_dim + HALF_RATE_WIDTH)
    arithmetic = tokens * shape.flops_per_token / rate
    wanted = arithmetic
    if recomputes:
        arithmetic *= 4 / 3
    optimizer = OPTIMIZER_TRAFFIC * n / held_by / cluster.memory_bandwidth

    window = shape.context_length * shape.emb_dim
    activations = window * (
        ACTIVATION_BYTES + RECOMPUTED_BYTES * shape.n_layers if recomputes else ACTIVATION_BYTES * shape.n_layers
    )
    gathered = 0 if sharding == "none" else 2 * 4 * shape.block_parameters  # two layers are gathered at a time
    held = STATE_BYTES * n / held_by + (2 * n if sharding == "none" else gathered)
    windows = tokens / shape.context_length
    at_once = min(windows, max(1.0, (RESERVED * cluster.memory_bytes - held) // activations))
    passes = 1 if sharding == "none" else math.ceil(windows / at_once)

    # All devices of a node send at once, so a ring over nodes has the bandwidth of all their network cards together.
    inner = COLLECTIVE_SHARE * cluster.link_bandwidth
    outer = COLLECTIVE_SHARE * min(cluster.link_bandwidth, cluster.network_bandwidth * inside)
    everywhere = inner if nodes == 1 else outer
    hop = cluster.latency_s * math.log2(max(2, devices))
    if sharding == "none":  # gradients in float32: an all-reduce, 2 (n - 1) / n of them
        messages = 8 * n * (devices - 1) / devices / everywhere + shape.n_layers * hop
    else:  # in each pass weights twice, gradients in float32 once
        messages = (2 * weight_bytes + 4) * n * (devices - 1) / devices / everywhere + 3 * shape.n_layers * hop
    messages *= passes
    # The backward pass hides gradients, except those of the last layer; the forward pass hides weights, too.
    cover = arithmetic * (2 / 3 if sharding == "none" else 1) * (1 - 1 / shape.n_layers)
    hidden = min(messages, cover)
    step_s = (arithmetic + optimizer + messages - hidden) * (1 + JITTER * math.log2(nodes))

    alone = wanted + OPTIMIZER_TRAFFIC * n / cluster.memory_bandwidth  # one device, if its memory sufficed
    writers = nodes if sharding == "full" else 1  # nodes that write in parallel
    return Estimate(
        devices=devices,
        sharding=sharding,
        recomputes=recomputes,
        batch_tokens=batch,
        step_s=step_s,
        hidden_s=hidden,
        exposed_s=messages - hidden,
        tokens_per_s=batch / step_s,
        efficiency=min(1.0, alone / step_s),
        memory_bytes=held + at_once * activations,
        checkpoint_s=SAVED_BYTES * n / writers / cluster.storage_bandwidth,
    )


def best(shape: Shape, cluster: Cluster, devices: int) -> Estimate | None:
    """Return the fastest way that fits into memory, or the simplest within 1 % of it; None if none fits."""
    ways = [
        estimate(shape, cluster, devices, sharding, recomputes=recomputes)
        for recomputes in (False, True)
        for sharding in SHARDINGS
    ]
    fitting = [way for way in ways if way.memory_bytes <= RESERVED * cluster.memory_bytes]
    if not fitting:
        return None
    fastest = min(way.step_s for way in fitting)
    return next(way for way in fitting if way.step_s <= 1.01 * fastest)


@dataclass(frozen=True)
class ClusterPlan:
    """The best way for each model on each number of devices."""

    name: str
    cluster: Cluster
    rows: tuple[tuple[str, Estimate | None, int], ...]
    """Model, estimate, devices."""

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as plain values, in seconds, bytes and tokens."""
        return {
            "cluster": {"name": self.name, **dataclasses.asdict(self.cluster)},
            "models": {
                name: dataclasses.asdict(shape) | {"n_parameters": shape.n_parameters} for name, shape in MODELS.items()
            },
            "rows": [
                {
                    "model": model,
                    "devices": devices,
                    "fits": way is not None,
                    **(dataclasses.asdict(way) if way else {}),
                }
                for model, way, devices in self.rows
            ],
        }


def plan_cluster(described: str) -> ClusterPlan:
    """Estimate for a cluster of `CLUSTERS`, or one described in a TOML file with the fields of `Cluster`.

    Raises `ConfigError` if it is neither, or if a field is missing, unknown or not a positive number.
    """
    cluster = CLUSTERS.get(described) or _read(Path(described))
    rows = [(model, best(shape, cluster, n), n) for model, shape in MODELS.items() for n in DEVICES]
    return ClusterPlan(described, cluster, tuple(rows))


def _read(path: Path) -> Cluster:
    try:
        return validated(Cluster, parse_toml(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        names = ", ".join(CLUSTERS)
        raise ConfigError(
            "--cluster {path} is not one of {names} and not a readable file: {reason}",
            path=path,
            names=names,
            reason=first_line(error),
        ) from None
    except ParseError as error:
        raise ConfigError("--cluster {path} is not TOML: {reason}", path=path, reason=error) from None
    except ValueError as error:
        raise ConfigError("--cluster {path} describes no cluster ({reason})", path=path, reason=error) from None
