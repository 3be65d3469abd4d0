"""What is a vocabulary of some size worth? Models of the same processor time, side by side.

    OMP_NUM_THREADS=1 python -m benchmarks.research.vocabulary_runs [--seconds 30] [--size 1m 5m] [--vocab-size N ...]

Each run is a whole schedule of the default recipe that takes the same processor time whatever the vocabulary: what a
step costs is measured first (processor seconds, which other programs on the machine change little), and the steps
follow. All are judged in bits per character of the same held-out text. A line is added to
``mamegpt/tokenizer/vocabulary_runs.json`` for each, from which `mamegpt tokenizer-report` advises; what is
there already is not trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.task import DATA, ROOT, SCRATCH
from mamegpt.cli.progress import show_progress
from mamegpt.data.shards import write_shards
from mamegpt.data.sources import read_texts
from mamegpt.errors import TokenizerError
from mamegpt.presets import SIZES, Size, preset
from mamegpt.system.files import write_json
from mamegpt.tokenizer.tokenizer import Tokenizer, train_tokenizer
from mamegpt.training.autotune import Kind, Probe
from mamegpt.training.trainer import TrainResult, train

RUNS = ROOT / "mamegpt" / "tokenizer" / "vocabulary_runs.json"
HELD_OUT_CHARACTERS = 120_000
COVERAGES = (0.9995, 0.995, 0.98)


def prepared(data: Path, vocab_size: int) -> Path:
    """A folder with a tokenizer of that size and the tokens of the text, with a short validation text."""
    folder = SCRATCH / f"{data.name}-{vocab_size}-vocabulary"
    model = folder / "tokenizer.model"
    if not (folder / "tokens").is_dir():
        for coverage in COVERAGES:  # a small vocabulary has no room for all characters
            with suppress(TokenizerError):
                train_tokenizer(read_texts(data), model, vocab_size=vocab_size, character_coverage=coverage)
                break
        texts = {"train": read_texts(data), "val": up_to(read_texts(data, "validation"), HELD_OUT_CHARACTERS)}
        write_shards(folder / "tokens", texts, Tokenizer.load(model))
    return folder


def up_to(texts: Iterable[str], n_characters: int) -> Iterator[str]:
    """Texts until there are that many characters."""
    for text in texts:
        yield text
        n_characters -= len(text)
        if n_characters <= 0:
            return


def processor_seconds(size: Size, vocab_size: int) -> float:
    """What a step costs, measured as `mamegpt plan` does but by the processor's time."""
    probe = Probe(preset(size, ngrams=False), vocab_size, torch.device("cpu"), clock=time.process_time)
    return probe.seconds_per_step([Kind("bf16")])[0]


def trained(text: Path, size: Size, n_steps: int) -> TrainResult:
    """One schedule."""
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(
            preset(size, ngrams=False),
            data=str(text / "tokens"),
            tokenizer=str(text / "tokenizer.model"),
            out=f"{folder}/run",
            max_steps=n_steps,
            precision="bf16",
            compile="false",
            eval_every_steps=n_steps,
            save_every_steps=n_steps,
        )
        return train(config, watchers=[show_progress()])


def made() -> list[dict[str, Any]]:
    """The runs there are."""
    found: list[dict[str, Any]] = json.loads(RUNS.read_text(encoding="utf-8")) if RUNS.exists() else []
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with the splits train and validation")
    parser.add_argument("--seconds", type=int, nargs="+", default=[30])
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["1m", "5m"])
    parser.add_argument("--vocab-size", type=int, nargs="+", default=[2_000, 4_000, 8_000, 16_000, 32_000])
    args = parser.parse_args()
    for seconds, size, vocab_size in itertools.product(args.seconds, args.size, args.vocab_size):
        if (size, vocab_size, seconds) in {(run["size"], run["vocab_size"], run["processor_s"]) for run in made()}:
            continue
        text = prepared(args.data, vocab_size)
        result = trained(text, size, max(1, round(seconds / processor_seconds(size, vocab_size))))
        assert result.quality is not None, "the last step is followed by a validation"
        run = {
            "size": size,
            "vocab_size": vocab_size,
            "processor_s": seconds,
            "n_parameters": result.n_parameters,
            "steps": result.step,
            "bits_per_character": round(result.quality.bits_per_character, 4),
        }
        print(run, flush=True)
        write_json(RUNS, sorted([*made(), run], key=lambda run: (run["size"], run["vocab_size"])))


if __name__ == "__main__":
    main()
