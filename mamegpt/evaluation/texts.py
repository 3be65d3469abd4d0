"""The texts of an evaluation: given ones, or those that a run was trained and validated on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mamegpt.config import TuneConfig
from mamegpt.data.schema import GUESS, Schema
from mamegpt.data.shards import Split, is_shards, open_shards
from mamegpt.data.sources import find_files, read_texts
from mamegpt.errors import DataError
from mamegpt.run.run import Run
from mamegpt.text.subsample import subsample
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["EvalDocument", "TextSample", "Texts", "named_texts", "run_texts", "text_files"]


class EvalDocument(NamedTuple):
    """A text; ``ids`` are its tokens, without the end-of-text token, if it was read from token shards."""

    text: str
    ids: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class TextSample:
    """A sample of documents from a whole text.

    ``n_characters`` and ``n_bytes`` are those of the sample before a lossy tokenizer changed it; ``of_n_characters``
    are those of the whole text. ``tokenizer`` is the fingerprint of the tokenizer that made ``ids``.
    """

    documents: Sequence[EvalDocument]
    n_characters: int
    n_bytes: int
    of_n_characters: int
    tokenizer: str = ""

    @property
    def texts(self) -> list[str]:
        """The texts of the documents."""
        return [document.text for document in self.documents]


@dataclass(frozen=True)
class Texts:
    """One split of a text. ``read`` reads its documents from the beginning at every call.

    For token shards, ``n_characters`` and ``n_bytes`` are those of the text that was tokenized, and ``tokenizer`` is
    the fingerprint of the tokenizer.
    """

    read: Callable[[], Iterator[EvalDocument]]
    n_characters: int = 0
    n_bytes: int = 0
    tokenizer: str = ""

    def __iter__(self) -> Iterator[str]:
        """Iterate over the texts of the documents."""
        return (document.text for document in self.read())

    def sample(self, max_characters: int | None = None) -> TextSample:
        """Draw a `subsample` of at most ``max_characters`` (None: all documents)."""
        read = np.zeros(2, np.int64)

        def counted() -> Iterator[EvalDocument]:
            for document in self.read():
                read[:] += _lengths(document)
                yield document

        chosen = subsample(counted(), max_characters, lambda document: len(document.text))
        # A lossy tokenizer shortens the text; the sample is assumed to be shortened by the same ratio as the whole.
        whole = np.array([self.n_characters, self.n_bytes]) if self.tokenizer else read
        lengths = sum(map(_lengths, chosen), np.zeros(2, np.int64)) * whole / np.maximum(read, 1)
        n_characters, n_bytes = np.rint(lengths).astype(int).tolist()
        return TextSample(chosen, n_characters, n_bytes, int(whole[0]), self.tokenizer)


def _lengths(document: EvalDocument) -> npt.NDArray[np.int64]:
    """Return the numbers of characters and bytes."""
    return np.array([len(document.text), len(document.text.encode())])


def named_texts(data: str, split: str, tokenizer: Tokenizer | None, schema: Schema = GUESS) -> Texts:
    """Return one split of a text, or of a folder of token shards that were made with ``tokenizer``.

    Raises, now or when it is read, what `read_texts` and `open_shards` raise; `DataError` if shards have no such split.
    """
    if not is_shards(data):
        return Texts(lambda: map(EvalDocument, read_texts(data, split, schema)))
    if tokenizer is None:
        raise DataError("{data} contains the tokens of another tokenizer; give the text they were made from", data=data)
    found = _tokenized(open_shards(Path(data), tokenizer)[1], tokenizer)
    if split not in found:
        raise DataError("{data} has no split {split!r}; it has {names}", data=data, split=split, names=", ".join(found))
    return found[split]


def text_files(data: str, split: str, schema: Schema = GUESS) -> list[Path]:
    """Return the files that `named_texts` reads: those of a text, or the folder of token shards. Raises the same
    errors.
    """
    return [Path(data)] if is_shards(data) else [file.path for file in find_files(data, split, schema)]


def run_texts(run: Run) -> dict[str, Texts]:
    """Return the texts of a run from its tokens, by split (``train``, and ``val`` if it has one); empty if these are
    gone.

    Those of a run that tuned a model are of the run whose text it read. Raises what `Run.tokens` raises.
    """
    if isinstance(run.config, TuneConfig):
        base = Run.find(run.config.text_data)
        return run_texts(base) if base else {}
    found = run.tokens()
    return _tokenized(found[1], run.tokenizer) if found else {}


def _tokenized(splits: Mapping[str, Split], tokenizer: Tokenizer) -> dict[str, Texts]:
    """Return the documents of each split of token shards, decoded."""
    return {
        name: Texts(_documents(split, tokenizer), split.meta.n_characters, split.meta.n_bytes, tokenizer.fingerprint)
        for name, split in splits.items()
    }


def _documents(split: Split, tokenizer: Tokenizer) -> Callable[[], Iterator[EvalDocument]]:
    """Return a function that yields the documents of a split; without an end-of-text id, all is one document."""

    def read() -> Iterator[EvalDocument]:
        tokens = split.tokens
        ends = [len(tokens)] if split.eos_id is None else np.flatnonzero(tokens == split.eos_id).tolist()
        begin = 0
        for end in ends:
            ids = tokens[begin:end]
            yield EvalDocument(tokenizer.decode(ids.tolist()), ids)
            begin = end + 1

    return read
