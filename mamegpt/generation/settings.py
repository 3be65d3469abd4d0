"""The settings of generation, each with one sentence that is also its command-line help; torch is not needed here."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TypedDict

from mamegpt.arguments import checked
from mamegpt.errors import ConfigError, ModelError
from mamegpt.messages import join, msg

__all__ = ["Sampling", "SamplingOptions", "check_finite"]

MIN_FACTOR, MAX_FACTOR = 1e-3, 1e6
"""Bounds of temperature and repetition penalty: logits up to 1e29, divided and multiplied by them, fit float32."""
SEEDS = 1 << 63
"""Number of seeds; they run from 0."""


@checked
@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen (sampling). The default is greedy decoding: always the most probable token."""

    temperature: float = 0.0
    """Sampling temperature: 0 is greedy decoding, 1 samples from the model's distribution."""
    top_k: int = 0
    """Sample among this many most probable tokens only (0: all)."""
    top_p: float = 1.0
    """Nucleus sampling: among the most probable tokens until their probabilities add up to this (1: all)."""
    min_p: float = 0.0
    """Sample among tokens at least this share as probable as the most probable one (0: all)."""
    repetition_penalty: float = 1.0
    """Repetition penalty: divide the logits of tokens already there by this (1: off; 1.1 to 1.3 discourages loops)."""
    seed: int = 0
    """Random seed of sampling; the i-th of several samples, counted from 0, uses seed + i."""
    stop: list[str] = field(default_factory=list)
    """Stop sequences: end before any of these strings appears."""

    @checked
    def of_text(self, i: int) -> Sampling:
        """Return the settings of the i-th of several texts: its seed is ``(seed + i) % 2**63``."""
        return dataclasses.replace(self, seed=(int(self.seed) + i) % SEEDS)

    def validate(self) -> None:
        """Raise `ConfigError` with every problem in one line."""
        found = []
        if self.temperature != 0 and not MIN_FACTOR <= self.temperature <= MAX_FACTOR:
            found.append(
                msg(
                    "--temperature must be 0 or between {least:g} and {most:g} (got {temperature:g})",
                    least=MIN_FACTOR,
                    most=MAX_FACTOR,
                    temperature=self.temperature,
                )
            )
        if self.top_k < 0:
            found.append(msg("--top-k must be at least 0 (got {top_k})", top_k=self.top_k))
        if not 0 < self.top_p <= 1:
            found.append(msg("--top-p must be above 0 and at most 1 (got {top_p})", top_p=self.top_p))
        if not 0 <= self.min_p <= 1:
            found.append(msg("--min-p must be between 0 and 1 (got {min_p})", min_p=self.min_p))
        if not MIN_FACTOR <= self.repetition_penalty <= MAX_FACTOR:
            found.append(
                msg(
                    "--repetition-penalty must be between {least:g} and {most:g} (got {repetition_penalty:g})",
                    least=MIN_FACTOR,
                    most=MAX_FACTOR,
                    repetition_penalty=self.repetition_penalty,
                )
            )
        if not 0 <= self.seed < SEEDS:
            found.append(msg("--seed must be between 0 and 2**63 - 1 (got {seed})", seed=self.seed))
        if "" in self.stop:
            found.append(msg("--stop must not be empty"))
        if found:
            raise ConfigError(join("; ", found))


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
