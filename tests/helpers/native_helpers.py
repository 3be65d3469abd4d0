"""What the tests of the native engine share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mamegpt.native.build import InstructionSet, best_instruction_set

__all__ = ["SETS", "threads"]

SETS: list[InstructionSet] = sorted({best_instruction_set(), "portable"})
"""The sets of instructions that this processor has."""


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Compute on n threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
