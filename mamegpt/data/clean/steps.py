"""The names of what `clean` can do to a document, for it and for the command line, which would else load all of it."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["STEPS", "Normalisation", "Step"]

Normalisation = Literal["nfc", "nfkc", "none"]
Step = Literal[
    # Edits, in the order of `EDITS`; before them comes the normalisation.
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
    # What it shares with kept documents or with test items. Whole documents come before lines, or the second
    # copy of a document would lose all its lines instead of being counted as a copy.
    "duplicates",
    "contamination",
    "near-duplicates",
    "repeated-lines",
]
STEPS: tuple[Step, ...] = get_args(Step)
"""All steps in the order they are taken in."""
