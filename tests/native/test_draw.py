"""The library draws from n-gram counts what NumPy draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_helpers import SETS, threads

from mamegpt.native.build import InstructionSet
from mamegpt.native.draw import draw
from mamegpt.native.library import load
from mamegpt.system.hardware import cpp_compiler
from mamegpt.training.ngram_targets import NgramTargets

pytestmark = pytest.mark.skipif(cpp_compiler() is None, reason="no C++ compiler")


@settings(deadline=None, max_examples=80)
@given(
    instructions=st.sampled_from(SETS),
    n_tokens=st.sampled_from([1, 2, 3, 50, 5_000]),
    vocab_size=st.sampled_from([1, 7, 300, 16_000]),
    B=st.integers(1, 9),
    T=st.sampled_from([1, 2, 3, 31, 64, 70]),
    n_threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_the_same_is_drawn(
    instructions: InstructionSet, n_tokens: int, vocab_size: int, B: int, T: int, n_threads: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    tokens = np.minimum(random.pareto(0.8, n_tokens).astype(np.int64), vocab_size - 1)
    ids = np.minimum(random.pareto(0.7, (B, T)).astype(np.int64), vocab_size - 1)
    by_numpy = NgramTargets(tokens, vocab_size, seed)
    by_library = NgramTargets(tokens, vocab_size, seed, native=load(instructions))
    with threads(n_threads):
        assert np.array_equal(by_library.draw(ids, 5, first=3), by_numpy.draw(ids, 5, first=3))


@pytest.mark.parametrize(
    "change",
    [
        lambda levels, ids, random: ([], ids, random),
        lambda levels, ids, random: ([levels[0], levels[1][:0]], ids, random),
        lambda levels, ids, random: ([levels[0].astype(np.int32), levels[1]], ids, random),
        lambda levels, ids, random: (levels, ids.astype(np.int32), random),
        lambda levels, ids, random: (levels, ids.T, random),
        lambda levels, ids, random: (levels, ids, random.astype(np.float32)),
        lambda levels, ids, random: (levels, ids, random[:1]),
        lambda levels, ids, random: (levels, ids, random[:, :, :2]),
        lambda levels, ids, random: (levels, ids, random[:, :, :, ::2]),
    ],
)
def test_other_arrays_are_refused(change: Callable[..., tuple[list[npt.NDArray[np.int64]], ...]]) -> None:
    levels = [np.arange(4, dtype=np.int64), np.arange(16, dtype=np.int64)]
    arrays = change(levels, np.zeros((2, 3), np.int64), np.zeros((2, 2, 3, 17)))
    with pytest.raises(ValueError, match="must be"):
        draw(load(), arrays[0], 4, 0.75, *arrays[1:])
