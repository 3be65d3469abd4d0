"""The law finds numbers it was made of, and describes the runs that the repository keeps."""

import math

import pytest

from mamegpt.planning.scaling_law import Law, ScalingRun, expected_quality, fit, own_runs, useful_tokens
from mamegpt.presets import SIZES

LAW = Law(e=1.5, a=12.0, alpha=0.2, b=300.0, beta=0.4)
GRID = [(n, d) for n in (1e6, 5e6, 15e6) for d in (3e5, 1e6, 4e6)]


def run(n: float, d: float, bits: float) -> ScalingRun:
    return ScalingRun("5m", int(n), int(d), 1, bits)


def test_the_fit_finds_the_law_that_made_the_runs() -> None:
    found = fit([run(n, d, LAW(n, d)) for n, d in GRID])
    assert (found.alpha, found.beta) == pytest.approx((LAW.alpha, LAW.beta))
    assert (found.e, found.a, found.b) == pytest.approx((LAW.e, LAW.a, LAW.b), rel=1e-6)


def test_runs_that_no_law_describes_are_an_error() -> None:
    with pytest.raises(ValueError, match="9 runs"):
        fit([run(n, d, 5 + math.log10(n * d)) for n, d in GRID])


def test_the_first_epoch_counts_in_full_and_the_hundredth_hardly_at_all() -> None:
    assert useful_tokens(500.0, 1000.0) == 500.0
    assert useful_tokens(1000.0, 1000.0) == 1000.0
    four = useful_tokens(4000.0, 1000.0)
    assert 3500 < four < 4000  # "four epochs are nearly as good as new text"
    hundred, limit = useful_tokens(100_000.0, 1000.0), 1000 * (1 + 15.4)
    assert 0.99 * limit < hundred < limit


def test_our_own_runs_are_of_presets_and_some_are_held_out() -> None:
    runs = own_runs()
    assert {r.size for r in runs} <= set(SIZES) and len({(r.size, r.n_tokens, r.seed) for r in runs}) == len(runs)
    held_out = [r for r in runs if r.held_out]
    assert len(held_out) >= 3 and len(runs) - len(held_out) >= 7


def test_the_law_of_our_own_runs_describes_them() -> None:
    law, error = expected_quality()
    for r in own_runs():
        assert law(r.n_parameters, r.n_tokens) == pytest.approx(r.bits_per_character, abs=0.25), r
    assert error < 0.1
