"""Estimate speed, memory, time and quality of training on this machine, without training."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mamegpt.arguments import checked
from mamegpt.config import Precision, TrainConfig
from mamegpt.data.schema import GUESS, Schema
from mamegpt.data.shards import is_shards, open_shards
from mamegpt.data.sources import read_texts
from mamegpt.errors import ConfigError, DataError, is_out_of_memory
from mamegpt.models.base import LanguageModel, blocks
from mamegpt.models.registry import build_without_memory
from mamegpt.planning import scaling_law
from mamegpt.planning.data_sheets import ACTIVATION_BYTES, DATA_SHEETS, OWN_BYTES, DataSheet, seconds_per_step
from mamegpt.presets import SIZES, Size, preset
from mamegpt.system.devices import choose_device, free_memory
from mamegpt.system.hardware import peak_memory, reset_peak_memory
from mamegpt.text.subsample import subsample
from mamegpt.tokenizer.tokenizer import Tokenizer
from mamegpt.tokenizer.vocab_size import characters_per_token, choose_vocab_size
from mamegpt.training.autotune import Probe, kinds
from mamegpt.training.bigram_init import can_fit_bigrams, fit_operations
from mamegpt.training.engine import choose_engine, load_engine
from mamegpt.training.forward import micro_batch
from mamegpt.training.ngram_targets import COUNTED_TOKENS, NgramTargets

__all__ = ["CorpusSize", "Cost", "Plan", "plan"]

SAMPLE_CHARACTERS = 1_000_000
SAMPLE_TOKENS = 1 << 18

PARAMETER_BYTES = 16
"""Bytes per parameter: weight, gradient and the optimizer's two averages, in float32."""


@dataclass(frozen=True)
class Cost:
    """Time and memory of one size. If it was not ``measured``, it is extrapolated from the largest size that was, or
    estimated from a data sheet.
    """

    size: Size
    n_parameters: int
    tokens_per_s: float
    memory_bytes: int
    measured: bool


@dataclass(frozen=True)
class CorpusSize:
    """The size of a training text. ``n_tokens`` is exact for token shards, else estimated from a sample."""

    n_characters: int
    n_tokens: int


@dataclass(frozen=True)
class Plan:
    """The costs of all sizes, and the expected quality of each after ``minutes`` of training."""

    device: str
    precision: Precision
    costs: tuple[Cost, ...]
    minutes: float
    vocab_size: int
    is_vocab_size_chosen: bool
    corpus: CorpusSize | None
    counting_s: float
    """Seconds to count the n-grams of the text."""
    measuring_s: float
    free_memory_bytes: int
    data_sheet: DataSheet | None = None
    """The GPU that the costs are estimated for; None if they were measured here."""

    def start_s(self, cost: Cost) -> float:
        """Return the seconds before the first step of a size: to count n-grams, and to fit the weights to the bigrams.

        The fit computes as fast as the training.
        """
        config = preset(cost.size)
        if not can_fit_bigrams(config):
            return self.counting_s
        flops_per_s = cost.tokens_per_s * operations(config, self.vocab_size)[1]
        return self.counting_s + fit_operations(config, self.vocab_size) / flops_per_s

    def n_tokens(self, cost: Cost) -> int:
        """Return the number of tokens that a size is trained on in the minutes of the plan."""
        return max(0, int(cost.tokens_per_s * (self.minutes * 60 - self.start_s(cost))))

    def corpus_s(self, cost: Cost) -> float:
        """Return the seconds for one epoch. The plan must have a corpus."""
        assert self.corpus is not None
        return self.corpus.n_tokens / cost.tokens_per_s

    def bits_per_character(self, cost: Cost) -> float:
        """Return the bits per character expected on Japanese Wikipedia.

        Repeated epochs count less than new text. Without training, all tokens are equally likely.
        """
        law, _ = scaling_law.expected_quality()
        n_tokens: float = max(1, self.n_tokens(cost))
        if self.corpus is not None:
            n_tokens = scaling_law.useful_tokens(n_tokens, self.corpus.n_tokens)
        untrained = math.log2(self.vocab_size) / characters_per_token(self.vocab_size)
        return min(law(cost.n_parameters, n_tokens), untrained)

    @property
    def best(self) -> Cost:
        """The size with the best expected quality, of those that fit into the free memory."""
        fitting = [cost for cost in self.costs if cost.memory_bytes <= self.free_memory_bytes]
        return min(fitting or self.costs[:1], key=self.bits_per_character)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        rows = [
            {
                **asdict(cost),
                "start_s": self.start_s(cost),
                "n_tokens": self.n_tokens(cost),
                "bits_per_character": self.bits_per_character(cost),
            }
            | ({"corpus_s": self.corpus_s(cost)} if self.corpus else {})
            for cost in self.costs
        ]
        return {**asdict(self), "costs": rows, "best": self.best.size}


@checked
def plan(
    minutes: float = 10.0,
    *,
    data: str | Path = "",
    split: str = "train",
    tokenizer: str | Path = "",
    vocab_size: int = 0,
    device: str = "auto",
    gpu: str = "",
    schema: Schema = GUESS,
    seconds: float = 20.0,
) -> Plan:
    """Estimate the result of ``minutes`` of training, from a benchmark of about ``seconds`` on this machine.

    With ``data``, the training text, the plan also contains the number of epochs. The vocabulary size is that of the
    tokenizer or the token shards if they are given, else ``vocab_size`` (0: that of `choose_vocab_size`). With ``gpu``,
    a name in `DATA_SHEETS`, nothing but the counting of n-grams is measured: the rest is estimated for that GPU.

    Raises `ConfigError` for impossible numbers, and what reading the data or the tokenizer raises.
    """
    if not minutes > 0:
        raise ConfigError("--minutes must be above 0 (got {minutes:g})", minutes=minutes)
    if tokenizer and vocab_size:
        raise ConfigError("--tokenizer brings its own --vocab-size; leave one of them out")
    if vocab_size < 0:
        raise ConfigError("--vocab-size must be at least 1 (got {vocab_size})", vocab_size=vocab_size)
    if gpu and gpu not in DATA_SHEETS:
        raise ConfigError("--gpu must be one of {names} (got {gpu})", names=", ".join(DATA_SHEETS), gpu=gpu)
    loaded = Tokenizer.load(tokenizer) if tokenizer else None
    if loaded:
        vocab_size = loaded.vocab_size
    elif data and is_shards(data):
        vocab_size = open_shards(Path(data))[0].vocab_size
    is_chosen = not vocab_size
    corpus = None
    if data:
        n_characters, n_tokens = count(data, split, loaded, schema)
        vocab_size = vocab_size or choose_vocab_size(minutes, n_characters)
        corpus = CorpusSize(n_characters, n_tokens or round(n_characters / characters_per_token(vocab_size)))
    vocab_size = vocab_size or choose_vocab_size(minutes)
    begin = time.perf_counter()
    counting_s = measure_counting(vocab_size, corpus.n_tokens if corpus else COUNTED_TOKENS)
    if gpu:
        sheet = DATA_SHEETS[gpu]
        return Plan(
            gpu,
            sheet.precision,
            tuple(estimate(vocab_size, sheet)),
            minutes,
            vocab_size,
            is_chosen,
            corpus,
            counting_s,
            time.perf_counter() - begin,
            round(sheet.memory_bytes),
            sheet,
        )
    chosen = choose_device(device).device
    free = free_memory(chosen)
    precision, costs = measure(vocab_size, chosen, seconds)
    elapsed_s = time.perf_counter() - begin
    return Plan(
        str(chosen), precision, tuple(costs), minutes, vocab_size, is_chosen, corpus, counting_s, elapsed_s, free
    )


def count(data: str | Path, split: str, tokenizer: Tokenizer | None, schema: Schema = GUESS) -> tuple[int, int | None]:
    """Return the characters and tokens of a text; tokens are known of shards, and estimated with a tokenizer.

    It encodes a `subsample` of the documents.
    """
    if is_shards(data):
        train = open_shards(Path(data))[0].splits["train"]
        return train.n_characters, train.n_tokens
    n_characters = 0

    def counted() -> Iterator[str]:
        nonlocal n_characters
        for text in read_texts(data, split, schema):
            n_characters += len(text)
            yield text

    sample = subsample(counted(), SAMPLE_CHARACTERS, len)
    if not n_characters:
        raise DataError("{data} holds no text", data=data)
    if tokenizer is None:
        return n_characters, None
    n_tokens = sum(map(len, tokenizer.encode_batch(sample))) + len(sample)  # including end-of-text tokens
    return n_characters, round(n_characters * n_tokens / sum(map(len, sample)))


def measure_counting(vocab_size: int, n_tokens: int) -> float:
    """Return how many seconds it takes to count the n-grams of ``n_tokens`` tokens; a small part is measured."""
    tokens = np.random.default_rng(0).integers(vocab_size, size=SAMPLE_TOKENS)
    begin = time.perf_counter()
    NgramTargets(tokens, vocab_size, seed=0)
    return (time.perf_counter() - begin) * min(n_tokens, COUNTED_TOKENS) / SAMPLE_TOKENS


def measure(vocab_size: int, device: torch.device, seconds: float) -> tuple[Precision, list[Cost]]:
    """Time the sizes, smallest first, as long as ``seconds`` allow; extrapolate the others from their number of
    operations.

    The process's peak memory grows with the sizes, so each size can be measured in turn. Precision is measured once, in
    the first. Of sizes for which the memory does not suffice nothing is measured.
    """
    costs: list[Cost] = []
    is_full = False
    flops_per_s = probe_s_per_flop = 0.0
    other_bytes = 0
    begin = time.perf_counter()
    engine = choose_engine(preset(), device)
    native = load_engine(engine, device, must=False)
    candidates = kinds(engine, "auto", device, preset().emb_dim)
    for size in SIZES:
        config = preset(size)
        n_parameters, flops = operations(config, vocab_size)
        copy_bytes = saved_bytes(config, vocab_size) if device.type == "cpu" else 0  # on a GPU, it is in host memory
        held_bytes = state_bytes(config, n_parameters, device) + copy_bytes
        start = time.perf_counter()
        if costs and (is_full or start - begin + probe_s_per_flop * flops > seconds):
            costs.append(Cost(size, n_parameters, flops_per_s / flops, other_bytes + held_bytes, measured=False))
            continue
        reset_peak_memory(device)
        try:
            probe = Probe(config, vocab_size, device, native=native)
            times = probe.seconds_per_step(candidates)
        except (MemoryError, RuntimeError) as error:
            if not (costs and is_out_of_memory(error)):
                raise
            is_full = True
            costs.append(Cost(size, n_parameters, flops_per_s / flops, other_bytes + held_bytes, measured=False))
            continue
        step_s, candidates = min((s, [kind]) for s, kind in zip(times, candidates, strict=True))
        tokens_per_s = config.batch_size * config.context_length / step_s
        costs.append(Cost(size, n_parameters, tokens_per_s, peak_memory(device) + copy_bytes, measured=True))
        flops_per_s, probe_s_per_flop = flops * tokens_per_s, (time.perf_counter() - start) / flops
        other_bytes = costs[-1].memory_bytes - held_bytes
    return candidates[0].precision, costs


def estimate(vocab_size: int, sheet: DataSheet) -> list[Cost]:
    """Estimate all sizes from the data sheet of a GPU."""
    costs = []
    for size in SIZES:
        config = preset(size)
        n_parameters, flops = operations(config, vocab_size)
        n_tokens = config.batch_size * config.context_length
        step_s = seconds_per_step(
            sheet,
            n_tokens=n_tokens,
            flops=flops,
            n_parameters=n_parameters,
            n_layers=config.n_layers,
            emb_dim=config.emb_dim,
            vocab_size=vocab_size,
        )
        memory_bytes = OWN_BYTES + state_bytes(config, n_parameters, torch.device("cuda"))
        costs.append(Cost(size, n_parameters, n_tokens / step_s, memory_bytes, measured=False))
    return costs


def state_bytes(config: TrainConfig, n_parameters: int, device: torch.device) -> int:
    """Return the memory for parameters, gradients, averages and activations."""
    tokens = micro_batch(config, config.batch_size, device) * config.context_length
    return PARAMETER_BYTES * n_parameters + ACTIVATION_BYTES * tokens * config.n_layers * config.emb_dim


def saved_bytes(config: TrainConfig, vocab_size: int) -> int:
    """Return the bytes of a checkpoint, and of the copy from which a thread writes it during training.

    Each weight has two averages in float32; weights that Muon trains have one.
    """
    model = _without_memory(config, vocab_size)
    n_parameters = sum(p.numel() for p in model.parameters())
    n_muon = sum(p.numel() for p in blocks(model).parameters() if p.ndim == 2) if config.optimizer == "muon" else 0
    return 12 * n_parameters - 4 * n_muon


def _without_memory(config: TrainConfig, vocab_size: int) -> LanguageModel:
    return build_without_memory(config.architecture, config.model(vocab_size))


def operations(config: TrainConfig, vocab_size: int) -> tuple[int, int]:
    """Return the number of parameters, and the floating-point operations per token of forward and backward pass.

    These are 6 for each weight of a matrix product (all matrices except the embedding table), and 6 T C per layer for
    attention's two products with a causal mask.
    """
    model = _without_memory(config, vocab_size)
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    table = 0 if config.tie_embeddings else vocab_size * config.emb_dim
    attention = 6 * config.n_layers * config.context_length * config.emb_dim
    return sum(p.numel() for p in model.parameters()), 6 * (matrices - table) + attention
