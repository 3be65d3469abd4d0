"""The settings of generation, each with one sentence that is also its command-line help; torch is not needed here."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TypedDict

from mamegpt.arguments import checked
from mamegpt.errors import ConfigError, ModelError

__all__ = ["Sampling", "SamplingOptions", "check_finite"]

MIN_FACTOR, MAX_FACTOR = 1e-3, 1e6
"""Bounds of temperature and repetition penalty: logits up to 1e29, divided and multiplied by them, fit float32."""
SEEDS = 1 << 63
"""Number of seeds; they run from 0."""


@checked
@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen. The default is greedy: always the most likely."""

    temperature: float = 0.0
    """Randomness: 0 always takes the most likely token, 1 samples as the model was trained."""
    top_k: int = 0
    """Sample among this many most likely tokens only (0: all)."""
    top_p: float = 1.0
    """Sample among the fewest tokens whose probabilities add up to this (1: all)."""
    min_p: float = 0.0
    """Sample among tokens at least this share as likely as the most likely one (0: all)."""
    repetition_penalty: float = 1.0
    """Divide the logits of tokens already there by this (1: off; 1.1 to 1.3 discourages loops)."""
    seed: int = 0
    """Fixes the samples; the i-th of several texts, counted from 0, uses seed + i."""
    stop: list[str] = field(default_factory=list)
    """End before any of these strings appears."""

    @checked
    def of_text(self, i: int) -> Sampling:
        """Return the settings of the i-th of several texts: its seed is ``(seed + i) % 2**63``."""
        return dataclasses.replace(self, seed=(int(self.seed) + i) % SEEDS)

    def validate(self) -> None:
        """Raise `ConfigError` with every problem in one line."""
        found = []
        if self.temperature != 0 and not MIN_FACTOR <= self.temperature <= MAX_FACTOR:
            found.append(
                f"--temperature must be 0 or between {MIN_FACTOR:g} and {MAX_FACTOR:g} (got {self.temperature:g})"
            )
        if self.top_k < 0:
            found.append(f"--top-k must not be negative, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            found.append(f"--top-p must be above 0 and at most 1, not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            found.append(f"--min-p must lie between 0 and 1, not {self.min_p}")
        if not MIN_FACTOR <= self.repetition_penalty <= MAX_FACTOR:
            found.append(
                f"--repetition-penalty must be between {MIN_FACTOR:g} and {MAX_FACTOR:g} "
                f"(got {self.repetition_penalty:g})"
            )
        if not 0 <= self.seed < SEEDS:
            found.append(f"--seed must lie between 0 and 2**63 - 1, not {self.seed}")
        if "" in self.stop:
            found.append("--stop must not be empty")
        if found:
            raise ConfigError("; ".join(found))


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling` as keyword arguments."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int
    stop: list[str]


def check_finite(largest: float) -> None:
    """Raise `ModelError` if the largest of the values a model computed is not a finite number."""
    if not math.isfinite(largest):
        raise ModelError("the model computes NaN or infinite values: its weights are damaged; use another checkpoint")
