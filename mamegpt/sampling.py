"""The settings of generation, each with one sentence that is also its command-line help; torch is not needed here."""

from __future__ import annotations

from dataclasses import dataclass, field

from mamegpt.errors import ConfigError

__all__ = ["Sampling"]


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
    """Fixes the samples; the i-th of several uses seed + i."""
    stop: list[str] = field(default_factory=list)
    """End before any of these strings appears."""

    def validate(self) -> None:
        """Raise `ConfigError` with every problem in one line."""
        found = []
        if self.temperature < 0:
            found.append(f"--temperature must not be negative, not {self.temperature}")
        if self.top_k < 0:
            found.append(f"--top-k must not be negative, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            found.append(f"--top-p must be above 0 and at most 1, not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            found.append(f"--min-p must lie between 0 and 1, not {self.min_p}")
        if not self.repetition_penalty > 0:
            found.append(f"--repetition-penalty must be above 0, not {self.repetition_penalty}")
        if not 0 <= self.seed < 1 << 63:
            found.append(f"--seed must lie between 0 and 2**63 - 1, not {self.seed}")
        if "" in self.stop:
            found.append("--stop must not be empty")
        if found:
            raise ConfigError("; ".join(found))
