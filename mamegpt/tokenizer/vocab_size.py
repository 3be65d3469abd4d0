"""The vocabulary size of a tokenizer: chosen for the time of training and the length of the text.

More pieces make a text shorter, but every token costs more in the head, and most pieces are seen too seldom to be
learned in minutes. `benchmarks/research/vocabulary_runs.py` trains models of each size with vocabularies of each size,
all for the same processor time, on Japanese Wikipedia. The runs are kept in ``vocabulary_runs.json``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple

__all__ = [
    "CHOICES",
    "VocabularyRun",
    "best_vocab_sizes",
    "characters_per_token",
    "choose_vocab_size",
    "vocabulary_runs",
]

RUNS_FILE = "vocabulary_runs.json"


class Choice(NamedTuple):
    """A vocabulary size, and the least time and text with which it is better than a smaller one."""

    vocab_size: int
    minutes: float
    """Minutes of training of the default model on a CPU, between those of a fast and a slow one (docs/log.md)."""
    n_characters: int
    """Characters of text with which 95 % of the pieces occur some ten times (docs/log.md)."""
    characters_per_token: float
    """Characters per token of Japanese Wikipedia."""


CHOICES = (
    Choice(2_000, 0, 0, 1.08),
    Choice(4_000, 0, 500_000, 1.29),
    Choice(8_000, 1, 2_000_000, 1.46),
    Choice(16_000, 5, 10_000_000, 1.67),
)


def choose_vocab_size(minutes: float, n_characters: float = math.inf) -> int:
    """Return the vocabulary size for so many minutes of training on a text of ``n_characters``.

    A GPU trains on more text in the same time; its runs need a larger size.
    """
    return max(it.vocab_size for it in CHOICES if minutes >= it.minutes and n_characters >= it.n_characters)


def characters_per_token(vocab_size: int) -> float:
    """Return the characters per token of Japanese Wikipedia, to estimate those of a tokenizer that does not exist yet.

    Between the sizes of `CHOICES` they are interpolated by the logarithm.
    """
    import numpy as np

    sizes = [math.log(it.vocab_size) for it in CHOICES]
    return float(np.interp(math.log(vocab_size), sizes, [it.characters_per_token for it in CHOICES]))


@dataclass(frozen=True)
class VocabularyRun:
    """A finished run of ``processor_s`` seconds, judged on text that was held out."""

    size: str
    vocab_size: int
    processor_s: int
    n_parameters: int
    steps: int
    bits_per_character: float


def vocabulary_runs() -> list[VocabularyRun]:
    """Return the runs there are, by size of model and of vocabulary."""
    text = resources.files("mamegpt.tokenizer").joinpath(RUNS_FILE).read_text(encoding="utf-8")
    return [VocabularyRun(**run) for run in json.loads(text)]


def best_vocab_sizes() -> dict[str, int]:
    """Return the number of pieces with the fewest bits per character, by size of model."""
    best: dict[str, VocabularyRun] = {}
    for run in vocabulary_runs():
        if run.size not in best or run.bits_per_character < best[run.size].bits_per_character:
            best[run.size] = run
    return {size: run.vocab_size for size, run in best.items()}
