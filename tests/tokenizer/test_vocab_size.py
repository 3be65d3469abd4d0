"""The advice on the size of a vocabulary is what the runs say, and a chosen one suits time and text."""

import itertools
import math
import re
from collections import Counter
from pathlib import Path

import pytest
from little import ROOT

from mamegpt.cli.render.data import vocabulary_table
from mamegpt.data.stories import stories
from mamegpt.errors import ConfigError, TokenizerError
from mamegpt.tokenizer.tokenizer import Tokenizer, train_tokenizer
from mamegpt.tokenizer.trainer import CHARACTER_SHARE, MAX_COVERAGE, MIN_COVERAGE, N_FIXED_PIECES, Alphabet
from mamegpt.tokenizer.vocab_size import (
    CHOICES,
    best_vocab_sizes,
    characters_per_token,
    choose_vocab_size,
    vocabulary_runs,
)


def test_the_best_is_the_lowest_of_its_row() -> None:
    runs = vocabulary_runs()
    for size, best in best_vocab_sizes().items():
        bits = {run.vocab_size: run.bits_per_character for run in runs if run.size == size}
        assert bits[best] == min(bits.values()) and len(bits) >= 5
        row = next(line for line in vocabulary_table().splitlines() if line.split()[:1] == [size])
        assert row.split()[1:] == [*(f"{bits[n]:.3f}" for n in sorted(bits)), f"{best:,}"]


def test_all_were_given_the_same_time() -> None:
    assert len({run.processor_s for run in vocabulary_runs()}) == 1


def test_less_time_or_text_never_gives_more_pieces() -> None:
    assert choose_vocab_size(1e-9, 0) == CHOICES[0].vocab_size
    assert choose_vocab_size(math.inf) == CHOICES[-1].vocab_size
    for one, next_one in itertools.pairwise(CHOICES):
        assert one.vocab_size < next_one.vocab_size and one.n_characters < next_one.n_characters
        assert one.minutes <= next_one.minutes and one.characters_per_token < next_one.characters_per_token
        assert choose_vocab_size(next_one.minutes, next_one.n_characters) == next_one.vocab_size
        assert choose_vocab_size(math.inf, next_one.n_characters - 1) == one.vocab_size
        if next_one.minutes:
            assert choose_vocab_size(next_one.minutes * 0.999) == one.vocab_size


def test_a_size_is_never_far_from_the_best_of_the_runs() -> None:
    """The runs took less than a minute of two cores each."""
    for size in best_vocab_sizes():
        bits = {run.vocab_size: run.bits_per_character for run in vocabulary_runs() if run.size == size}
        assert bits[choose_vocab_size(vocabulary_runs()[0].processor_s / 60)] < min(bits.values()) + 0.1


def test_characters_per_token_are_those_of_the_choices_and_lie_between() -> None:
    for it in CHOICES:
        assert characters_per_token(it.vocab_size) == pytest.approx(it.characters_per_token)
    for one, other in itertools.pairwise(CHOICES):
        between = characters_per_token(round(math.sqrt(one.vocab_size * other.vocab_size)))
        assert between == pytest.approx((one.characters_per_token + other.characters_per_token) / 2, rel=1e-3)
    assert characters_per_token(300) == CHOICES[0].characters_per_token
    assert characters_per_token(250_000) == CHOICES[-1].characters_per_token


RARE = "".join(map(chr, range(0x4E00, 0x4E00 + 250)))
"""Each occurs once, nearly 2 % of the characters of `texts`."""


def texts() -> list[str]:
    known = [text for _, text in stories(seed=3, n=60)]
    return [*known, RARE]


def test_the_coverage_leaves_half_of_the_pieces_to_longer_ones() -> None:
    counts, alphabet = Counter("".join(texts())), Alphabet(texts())
    n_characters, most = sum(counts.values()), counts.most_common()
    n_wanted = next(
        n for n in range(len(most)) if sum(count for _, count in most[:n]) / n_characters >= MAX_COVERAGE
    )  # with 0.9995
    assert n_characters * 0.01 < len(RARE) < n_characters * 0.02
    for vocab_size in range(N_FIXED_PIECES + 300, 3000, 200):
        n_free = vocab_size - N_FIXED_PIECES
        n = int(CHARACTER_SHARE * n_free)
        share = max(MIN_COVERAGE, sum(count for _, count in most[:n]) / n_characters)
        chosen, given = (alphabet.coverage(vocab_size, is_chosen=is_chosen) for is_chosen in (True, False))
        assert chosen == pytest.approx(MAX_COVERAGE if n_wanted <= n else share)
        assert given == pytest.approx(MAX_COVERAGE if n_wanted < n_free else share)  # as ever where it can be
    assert alphabet.coverage(100_000, is_chosen=True) == MAX_COVERAGE
    assert alphabet.coverage(N_FIXED_PIECES + 1, is_chosen=False) == MIN_COVERAGE
    assert alphabet.coverage(alphabet.least_vocab_size - 1, is_chosen=True) == MIN_COVERAGE
    assert MIN_COVERAGE <= alphabet.coverage(alphabet.least_vocab_size, is_chosen=True) < MIN_COVERAGE + 0.001


def test_a_small_vocabulary_is_not_refused_for_rare_characters(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"too small for this text's different characters"):
        train_tokenizer(texts(), tmp_path / "a", vocab_size=800, character_coverage=MAX_COVERAGE)
    report = train_tokenizer(texts(), tmp_path / "a", vocab_size=800)
    assert (report.vocab_size, report.for_minutes) == (800, None)
    tokenizer = Tokenizer.load(report.path)
    pieces = [piece.text for piece in tokenizer.pieces if piece.kind == "normal"]
    assert sum(len(piece) > 1 for piece in pieces) > 100
    assert all(tokenizer.decode(tokenizer.encode(text)) == text for text in texts())


def test_without_a_size_one_is_chosen_and_a_short_text_gets_as_many_as_it_has(tmp_path: Path) -> None:
    few = ["豆の木", "豆の花"]
    report = train_tokenizer(few, tmp_path / "few", for_minutes=1)
    assert N_FIXED_PIECES < report.vocab_size < CHOICES[0].vocab_size and report.for_minutes == 1
    many = [text for _, text in stories(seed=3, n=300)]
    report = train_tokenizer(many, tmp_path / "many")
    assert report.vocab_size == choose_vocab_size(10, report.n_characters) == CHOICES[0].vocab_size
    assert report.for_minutes == 10 and report.character_coverage == MAX_COVERAGE
    with pytest.raises(ConfigError, match=r"for_minutes must be above 0 \(got -1\)"):
        train_tokenizer(few, tmp_path / "new", for_minutes=-1)


def test_a_chosen_vocabulary_has_room_for_the_characters(tmp_path: Path) -> None:
    kanji = ["".join(map(chr, range(0x4E00 + i, 0x4E00 + i + 50))) for i in range(2000)]  # 2,049 alike
    report = train_tokenizer([line for line in kanji for _ in range(2)], tmp_path / "a", for_minutes=1)
    assert report.vocab_size > CHOICES[0].vocab_size and report.character_coverage >= MIN_COVERAGE
    assert report.vocab_size == Alphabet(kanji).least_vocab_size


@pytest.mark.parametrize("page", ["howto.md", "howto.en.md"])
def test_the_page_states_the_rule(page: str) -> None:
    rows = [re.findall(r"[\d,]+", line) for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()]
    for it in CHOICES:
        needs = [f"{n:,}" for n in (it.minutes, it.n_characters) if n]
        assert [f"{it.vocab_size:,}", *needs] in rows
