"""The order of windows is a fair, pure function."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mamegpt.data.window_order import WindowOrder, feistel_key, permute
from mamegpt.errors import DataError


@settings(deadline=None)
@given(n=st.one_of(st.integers(1, 300), st.sampled_from([1023, 1024, 1025, 4096, 4097, 10_000])), seed=st.integers(0))
def test_permute_is_a_permutation(n: int, seed: int) -> None:
    key = feistel_key(seed, 0)
    assert sorted(permute(np.arange(n), n, key).tolist()) == list(range(n))


@settings(deadline=None)
@given(n=st.integers(1, 1 << 60), index=st.integers(0), seed=st.integers(0, 99))
def test_permute_stays_inside_at_any_size(n: int, index: int, seed: int) -> None:
    out = permute(np.array([index % n]), n, feistel_key(seed, 1))
    assert 0 <= out[0] < n and out.dtype == np.int64


def test_permute_sends_every_index_everywhere_equally_often() -> None:
    n, runs = 40, 4000
    counts = np.zeros((n, n))
    for seed in range(runs):
        counts[np.arange(n), permute(np.arange(n), n, feistel_key(seed, 0))] += 1
    chi_square = ((counts - runs / n) ** 2 / (runs / n)).sum()
    assert chi_square / (n - 1) ** 2 < 1.2  # its mean is 1 and its deviation 0.036 for fair shuffles


ORDERS = st.builds(
    WindowOrder,
    n_tokens=st.integers(40, 400),
    context_length=st.integers(1, 39),
    batch_size=st.integers(1, 12),
    seed=st.integers(0, 5),
    samples_per_epoch=st.sampled_from([0, 1, 3, 7, 1000]),
)


def all_starts(order: WindowOrder, n_epochs: int) -> np.ndarray:
    n_steps = -(-n_epochs * order.epoch_size // order.batch_size)
    return np.concatenate([order.starts(step) for step in range(n_steps)])[: n_epochs * order.epoch_size]


@settings(deadline=None)
@given(order=ORDERS)
def test_an_epoch_sees_every_window_once_and_they_do_not_overlap(order: WindowOrder) -> None:
    for starts in all_starts(order, 3).reshape(3, order.epoch_size):
        assert starts.min() >= 0
        assert starts.max() + order.context_length + 1 <= order.n_tokens
        gaps = np.diff(np.sort(starts))
        assert (gaps >= order.context_length).all() and (gaps % order.context_length == 0).all()
        if order.samples_per_epoch in (0, 1000):
            assert (gaps == order.context_length).all()
            seen = order.epoch_size * order.context_length
            assert order.n_tokens - 1 - seen < 2 * order.context_length  # what an epoch leaves out


def test_over_many_epochs_every_token_is_a_target() -> None:
    order = WindowOrder(n_tokens=100, context_length=9, batch_size=4, seed=1)
    seen = {s + i for s in all_starts(order, 60) for i in range(1, 10)}
    assert seen == set(range(1, 100))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [WindowOrder(2000, 9, 4, seed) for seed in (1, 2)]
    epochs = [tuple(e) for order in orders for e in all_starts(order, 3).reshape(3, -1).tolist()]
    assert len(set(epochs)) == 6
    assert all(list(epoch) != sorted(epoch) for epoch in epochs)


@settings(deadline=None)
@given(order=ORDERS, step=st.integers(0, 200))
def test_a_step_depends_on_nothing_but_its_number(order: WindowOrder, step: int) -> None:
    again = dataclasses.replace(order)
    for other in (step + 1, 0, step):
        again.starts(other)
    assert np.array_equal(order.starts(step), again.starts(step))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_together_see_the_batch_of_one(world: int) -> None:
    tokens = np.arange(5000, dtype=np.uint16)
    order = WindowOrder(5000, 16, 8, seed=3)
    for step in range(0, 90, 7):
        x, y = order.batch(tokens, step)
        assert x.shape == y.shape == (8, 16) and x.dtype == y.dtype == np.int64
        assert np.array_equal(y, x + 1) and np.array_equal(x[:, 0], order.starts(step))
        shares = [order.batch(tokens, step, rank, world) for rank in range(world)]
        assert np.array_equal(np.concatenate([share[0] for share in shares]), x)
        assert np.array_equal(np.concatenate([share[1] for share in shares]), y)


def test_samples_per_epoch_ends_an_epoch_early() -> None:
    order = WindowOrder(n_tokens=1000, context_length=10, batch_size=8, seed=0, samples_per_epoch=20)
    assert (order.epoch_size, order.steps_per_epoch) == (20, 3)
    assert [order.epochs(step) for step in range(9)] == [0, 0, 0, 1, 1, 2, 2, 2, 3]
    assert WindowOrder(1000, 10, 8, 0).epoch_size == 98
    assert WindowOrder(1000, 10, 8, 0, samples_per_epoch=99_999).epoch_size == 98


def test_the_shortest_text_is_one_window_and_one_token_less_is_an_error() -> None:
    x, y = WindowOrder(9, 8, 2, seed=0).batch(np.arange(9), 0)
    assert x.tolist() == [list(range(8))] * 2 and y.tolist() == [list(range(1, 9))] * 2
    with pytest.raises(DataError, match=r"has 8 tokens, but one sequence needs 9 \(context_length"):
        WindowOrder(8, 8, 2, seed=0)
