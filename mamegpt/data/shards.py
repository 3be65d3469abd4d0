"""Token files on disk, memory-mapped.

A folder of token shards holds one file of little-endian integers a split (``train.bin``, ``val.bin``; uint16, or
uint32 for more than 65,536 pieces) and ``meta.json`` with counts, hashes and the tokenizer they were made with.
Every document is followed by the tokenizer's end-of-text id, if it has one.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mamegpt.data.provenance import Provenance
from mamegpt.errors import DataError
from mamegpt.system.files import atomic_directory, parse_json, sha256_file, write_json
from mamegpt.system.limits import usable_cores
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["Meta", "Split", "is_shards", "open_shards", "write_shards"]

FORMAT = "mamegpt-tokens-1"
META_FILE = "meta.json"
DTYPES = ("uint16", "uint32")
SPLITS = ("train", "val")
CHUNK_CHARACTERS = 1 << 20
"""Text is tokenized in batches of about this many characters, so memory does not grow with the corpus."""


@dataclass(frozen=True)
class SplitMeta:
    """Counts of one split. Characters and bytes are those of the normalised text, without end-of-text tokens."""

    n_tokens: int
    n_documents: int
    n_characters: int
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class Meta:
    """What ``meta.json`` holds. ``origins`` are the steps that made the text, as far as they are known."""

    format: str
    dtype: str
    vocab_size: int
    eos_id: int | None
    tokenizer_sha256: str
    source: str
    splits: dict[str, SplitMeta]
    origins: list[Provenance] = field(default_factory=list)

    def fingerprint(self) -> str:
        """64 hexadecimal digits that change with any token or with the tokenizer."""
        parts = [self.tokenizer_sha256, self.dtype]
        parts += [f"{name}:{split.sha256}" for name, split in sorted(self.splits.items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Split:
    """One split, opened: ``tokens`` is a read-only memory map of (n_tokens,)."""

    tokens: npt.NDArray[Any]
    meta: SplitMeta
    eos_id: int | None


def write_shards(
    out: Path,
    documents: Mapping[str, Iterable[str]],
    tokenizer: Tokenizer,
    *,
    val_fraction: float = 0.0,
    source: str = "",
    origins: Iterable[Provenance] = (),
    check: Callable[[Meta], None] = lambda _: None,
    on_progress: Callable[[int, int], None] | None = None,
    n_threads: int | None = None,
) -> Meta:
    """Tokenize normalised texts into a folder that appears whole or not at all.

    ``documents`` maps a split (``train``, ``val``) to its texts. If there is no ``val``, each training document
    goes there with probability ``val_fraction``, decided by a hash of its text, so the same document always falls
    on the same side. ``on_progress(n_documents, n_tokens)`` is called after each batch. Batches are tokenized on
    ``n_threads`` threads (default: one a core) while the next documents are read; the files are the same for any.

    ``check`` gets what is known of the files before the folder appears, and may raise. Raises `OutputError` if ``out``
    exists, and `DataError` if the training split comes out empty.
    """
    dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
    n_threads = n_threads or usable_cores()
    with atomic_directory(out) as folder, ThreadPoolExecutor(n_threads) as threads:
        splits = {name: _SplitWriter(folder / f"{name}.bin", dtype, tokenizer, threads, n_threads) for name in SPLITS}
        try:
            for name, texts in documents.items():
                held_out = "val" if name == "train" and "val" not in documents else name
                for text in texts:
                    side = splits[held_out if _held_out(text, val_fraction) else name]
                    side.add(text)
                    if side.is_full():
                        side.flush()
                        if on_progress:
                            n_documents = sum(split.n_documents for split in splits.values())
                            on_progress(n_documents, sum(split.n_tokens for split in splits.values()))
            finished = {name: split.finish() for name, split in splits.items()}
        finally:
            threads.shutdown(cancel_futures=True)
            for split in splits.values():
                split.file.close()
        if not finished["train"].n_characters and "val" not in documents and finished["val"].n_characters:
            raise DataError(
                f"all {finished['val'].n_documents} document(s) of {source or 'the corpus'} fell to the validation "
                "side; give more documents, or --val-fraction 0"
            )
        for name in ("train", *documents):
            if not finished[name].n_characters:
                raise DataError(f"{source or 'the corpus'} holds no text for the split {name!r}")
        meta = Meta(
            format=FORMAT,
            dtype=dtype,
            vocab_size=tokenizer.vocab_size,
            eos_id=tokenizer.eos_id,
            tokenizer_sha256=tokenizer.fingerprint,
            source=source,
            splits={name: split for name, split in finished.items() if split.n_characters},
            origins=list(origins),
        )
        check(meta)
        write_json(folder / META_FILE, asdict(meta))
    return meta


def is_shards(place: str | Path) -> bool:
    """Return whether there is a folder of token shards

    ``place`` may also be a list of sources, too long for a name.
    """
    try:
        return (Path(place) / META_FILE).is_file()
    except (OSError, ValueError):
        return False


def open_shards(
    folder: Path, tokenizer: Tokenizer | None = None, *, verify: bool = True
) -> tuple[Meta, dict[str, Split]]:
    """Memory-map a folder of token shards.

    ``verify`` reads every file once and compares its hash. Raises `DataError` if a file is missing, damaged or of
    another format, or if the tokens were made with another tokenizer than the one given.
    """
    path = folder / META_FILE
    try:
        raw = parse_json(path.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            raise DataError(f"{path}: format {raw['format']!r} is not {FORMAT!r}; tokenize the text again")
        raw["splits"] = {name: SplitMeta(**split) for name, split in raw["splits"].items()}
        if not isinstance(origins := raw.get("origins", []), list):
            raise ValueError("origins is no list")
        raw["origins"] = [Provenance(**origin) for origin in origins]
        meta = Meta(**raw)
        _check(meta)
        sizes = {name: split.n_tokens * np.dtype(meta.dtype).itemsize for name, split in meta.splits.items()}
    except FileNotFoundError:
        raise DataError(f"{folder} is not a folder of token shards: it has no {META_FILE}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is damaged ({error}); tokenize the text again") from None
    if tokenizer is not None and tokenizer.fingerprint != meta.tokenizer_sha256:
        raise DataError(
            f"{folder} was made with another tokenizer than {tokenizer.path}; use that one, or tokenize the text again"
        )
    splits = {}
    for name, split in meta.splits.items():
        file = folder / f"{name}.bin"
        size = sizes[name]
        if not file.is_file():
            raise DataError(f"{file} is missing; tokenize the text again")
        if file.stat().st_size != size:
            raise DataError(
                f"{file} has {file.stat().st_size} bytes where {META_FILE} says {size}; tokenize the text again"
            )
        if verify and sha256_file(file) != split.sha256:
            raise DataError(f"{file} is damaged: its hash is not the one in {META_FILE}; tokenize the text again")
        tokens = np.memmap(file, dtype=np.dtype(meta.dtype).newbyteorder("<"), mode="r")
        if verify and tokens.max() >= meta.vocab_size:
            raise DataError(f"{file} holds ids beyond the {meta.vocab_size} pieces of {META_FILE}; tokenize again")
        splits[name] = Split(tokens, split, meta.eos_id)
    return meta, splits


def _check(meta: Meta) -> None:
    """Raise ValueError for what `write_shards` would never write."""
    if meta.dtype not in DTYPES or not {"train"} <= meta.splits.keys() <= set(SPLITS):
        raise ValueError("it has no usable splits")
    counts = {"vocab_size": meta.vocab_size}
    for name, split in meta.splits.items():
        counts |= {f"{key} of {name}": value for key, value in asdict(split).items() if key != "sha256"}
    if wrong := [name for name, value in counts.items() if type(value) is not int or not 0 < value < 1 << 63]:
        raise ValueError(f"{wrong[0]} is no count")
    if meta.eos_id is not None and (type(meta.eos_id) is not int or not 0 <= meta.eos_id < meta.vocab_size):
        raise ValueError("eos_id is no id")
    if not all(isinstance(text, str) for text in (meta.tokenizer_sha256, meta.source)):
        raise ValueError("tokenizer_sha256 or source is no text")


def _held_out(text: str, fraction: float) -> bool:
    """Return whether a document belongs to the validation side."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < fraction * 2**64


class _SplitWriter:
    """Collects texts, has them tokenized in batches by threads, and appends these in their order to one file."""

    def __init__(self, path: Path, dtype: str, tokenizer: Tokenizer, threads: Executor, n_ahead: int) -> None:
        self.file = path.open("wb")
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.tokenizer = tokenizer
        self.threads, self.n_ahead = threads, n_ahead
        self.batches: deque[Future[tuple[bytes, int, int]]] = deque()
        self.hash = hashlib.sha256()
        self.pending: list[str] = []
        self.n_pending = self.n_tokens = self.n_documents = self.n_characters = self.n_bytes = 0

    def add(self, text: str) -> None:
        self.pending.append(text)
        self.n_pending += len(text)

    def is_full(self) -> bool:
        return self.n_pending >= CHUNK_CHARACTERS

    def flush(self, n_ahead: int | None = None) -> None:
        """Hand over what is pending, and write all but the last ``n_ahead`` batches."""
        self.batches.append(self.threads.submit(self._tokenized, self.pending))
        self.n_documents += len(self.pending)
        self.n_characters += self.n_pending
        self.pending, self.n_pending = [], 0
        while len(self.batches) > (self.n_ahead if n_ahead is None else n_ahead):
            data, n_tokens, n_bytes = self.batches.popleft().result()
            self.file.write(data)
            self.hash.update(data)
            self.n_tokens += n_tokens
            self.n_bytes += n_bytes

    def _tokenized(self, texts: list[str]) -> tuple[bytes, int, int]:
        """Return the file's bytes for a batch, its tokens and its bytes of UTF-8. Runs in a thread."""
        ids = self.tokenizer.encode_joined(texts)
        return ids.astype(self.dtype).tobytes(), len(ids), sum(len(text.encode()) for text in texts)

    def finish(self) -> SplitMeta:
        self.flush(0)
        return SplitMeta(self.n_tokens, self.n_documents, self.n_characters, self.n_bytes, self.hash.hexdigest())
