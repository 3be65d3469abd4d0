"""A proportion with its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mamegpt.system.validation import Count, FromJSON, Number

__all__ = ["Proportion"]


@dataclass(frozen=True)
class Proportion(FromJSON, extra="ignore"):
    """A share of ``n`` items."""

    share: Number
    n: Count

    @property
    def standard_error(self) -> float:
        """The standard error of the share, for ``n`` independent items."""
        return math.sqrt(self.share * (1 - self.share) / self.n)

    def __str__(self) -> str:
        return f"{self.share:.1%} ± {self.standard_error:.1%}"
