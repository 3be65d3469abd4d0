"""Text for display: visible control characters, and numbers as a line of bars."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

__all__ = ["sparkline", "visible"]

BARS = "▁▂▃▄▅▆▇█"

_CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""C0 and C1 controls but tab and LF; embeddings, overrides and isolates of the bidirectional algorithm."""


def sparkline(values: Sequence[float], width: int = 48) -> str:
    """Return values as one line of bars, averaged to at most ``width`` of them."""
    if not values:
        return ""
    n = min(width, len(values))
    edges = [len(values) * i // n for i in range(n + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)


def visible(text: str) -> str:
    """Return ``text`` with control characters and bidirectional overrides as ``<U+001B>``, except LF and tab.

    A terminal would execute them, and texts, titles, tokens and file names come from untrusted sources.
    """
    return _CONTROLS.sub(lambda found: f"<U+{ord(found[0]):04X}>", text)
