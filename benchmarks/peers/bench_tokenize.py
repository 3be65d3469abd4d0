"""How fast is text turned into a file of tokens, on one core and on more, by us and by others; and how fast is it read?

    python -m benchmarks.peers.bench_tokenize [--rounds 5] [--data FOLDER] [--tokenizer FILE.model]

A contestant turns the same documents, in memory already, into bytes of ids with an end-of-text id after each: mamegpt
(`write_shards`, files and hashes included) on one thread and on all, SentencePiece's own batches, the library
`tokenizers` with the same vocabulary. In each round all of them run in turn; a result is the median of the rounds'
ratios to mamegpt on all cores, on the clock and in processor seconds. That the ids are the same is checked. Then the
file is read, window by window in the order of training, and as a whole, beside NumPy copying as many bytes in memory.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tokenizers
from sentencepiece import SentencePieceProcessor

from benchmarks.peers.task import DATA, load
from mamegpt.data.shards import open_shards, write_shards
from mamegpt.data.sources import read_texts
from mamegpt.data.window_order import WindowOrder
from mamegpt.tokenizer.hf import fast_tokenizer_json
from mamegpt.tokenizer.tokenizer import Tokenizer

CORES = os.cpu_count() or 1
OURS = f"mamegpt, {CORES} threads"


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock and of the processor."""
    begin, begin_cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - begin, time.process_time() - begin_cpu


def contestants(texts: list[str], tokenizer: Tokenizer, folder: Path) -> dict[str, Callable[[], str]]:
    """Each returns the hash of the bytes it made."""
    plain, fast = SentencePieceProcessor(), tokenizers.Tokenizer.from_str(fast_tokenizer_json(tokenizer))
    plain.LoadFromFile(str(tokenizer.path))
    fast.encode_special_tokens = True
    end = [tokenizer.eos_id]

    def ours(n_threads: int) -> str:
        with tempfile.TemporaryDirectory(dir=folder) as made:
            meta = write_shards(Path(made) / "tokens", {"train": texts}, tokenizer, n_threads=n_threads)
        return meta.splits["train"].sha256

    def sentencepiece_lists() -> str:
        ids = plain.encode(texts, num_threads=CORES)
        return hashed(np.array([i for document in ids for i in document + end], np.uint16))

    def hugging_face() -> str:
        found = fast.encode_batch_fast(texts, add_special_tokens=False)
        return hashed(np.array([i for document in found for i in document.ids + end], np.uint16))

    return {
        OURS: lambda: ours(CORES),
        "mamegpt, 1 thread": lambda: ours(1),
        f"SentencePiece, {CORES} threads": sentencepiece_lists,
        f"tokenizers, {os.environ.get('RAYON_NUM_THREADS', CORES)} threads": hugging_face,
    }


def hashed(ids: npt.NDArray[np.uint16]) -> str:
    return hashlib.sha256(ids.astype("<u2").tobytes()).hexdigest()


def read_back(folder: Path) -> None:
    """Speed of reading tokens, as a share of the speed of copying memory."""
    tokens = open_shards(folder)[1]["train"].tokens
    order = WindowOrder(len(tokens), context_length=256, batch_size=256, seed=0)
    n_steps, there = min(200, order.steps_per_epoch), np.array(tokens)
    n_bytes = n_steps * 256 * 257 * 2

    def windows() -> None:
        for step in range(n_steps):
            order.batch(tokens, step)

    copying = min(timed(lambda: np.copyto(np.empty_like(there), there))[1] for _ in range(5)) / there.nbytes
    whole = min(timed(lambda: tokens.sum(dtype=np.int64))[1] for _ in range(5)) / there.nbytes
    in_order = min(timed(windows)[1] for _ in range(3)) / n_bytes
    print(
        f"copying memory {1e-9 / copying:.1f} GB a processor second; the whole file, added up, {copying / whole:.2f} of"
    )
    print(f"that; windows in the order of training, as int64, {copying / in_order:.3f} of it, or", end=" ")
    print(f"{1e-6 / in_order / 2:,.0f} million tokens a second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="file or folder of text")
    parser.add_argument("--tokenizer", type=Path, help="SentencePiece model (default: the one of make bench)")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    tokenizer = Tokenizer.load(args.tokenizer or load(args.data, 16_000).tokenizer)
    texts = list(read_texts(args.data))
    print(f"{len(texts):,} documents, {sum(map(len, texts)):,} characters", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        programs, hashes = contestants(texts, tokenizer, Path(scratch)), dict[str, str]()
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
        for round_ in range(args.rounds + 1):
            for name, program in programs.items():
                begin, begin_cpu = time.perf_counter(), time.process_time()
                hashes[name] = program()
                if round_:  # the first warms up
                    runs[name].append((time.perf_counter() - begin, time.process_time() - begin_cpu))
        for name, found in runs.items():
            wall, cpu = (
                statistics.median(mine[kind] / base[kind] for mine, base in zip(found, runs[OURS], strict=True))
                for kind in (0, 1)
            )
            best = min(found)[0] / min(runs[OURS])[0]
            same = "same ids" if hashes[name] == hashes[OURS] else "OTHER IDS"
            print(f"{name:28} clock {wall:.2f} (best of each {best:.2f}), processor {cpu:.2f}, {same}", flush=True)
        write_shards(Path(scratch) / "tokens", {"train": texts}, tokenizer)
        read_back(Path(scratch) / "tokens")


if __name__ == "__main__":
    main()
