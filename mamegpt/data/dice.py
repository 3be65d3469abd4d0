"""Draws for text that a program makes: the same in all Python versions."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["Dice", "is_held_out"]

T = TypeVar("T")


class Dice:
    """Draws from a seed, by `random()` alone, which is guaranteed to be the same in all Python versions."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    def one(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[int(self.random.random() * len(options))]

    def some(self, options: Sequence[T], k: int) -> list[T]:
        """Return ``k`` different ones of the options."""
        left = list(options)
        return [left.pop(int(self.random.random() * len(left))) for _ in range(k)]

    def number(self, low: int, high: int) -> int:
        """Return a whole number from ``low`` to ``high``."""
        return low + int(self.random.random() * (high - low + 1))

    def choose(self, text: str) -> str:
        """Return a text with one alternative in place of each ``[a|b]``."""
        while "[" in text:
            head, _, rest = text.partition("[")
            inside, _, tail = rest.partition("]")
            text = head + self.one(inside.split("|")) + tail
        return text


def is_held_out(text: str, share: float, key: bytes) -> bool:
    """Return whether a text is among the ``share`` of all that is kept out of training, by its hash with a key.

    The key makes it another hash than that of `write_shards`, which holds texts out for validation.
    """
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=key).digest()
    return int.from_bytes(digest, "little") < share * 2**64
