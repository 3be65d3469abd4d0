"""Token files on disk, memory-mapped.

A folder of token shards contains one file of little-endian integers per split (``train.bin``, ``val.bin``; uint16, or
uint32 for a vocabulary size above 65,536) and ``meta.json`` with counts, hashes and the tokenizer's fingerprint. Each
document is followed by the tokenizer's end-of-text id, if it has one.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from mamegpt.data.provenance import Provenance
from mamegpt.errors import DataError
from mamegpt.messages import msg
from mamegpt.system.files import atomic_directory, sha256_file, write_json
from mamegpt.system.limits import usable_cores
from mamegpt.system.validation import Count, FromJSON, Positive, read_json
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["TEXT", "Encoded", "Meta", "Split", "is_shards", "open_shards", "sample_tokens", "write_shards"]

Format = Literal["mamegpt-tokens-1"]
META_FILE = "meta.json"
SPLITS = ("train", "val")
TEXT = "text"
"""A further split of conversations: text to read beside them."""
CHUNK_CHARACTERS = 1 << 20
"""Text is tokenized in batches of about this many characters, so memory does not grow with the corpus."""


@dataclass(frozen=True)
class SplitMeta(FromJSON):
    """Counts of one split. Characters and bytes are those of the normalized text, without end-of-text tokens."""

    n_tokens: Positive
    n_documents: Positive
    n_characters: Positive
    n_bytes: Positive
    sha256: str


@dataclass(frozen=True)
class Meta(FromJSON):
    """Content of ``meta.json``. ``origins`` are the steps that made the text, as far as they are known."""

    format: Format
    dtype: Literal["uint16", "uint32"]
    vocab_size: Positive
    eos_id: Count | None
    tokenizer_sha256: str
    source: str
    splits: dict[str, SplitMeta]
    origins: list[Provenance] = field(default_factory=list)

    def fingerprint(self) -> str:
        """Return 64 hexadecimal digits that change with any token and with the tokenizer."""
        parts = [self.tokenizer_sha256, self.dtype]
        parts += [f"{name}:{split.sha256}" for name, split in sorted(self.splits.items())]
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Split:
    """An open split: ``tokens`` is a read-only memory map of (n_tokens,)."""

    tokens: npt.NDArray[Any]
    meta: SplitMeta
    eos_id: int | None


@dataclass(frozen=True, slots=True)
class Encoded:
    """A document whose ids are there already, such as a conversation."""

    ids: Sequence[int] | npt.NDArray[Any]
    counted: str
    """The text whose characters and bytes count: of a conversation, its answers."""
    key: str
    """The text whose hash decides on the split: of a conversation, its question."""


def write_shards(
    out: Path,
    documents: Mapping[str, Iterable[str | Encoded]],
    tokenizer: Tokenizer,
    *,
    val_fraction: float = 0.0,
    source: str = "",
    origins: Iterable[Provenance] = (),
    check: Callable[[Meta], None] = lambda _: None,
    on_progress: Callable[[int, int], None] | None = None,
    n_threads: int | None = None,
) -> Meta:
    """Tokenize normalized texts into a folder that is written atomically.

    ``documents`` maps a split (``train``, ``val``, and for conversations `TEXT`) to its texts. If there is no ``val``,
    each training document is assigned to it with probability ``val_fraction``, by a hash of its text, so that equal
    documents are always in the same split. ``on_progress(n_documents, n_tokens)`` is called after each batch. Batches
    are tokenized on ``n_threads`` threads (default: one per core) while the next documents are read; the files do not
    depend on the number of threads.

    ``check`` is called with the `Meta` of the files before the folder appears, and may raise. Raises `OutputError` if
    ``out`` exists, and `DataError` if the training split is empty.
    """
    dtype: Literal["uint16", "uint32"] = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
    n_threads = n_threads or usable_cores()
    with atomic_directory(out) as folder, ThreadPoolExecutor(n_threads) as threads:
        splits = {
            name: _SplitWriter(folder / f"{name}.bin", dtype, tokenizer, threads, n_threads)
            for name in dict.fromkeys((*SPLITS, *documents))
        }
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
                "all {n_documents} document(s) of {source} fell to the validation side; give more "
                "documents, or --val-fraction 0",
                n_documents=finished["val"].n_documents,
                source=source or msg("the corpus"),
            )
        for name in ("train", *documents):
            if not finished[name].n_characters:
                raise DataError(
                    "{source} holds no text for the split {name!r}", source=source or msg("the corpus"), name=name
                )
        meta = Meta(
            format=get_args(Format)[0],
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
    """Return whether a path is a folder of token shards.

    ``place`` may also be a list of sources, which may be too long for a file name.
    """
    try:
        return (Path(place) / META_FILE).is_file()
    except (OSError, ValueError):
        return False


def open_shards(
    folder: Path, tokenizer: Tokenizer | None = None, *, verify: bool = True
) -> tuple[Meta, dict[str, Split]]:
    """Memory-map a folder of token shards.

    With ``verify``, each file is read once and its hash is compared. Raises `DataError` if a file is missing, damaged
    or in another format, or if the tokens were made with another tokenizer than ``tokenizer``.
    """
    path = folder / META_FILE
    try:
        meta = read_json(path, Meta)
        if not {"train"} <= meta.splits.keys() <= {*SPLITS, TEXT}:
            raise ValueError(msg("it has no usable splits"))
        if meta.eos_id is not None and meta.eos_id >= meta.vocab_size:
            raise ValueError(msg("eos_id is not a token id"))
    except FileNotFoundError:
        raise DataError(
            "{folder} is not a folder of token shards: it has no {meta_file}", folder=folder, meta_file=META_FILE
        ) from None
    except ValueError as error:
        raise DataError("{path} is damaged ({reason}); tokenize the text again", path=path, reason=error) from None
    if tokenizer is not None and tokenizer.fingerprint != meta.tokenizer_sha256:
        raise DataError(
            "{folder} was made with another tokenizer than {path}; use that one, or tokenize the text again",
            folder=folder,
            path=tokenizer.path,
        )
    splits = {}
    for name, split in meta.splits.items():
        file = folder / f"{name}.bin"
        size = split.n_tokens * np.dtype(meta.dtype).itemsize
        if not file.is_file():
            raise DataError("{file} is missing; tokenize the text again", file=file)
        if file.stat().st_size != size:
            raise DataError(
                "{file} has {st_size} bytes where {meta_file} says {size}; tokenize the text again",
                file=file,
                st_size=file.stat().st_size,
                meta_file=META_FILE,
                size=size,
            )
        if verify and sha256_file(file) != split.sha256:
            raise DataError(
                "{file} is damaged: its hash is not the one in {meta_file}; tokenize the text again",
                file=file,
                meta_file=META_FILE,
            )
        tokens = np.memmap(file, dtype=np.dtype(meta.dtype).newbyteorder("<"), mode="r")
        if verify and tokens.max() >= meta.vocab_size:
            raise DataError(
                "{file} contains token ids beyond the vocabulary size {vocab_size} of {meta_file}; "
                "tokenize the text again",
                file=file,
                vocab_size=meta.vocab_size,
                meta_file=META_FILE,
            )
        splits[name] = Split(tokens, split, meta.eos_id)
    return meta, splits


def _held_out(document: str | Encoded, fraction: float) -> bool:
    """Return whether a document is held out for validation."""
    key = document.key if isinstance(document, Encoded) else document
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < fraction * 2**64


def _counted(document: str | Encoded) -> str:
    return document.counted if isinstance(document, Encoded) else document


class _SplitWriter:
    """Collects texts, tokenizes them in batches on threads, and appends the batches in order to one file."""

    def __init__(self, path: Path, dtype: str, tokenizer: Tokenizer, threads: Executor, n_ahead: int) -> None:
        self.file = path.open("wb")
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.tokenizer = tokenizer
        self.threads, self.n_ahead = threads, n_ahead
        self.batches: deque[Future[tuple[bytes, int, int]]] = deque()
        self.hash = hashlib.sha256()
        self.pending: list[str | Encoded] = []
        self.n_pending = self.n_tokens = self.n_documents = self.n_characters = self.n_bytes = 0

    def add(self, document: str | Encoded) -> None:
        self.pending.append(document)
        self.n_pending += len(_counted(document))

    def is_full(self) -> bool:
        return self.n_pending >= CHUNK_CHARACTERS

    def flush(self, n_ahead: int | None = None) -> None:
        """Submit the pending texts, and write all but the last ``n_ahead`` batches."""
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

    def _tokenized(self, documents: list[str | Encoded]) -> tuple[bytes, int, int]:
        """Return a batch as bytes of the file, its number of tokens, and its number of UTF-8 bytes. Runs in a
        thread.
        """
        n_bytes = sum(len(_counted(document).encode()) for document in documents)
        end = [] if self.tokenizer.eos_id is None else [self.tokenizer.eos_id]
        parts = [np.concatenate((document.ids, end)) for document in documents if isinstance(document, Encoded)]
        texts = [document for document in documents if isinstance(document, str)]
        ids = np.concatenate(parts) if parts else self.tokenizer.encode_joined(texts)  # a split has one kind
        return ids.astype(self.dtype).tobytes(), len(ids), n_bytes

    def finish(self) -> SplitMeta:
        self.flush(0)
        return SplitMeta(self.n_tokens, self.n_documents, self.n_characters, self.n_bytes, self.hash.hexdigest())


def sample_tokens(tokens: npt.NDArray[Any], most: int, n_pieces: int) -> npt.NDArray[Any]:
    """Return ``tokens`` (N,) if they are ``most`` or fewer, else ``n_pieces`` of them from everywhere, as many."""
    if len(tokens) <= most:
        return tokens
    size = most // n_pieces
    begins = np.linspace(0, len(tokens) - size, n_pieces).astype(np.int64)
    return np.concatenate([tokens[begin : begin + size] for begin in begins])
