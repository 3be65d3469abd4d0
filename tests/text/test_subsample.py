"""A sample is drawn over the whole, within its limit, and is the same again."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from mamegpt.text.subsample import subsample


def plain_subsample(sizes: list[int], limit: int, seed: int) -> list[int]:
    """Sort all by their draws, and take them until one does not fit."""
    dice = Random(seed)
    drawn = sorted((dice.random(), i) for i in range(len(sizes)))
    chosen: list[int] = []
    for _, i in drawn:
        if chosen and sum(sizes[c] for c in chosen) + sizes[i] > limit:
            break
        chosen.append(i)
        if sum(sizes[c] for c in chosen) > limit:
            break
    return sorted(chosen)


@given(st.lists(st.integers(1, 50)), st.integers(1, 300), st.integers(0, 9))
def test_it_is_what_sorting_all_draws_gives(sizes: list[int], limit: int, seed: int) -> None:
    got = subsample(range(len(sizes)), limit, sizes.__getitem__, seed=seed)
    assert got == plain_subsample(sizes, limit, seed)
    assert sum(sizes[i] for i in got) <= limit or len(got) == 1
    assert subsample(range(len(sizes)), None, sizes.__getitem__) == list(range(len(sizes)))


def test_of_sources_one_after_the_other_each_has_its_share() -> None:
    texts = ["問い"] * 3000 + ["答え"] * 1000
    for seed in range(5):
        n = subsample(texts, 800, len, seed=seed).count("答え")
        assert 70 < n < 130  # of 400, where a first part would have none


def test_no_stride_of_the_items_is_preferred() -> None:
    texts = [f"{i % 2}" for i in range(4000)]
    assert 850 < subsample(texts, 2000, len).count("1") < 1150


def test_items_are_read_once_and_measured_only_if_they_may_stay() -> None:
    n_read = n_measured = 0

    def items() -> Iterator[int]:
        nonlocal n_read
        for i in range(10_000):
            n_read += 1
            yield i

    def size(_: int) -> int:
        nonlocal n_measured
        n_measured += 1
        return 1

    assert len(subsample(items(), 10, size)) == 10
    assert n_read == 10_000 and n_measured < 300
