"""Random samples of limited total size."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from typing import TypeVar

__all__ = ["subsample"]

T = TypeVar("T")


def subsample(items: Iterable[T], limit: int | None, size: Callable[[T], int], *, seed: int = 0) -> list[T]:
    """Return a uniform random sample of items whose sizes add up to at most ``limit`` (None: all items), in their
    order.

    Each item gets a random number, and those with the lowest are kept (Efraimidis and Spirakis 2006, with equal
    weights): the items are read once, only the sample is in memory, and the same items, ``limit`` and ``seed`` give the
    same sample. At least one item is kept, however large it is.
    """
    draw = random.Random(seed).random
    kept: list[tuple[float, int, int, T]] = []  # a heap with the highest draw on top
    total, highest = 0, 1.0
    for i, item in enumerate(items):
        drawn = draw()
        if drawn > highest:
            continue
        n = size(item)
        heapq.heappush(kept, (-drawn, i, n, item))
        total += n
        while limit is not None and total > limit and len(kept) > 1:
            dropped, _, n, _ = heapq.heappop(kept)
            total, highest = total - n, -dropped
    return [item for _, _, _, item in sorted(kept, key=lambda entry: entry[1])]
