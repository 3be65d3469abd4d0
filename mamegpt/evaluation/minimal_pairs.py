"""Minimal pairs: two Japanese sentences that differ in one thing, one of them correct; which one does a model prefer?

The sentences (``minimal_pairs.jsonl``) were written for this project, with frequent words, for ten phenomena. The
method is that of BLiMP (Warstadt et al. 2020): a pair counts as right if the good sentence has the higher probability
as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mamegpt.evaluation.proportion import Proportion
from mamegpt.evaluation.scorer import Scorer, log_likelihoods
from mamegpt.messages import msg
from mamegpt.system.validation import FromJSON

__all__ = ["PHENOMENA", "Pair", "PairScores", "minimal_pairs", "read_pairs"]

PHENOMENA: tuple[str, ...] = (
    msg("particles"),
    msg("counters"),
    msg("honorifics"),
    msg("transitivity"),
    msg("kana and kanji"),
    msg("word order"),
    msg("tense"),
    msg("quantity"),
    msg("reference"),
    msg("negation"),
)


@dataclass(frozen=True)
class Pair:
    """A good and a bad sentence, and the phenomenon that they test."""

    phenomenon: str
    good: str
    bad: str


@dataclass(frozen=True)
class PairScores(FromJSON, extra="ignore"):
    """Shares of pairs that are right (chance: 0.5); a tie counts half.

    ``total`` compares the probabilities of whole sentences, ``per_character`` the mean log-probability per character,
    ``by_phenomenon`` whole sentences again.
    """

    total: Proportion
    per_character: Proportion
    by_phenomenon: dict[str, Proportion]


@cache
def read_pairs() -> tuple[Pair, ...]:
    """Return the bundled pairs, in the order of `PHENOMENA`."""
    text = Path(__file__).with_name("minimal_pairs.jsonl").read_text(encoding="utf-8")
    return tuple(Pair(**json.loads(line)) for line in text.splitlines())


def minimal_pairs(scorer: Scorer) -> PairScores:
    """Score the bundled pairs."""
    pairs = read_pairs()
    good = log_likelihoods(scorer, [pair.good for pair in pairs])
    bad = log_likelihoods(scorer, [pair.bad for pair in pairs])
    right = [_right(g, b) for g, b in zip(good, bad, strict=True)]
    per_character = [_right(g / len(pair.good), b / len(pair.bad)) for pair, g, b in zip(pairs, good, bad, strict=True)]
    about = {
        name: _share([r for pair, r in zip(pairs, right, strict=True) if pair.phenomenon == name]) for name in PHENOMENA
    }
    return PairScores(_share(right), _share(per_character), about)


def _right(good: float, bad: float) -> float:
    return (good > bad) + (good == bad) / 2


def _share(right: Sequence[float]) -> Proportion:
    return Proportion(sum(right) / len(right), len(right))
