import itertools
import threading
import time
from functools import partial

import pytest

from mamegpt.data.readers.parallel import ordered_parallel


def test_what_several_threads_give_comes_in_order_and_bounded():
    made = [0] * 5

    def source(i: int):
        for j in range(20):
            made[i] += 1
            yield i, j

    results = ordered_parallel([partial(source, i) for i in range(5)], n_threads=2, ahead=3)
    assert next(results) == (0, 0)
    time.sleep(0.2)
    assert made[2:] == [0, 0, 0] and made[0] <= 6 and made[1] <= 5  # what is in hand, in the queue, and refused
    assert [(0, 0), *results] == list(itertools.product(range(5), range(20)))
    assert list(ordered_parallel([], 2, 2)) == []


def test_an_error_comes_in_its_place_and_leaving_early_ends_the_threads():
    before = threading.active_count()

    def broken():
        yield 1
        raise ValueError("here")

    results = ordered_parallel([partial(iter, [0]), broken, itertools.count], n_threads=3, ahead=1)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="here"):
        next(results)
    endless = ordered_parallel([itertools.count, itertools.count], n_threads=2, ahead=1)
    assert next(endless) == 0
    endless.close()
    for _ in range(100):
        if threading.active_count() == before:
            break
        time.sleep(0.05)
    assert threading.active_count() == before
