"""Continuations drawn from counts have Kneser and Ney's probabilities, and the same ones wherever they are drawn."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from mamegpt.errors import ConfigError
from mamegpt.training import ngram_targets
from mamegpt.training.ngram_targets import BLOCK, DISCOUNT, N_DRAWS, NgramTargets, counted, true_share

V = 6


def text(n: int = 400) -> npt.NDArray[np.int64]:
    """Tokens that follow from the one before more often than not."""
    random = np.random.default_rng(0)
    found = random.integers(0, V, n)
    return np.where(random.random(n) < 0.7, (np.roll(found, 1) * 2 + 1) % V, found)


def kneser_ney(tokens: list[int], context: list[int]) -> npt.NDArray[np.float64]:
    """Interpolated Kneser-Ney by the formula (Chen and Goodman 1998, equation 17), from n-grams as tuples.

    A longest n-gram counts as often as it occurs, a shorter one once for each token seen before it. A context that
    occurs once is passed over: its only place is the one that asks.
    """
    n = len(context) + 1
    longest = min(ngram_targets.ORDER, len(tokens))
    grams = [tuple(tokens[i : i + longest]) for i in range(len(tokens) - longest + 1)]
    for _ in range(longest - n):
        grams = [gram[1:] for gram in set(grams)]
    counts = np.bincount([gram[-1] for gram in grams if gram[:-1] == tuple(context)] or [0], minlength=V)
    total = sum(gram[:-1] == tuple(context) for gram in grams)
    if n == 1:
        return counts / total
    below = kneser_ney(tokens, context[1:])
    if total < 2:
        return below
    kinds = np.count_nonzero(counts)
    return np.maximum(counts - DISCOUNT, 0) / total + DISCOUNT * kinds / total * below


def test_what_is_drawn_has_the_probabilities_of_kneser_and_ney() -> None:
    tokens = text()
    ids = np.tile(tokens[:7], (2000, 1))
    drawn = NgramTargets(tokens, V, seed=1).draw(ids, step=3)
    tokens = tokens[: len(tokens) - len(tokens) // 50]  # the rest is not counted
    assert drawn.shape == (2000, 7, N_DRAWS) and drawn.dtype == np.int64
    for place in range(7):
        context = [int(token) for token in tokens[max(0, place - 1) : place + 1]]
        share = np.bincount(drawn[:, place].ravel(), minlength=V) / drawn[:, place].size
        np.testing.assert_allclose(share, kneser_ney(tokens.tolist(), context), atol=0.006)


def test_places_are_spread_evenly() -> None:
    """Of a context with two equally frequent continuations, half of each draw is one of them, not just on average."""
    tokens = np.array([1, 2, 3, 1, 2, 4] * 50)
    drawn = NgramTargets(tokens, V, seed=1).draw(np.array([[1, 2]] * 50), step=0)[:, 1]
    assert set(np.count_nonzero(drawn == 3, axis=1)) <= {N_DRAWS // 2 - 1, N_DRAWS // 2, N_DRAWS // 2 + 1}


def test_a_row_draws_the_same_in_any_process_and_other_steps_and_seeds_do_not() -> None:
    tokens = text()
    ids = tokens[:80].reshape(8, 10)
    targets = NgramTargets(tokens, V, seed=1)
    whole = targets.draw(ids, step=3)
    for n in (2, 4, 8):
        parts = [
            NgramTargets(tokens, V, seed=1).draw(part, 3, first=i * len(part))
            for i, part in enumerate(np.split(ids, n))
        ]
        assert np.array_equal(np.concatenate(parts), whole)
    assert not np.array_equal(targets.draw(ids, step=4), whole)
    assert not np.array_equal(NgramTargets(tokens, V, seed=2).draw(ids, step=3), whole)
    assert not np.array_equal(targets.draw(ids[[0, 0]], step=3)[0], targets.draw(ids[[0, 0]], step=3)[1])


def test_its_loss_is_that_of_the_probabilities_on_tokens_that_are_not_counted() -> None:
    tokens = text(10_000)
    counted_, held_out = tokens[:9800].tolist(), tokens[9800:].tolist()
    pairs = {pair: kneser_ney(counted_, list(pair)) for pair in itertools.pairwise(held_out)}
    nats = [-np.log(pairs[held_out[i - 2], held_out[i - 1]][held_out[i]]) for i in range(2, len(held_out))]
    assert NgramTargets(tokens, V, seed=0).loss == pytest.approx(np.mean(nats))


@pytest.mark.parametrize("tokens", [[1, 2], [1, 2, 1], [0, 0, 0, 0], [V - 1] * 9])
def test_texts_of_few_tokens_or_kinds(tokens: list[int]) -> None:
    targets = NgramTargets(np.array(tokens, np.uint16), V, seed=0)
    assert targets.loss == 0  # too few to measure
    for ids in (np.arange(V)[:, None], np.tile(np.arange(V), (2, 1)), np.array([tokens])):
        assert set(targets.draw(ids, step=0).ravel()) <= {*tokens[1:]}


def test_a_context_that_occurs_once_is_passed_over() -> None:
    """After (0, 1) there is only a 2; its place is the one that asks, so what follows 1 elsewhere is drawn, too."""
    drawn = NgramTargets(np.array([0, 1, 2, *[3, 1, 4] * 20]), V, seed=0).draw(np.array([[0, 1]] * 50), step=0)[:, 1]
    assert np.count_nonzero(drawn == 4) > 0.8 * np.count_nonzero(drawn == 2)


def test_of_a_long_text_pieces_from_everywhere_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram_targets, "COUNTED_TOKENS", 1000)
    monkeypatch.setattr(ngram_targets, "COUNTED_PIECES", 10)
    found = counted(np.arange(50_000, dtype=np.uint16))
    assert len(found) == 1000 and found[0] == 0 and found[-1] == 49_999
    assert np.count_nonzero(np.diff(found) != 1) == 9
    assert np.array_equal(counted(np.arange(1000, dtype=np.uint16)), np.arange(1000))


def test_a_vocabulary_too_large_for_the_keys_is_refused() -> None:
    most = ngram_targets.MAX_VOCAB_SIZE
    assert most**ngram_targets.ORDER < 1 << 63
    tokens = np.array([most - 1] * 4)
    assert set(NgramTargets(tokens, most, seed=0).draw(tokens[None], step=0).ravel()) == {most - 1}
    with pytest.raises(ConfigError, match="ngrams needs a vocabulary of at most"):
        NgramTargets(tokens, most + 1, seed=0)


def test_the_share_of_the_true_token_rises_to_one() -> None:
    shares = [true_share(progress, 0) for progress in np.linspace(0, 1, 50)]
    assert shares == sorted(shares) and shares[0] == ngram_targets.TRUE_SHARE and shares[-1] == true_share(2, 0) == 1
    in_a_long_run = [true_share(step / 10**6, step) for step in range(0, 4000, 100)]
    assert in_a_long_run == sorted(in_a_long_run) and in_a_long_run[20:] == [1] * 20
    assert true_share(0.25, 500) == pytest.approx(0.1 + 0.9 / 16)  # whichever has come further


@pytest.mark.parametrize("n", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
@pytest.mark.parametrize("kinds", [1, 9, 10**9])
def test_a_search_by_blocks_finds_what_numpy_finds(n: int, kinds: int) -> None:
    random = np.random.default_rng(n)
    keys = np.sort(random.integers(0, kinds, n))
    numbers = np.concatenate((keys - 1, keys, keys + 1, random.integers(-5, kinds + 5, 500))).reshape(1, -1)
    found = ngram_targets._search(keys, keys[::BLOCK], numbers)
    assert np.array_equal(found, np.searchsorted(keys, numbers))
