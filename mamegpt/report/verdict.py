"""The verdict on bits per character, in words: of a model alone, or compared with an n-gram model."""

from __future__ import annotations

from typing import Literal, NamedTuple

from mamegpt.messages import Message, join, msg

__all__ = ["Verdict", "verdict"]


class Verdict(NamedTuple):
    """A judgment of bits per character; ``choices`` is 2 to their power."""

    kind: Literal["alone", "better", "worse"]
    bits: float
    choices: float
    baseline: float

    @property
    def line(self) -> Message:
        """The bits and the comparison in words."""
        parts = [
            msg(
                "{bits:.3f} bits per character: as uncertain as a choice among {choices:.1f} characters",
                bits=self.bits,
                choices=self.choices,
            )
        ]
        if self.kind == "better":
            parts.append(msg("better than the n-gram model's {baseline:.3f} bits", baseline=self.baseline))
        if self.kind == "worse":
            parts.append(
                msg(
                    "no better than the n-gram model's {baseline:.3f} bits: more training would help",
                    baseline=self.baseline,
                )
            )
        return join("; ", parts)


def verdict(bits: float, baseline: float | None = None) -> Verdict:
    """Judge bits per character by the bits of an n-gram model of the same text (None: not known).

    A model that is no better has learned how often words follow one another, and nothing else.
    """
    kind: Literal["alone", "better", "worse"] = "alone"
    if baseline is not None:
        kind = "better" if bits < baseline else "worse"
    return Verdict(kind, bits, 2 ** min(bits, 64), baseline or 0.0)
