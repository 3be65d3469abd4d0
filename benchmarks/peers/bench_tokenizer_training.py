"""How long does training a tokenizer take, and what does each short cut cost in compression?

    python benchmarks/peers/bench_tokenizer_training.py [--data FOLDER] [--ways full sentences …]

Trains 16,000 pieces on the train split in each way and prints seconds (preparation of the lines included),
and characters per token and the share of byte tokens on the validation split, which no way has seen.
"""

import argparse
import io
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sentencepiece

from mamegpt.data.sources import read_documents
from mamegpt.tokenizer.trainer import TRAINER_SETTINGS

DATA = Path(__file__).parents[3] / "shared" / "data" / "wiki_ja"
SENTENCE = re.compile("[^。！？]*[。！？]+[」』）]*|[^。！？]+")
CLAUSE = re.compile("[^。！？、「」（）]*[。！？、「」（）]+|[^。！？、「」（）]+")


def sentences(lines: list[str]) -> list[str]:
    return [part for line in lines for part in SENTENCE.findall(line)]


def clauses(lines: list[str]) -> list[str]:
    return [part for line in lines for part in CLAUSE.findall(line)]


def counted_clauses(lines: list[str]) -> list[str]:
    """Each different clause once with its count, as SentencePiece's tsv format has it."""
    return [f"{clause}\t{n}" for clause, n in Counter(clauses(lines)).items()]


def sample(share: float) -> Callable[[list[str]], list[str]]:
    def take(lines: list[str]) -> list[str]:
        return random.Random(0).sample(lines, round(share * len(lines)))

    return take


@dataclass
class Way:
    prepare: Callable[[list[str]], list[str]] = list
    settings: dict[str, Any] = field(default_factory=dict)


UNIGRAM = {"model_type": "unigram"}
FEW_SEEDS = {**UNIGRAM, "seed_sentencepiece_size": 200_000}
WAYS = {
    "full": Way(),
    "full, 1 thread": Way(settings={"num_threads": 1}),
    "sentences": Way(sentences),
    "clauses": Way(clauses),
    "clauses, counted": Way(counted_clauses, {"input_format": "tsv"}),
    "sentences, each once": Way(lambda lines: list(dict.fromkeys(sentences(lines)))),
    "lines under 4,192 bytes": Way(settings={"max_sentence_length": 4192}),
    "pieces of 8 at most": Way(settings={"max_sentencepiece_length": 8}),
    "sample 1/2": Way(sample(1 / 2)),
    "sample 1/4": Way(sample(1 / 4)),
    "sample 1/10": Way(sample(1 / 10)),
    "unigram, sample 1/10": Way(sample(1 / 10), UNIGRAM),
    "unigram, sample 1/10, few seeds": Way(sample(1 / 10), FEW_SEEDS),
    "unigram, sample 1/2, few seeds": Way(sample(1 / 2), FEW_SEEDS),
    "unigram, full": Way(settings=UNIGRAM),
}


def train(way: Way, lines: list[str]) -> bytes:
    written = io.BytesIO()
    settings = {
        **TRAINER_SETTINGS,
        "vocab_size": 16_000,
        "model_type": "bpe",
        "num_threads": os.cpu_count(),
        "max_sentence_length": 1_000_000,
        **way.settings,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(way.prepare(lines)), model_writer=written, **settings
    )
    return written.getvalue()


def compression(model: bytes, texts: list[str]) -> tuple[float, float]:
    """(characters per token, share of byte tokens that are not the line feed)."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    line_feed = processor.piece_to_id("<0x0A>")
    counts = Counter(token for ids in processor.encode(texts) for token in ids)
    n_bytes = sum(n for token, n in counts.items() if processor.is_byte(token) and token != line_feed)
    return sum(map(len, texts)) / counts.total(), n_bytes / counts.total()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="a corpus with train and validation splits")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help=", ".join(WAYS))
    args = parser.parse_args()

    lines = [
        line
        for document in read_documents(args.data, "train")
        for line in re.split("[\n\t\u2581\u2585]", document.text)
        if line
    ]
    held_out = [document.text for document in read_documents(args.data, "validation")]
    n_characters = sum(map(len, lines))
    print(f"{n_characters:,} characters, sentencepiece {sentencepiece.__version__}, {os.cpu_count()} cores")
    print(f"{'way':32} {'seconds':>8} {'chars/token':>12} {'byte tokens':>12}")
    for name in args.ways:
        started = time.perf_counter()
        model = train(WAYS[name], lines)
        elapsed_s = time.perf_counter() - started
        per_token, byte_share = compression(model, held_out)
        print(f"{name:32} {elapsed_s:8.1f} {per_token:12.4f} {byte_share:12.3%}", flush=True)


if __name__ == "__main__":
    main()
