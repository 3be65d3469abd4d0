"""What every contestant trains on, and the text of it, made once.

    python -m benchmarks.peers.task [--data FOLDER] [--vocab-size 16000]

prints the settings of a task; the benchmarks call it in a process of its own, so that they stay small themselves.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mamegpt.data.shards import open_shards, write_shards
from mamegpt.data.sources import read_texts
from mamegpt.data.splits import find_splits
from mamegpt.data.stories import stories
from mamegpt.data.window_order import WindowOrder
from mamegpt.errors import MamegptError
from mamegpt.text.articles import format_article
from mamegpt.tokenizer.tokenizer import Tokenizer, train_tokenizer

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "wiki_ja"
SCRATCH = ROOT / "runs" / "bench"
N_STORIES = 40_000

Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Task:
    """The sizes of the model and its batches. ``text`` is a folder with ``tokenizer.model`` and ``tokens``."""

    text: str
    vocab_size: int
    context_length: int = 256
    batch_size: int = 32
    n_layers: int = 4
    emb_dim: int = 128
    n_heads: int = 4
    seed: int = 42

    @property
    def shards(self) -> Path:
        """The folder of token shards."""
        return Path(self.text) / "tokens"

    @property
    def tokenizer(self) -> Path:
        """The SentencePiece model."""
        return Path(self.text) / "tokenizer.model"

    @property
    def tokens_per_step(self) -> int:
        """Targets in one step; every input token has one."""
        return self.batch_size * self.context_length

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of forward and backward pass, the same for all contestants.

        Six for each weight of a matrix product (head V C, block 12 C^2), and attention's two products with a
        causal mask, 6 T C a layer. Norms, activations, softmax, embedding and optimizer are not counted.
        """
        weights = self.vocab_size * self.emb_dim + 12 * self.n_layers * self.emb_dim**2
        return 6 * weights + 6 * self.n_layers * self.context_length * self.emb_dim

    def batches(self) -> Iterator[Batch]:
        """Inputs and targets (batch_size, context_length) of step 0, 1, ...: exactly those of `trainer`."""
        tokens = open_shards(self.shards)[1]["train"].tokens
        order = WindowOrder(len(tokens), self.context_length, self.batch_size, self.seed)
        step = 0
        while True:
            yield order.batch(tokens, step)
            step += 1


def load(data: Path | None, vocab_size: int, **sizes: Any) -> Task:
    """The task on the text of ``data``, prepared if it is not yet."""
    command = [sys.executable, "-m", "benchmarks.peers.task", "--vocab-size", str(vocab_size)]
    command += ["--data", str(data.resolve())] if data else []
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return dataclasses.replace(Task(**json.loads(done.stdout)), **sizes)


def prepare(data: Path | None, vocab_size: int) -> Task:
    """Train a tokenizer and tokenize the text into ``runs/bench``, where it stays for the next time."""
    source = str(data.resolve()) if data else f"stories-{N_STORIES}"
    name = f"{data.name if data else 'stories'}-{vocab_size}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    task = Task(text=str(SCRATCH / name), vocab_size=vocab_size)
    if not (task.shards / "meta.json").is_file():
        task.tokenizer.parent.mkdir(parents=True, exist_ok=True)
        texts = _texts(data)
        print(f"preparing {task.text} ...", file=sys.stderr)
        report = train_tokenizer(texts["train"], task.tokenizer, vocab_size=vocab_size, overwrite=True)
        source = data.name if data else "stories"
        write_shards(task.shards, _texts(data), Tokenizer.load(report.path), val_fraction=0.02, source=source)
    return task


def _texts(data: Path | None) -> dict[str, Iterable[str]]:
    """The documents by split; where there is no validation split, a share of the documents is held out."""
    if data is None:
        return {"train": (format_article(title, text) for title, text in stories(0, N_STORIES))}
    texts: dict[str, Iterable[str]] = {"train": read_texts(data)}
    if data.is_dir() and "validation" in find_splits(data):
        texts["val"] = read_texts(data, "validation")
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="file or folder of text (default: the built-in stories)")
    parser.add_argument("--vocab-size", type=int, default=16_000)
    args = parser.parse_args()
    try:
        print(json.dumps(dataclasses.asdict(prepare(args.data, args.vocab_size))))
    except MamegptError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
