"""The advice on the size of a vocabulary is what the runs say."""

from mamegpt.cli.render.data import vocabulary_table
from mamegpt.tokenizer.vocab_size import best_vocab_sizes, vocabulary_runs


def test_the_best_is_the_lowest_of_its_row() -> None:
    runs = vocabulary_runs()
    for size, best in best_vocab_sizes().items():
        bits = {run.vocab_size: run.bits_per_character for run in runs if run.size == size}
        assert bits[best] == min(bits.values()) and len(bits) >= 5
        row = next(line for line in vocabulary_table().splitlines() if line.split()[:1] == [size])
        assert row.split()[1:] == [*(f"{bits[n]:.3f}" for n in sorted(bits)), f"{best:,}"]


def test_all_were_given_the_same_time() -> None:
    assert len({run.processor_s for run in vocabulary_runs()}) == 1
