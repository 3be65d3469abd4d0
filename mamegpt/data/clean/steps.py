"""The names of the cleaning steps. In a module of their own, so that the command line need not import the steps."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["STEPS", "Normalisation", "Step"]

Normalisation = Literal["nfc", "nfkc", "none"]
Step = Literal[
    # Edits, in the order of `EDITS`; normalization comes before them.
    "aozora",
    "markup",
    "empty-brackets",
    "boilerplate",
    "personal-data",
    "white-space",
    # Reasons to drop a document, judged by what the edits left, in the order of `FILTERS`: the cheapest first.
    "short",
    "no-sentence-end",
    "not-japanese",
    "repetitive",
    # Comparisons with kept documents and with test items. Whole documents come before lines: otherwise the second
    # copy of a document would lose all its lines instead of being counted as a duplicate.
    "duplicates",
    "contamination",
    "near-duplicates",
    "repeated-lines",
]
STEPS: tuple[Step, ...] = get_args(Step)
"""All steps, in the order in which they run."""
