"""What the tests of the native engine share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mamegpt.native.build import InstructionSet, best_instruction_set

__all__ = ["SETS", "SETS_OF_BF16", "threads"]

SETS: list[InstructionSet] = sorted({best_instruction_set(), "portable"})
"""The best set of instructions that this processor has, and the one that all have."""
SETS_OF_BF16: list[InstructionSet] = sorted({*SETS, *(["avx512bf16"] if best_instruction_set() == "amx" else [])})
"""The same, for what those sets compute in ways of their own."""


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Compute on n threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
