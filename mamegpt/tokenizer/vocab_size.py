"""How many pieces a tokenizer should have, by the size of its model: from runs of our own.

More pieces make a text shorter, but every token costs more in the head, and most pieces are seen too seldom to be
learned in minutes. `benchmarks/research/vocabulary_runs.py` trains models of each size with vocabularies of each size,
all for the same processor time, on Japanese Wikipedia. The runs are kept in ``vocabulary_runs.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources

__all__ = ["VocabularyRun", "best_vocab_sizes", "vocabulary_runs"]

RUNS_FILE = "vocabulary_runs.json"


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
