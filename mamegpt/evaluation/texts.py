"""The texts of an evaluation: those that were named, or those a run was trained and validated on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mamegpt.config import TrainConfig
from mamegpt.corpus.schema import GUESS, Schema
from mamegpt.errors import DataError
from mamegpt.run_files import CHECKPOINTS, CONFIG_FILE, TOKENS
from mamegpt.shards import is_shards, open_shards
from mamegpt.sources import is_here, read_texts
from mamegpt.tokenizer import Tokenizer

__all__ = ["Texts", "is_run", "named_texts", "run_texts"]

Texts = Callable[[], Iterator[str]]
"""Documents, from the beginning at every call."""


def is_run(where: str) -> bool:
    """Whether this is the folder of a run."""
    return is_here(f"{where}/{CHECKPOINTS}")


def named_texts(data: str, split: str, tokenizer: Tokenizer | None, schema: Schema = GUESS) -> Texts:
    """One split of a text, or of a folder of token shards that were made with ``tokenizer``.

    Raises, now or when read, what `read_texts` and `open_shards` raise; `DataError` if shards have no such split.
    """
    if not is_shards(data):
        return lambda: read_texts(data, split, schema)
    if tokenizer is None:
        raise DataError(f"{data} holds the tokens of another tokenizer; give the text they were made of")
    found = _decoded(Path(data), tokenizer)
    if split not in found:
        raise DataError(f"{data} has no split {split!r}; it has {', '.join(found)}")
    return found[split]


def run_texts(run: Path, tokenizer: Tokenizer) -> dict[str, Texts]:
    """By split (``train``, and ``val`` if it has one), the texts of a run, from its tokens; none if these are gone.

    Raises what `open_shards` raises.
    """
    places = (run / TOKENS, TrainConfig.load(run / CONFIG_FILE).data)
    found = next((place for place in places if is_shards(place)), None)
    return _decoded(Path(found), tokenizer) if found else {}


def _decoded(folder: Path, tokenizer: Tokenizer) -> dict[str, Texts]:
    """The documents of each split of token shards, put back together."""
    _, splits = open_shards(folder, tokenizer)
    return {name: _documents(split.tokens, split.eos_id, tokenizer) for name, split in splits.items()}


def _documents(tokens: npt.NDArray[Any], eos_id: int | None, tokenizer: Tokenizer) -> Texts:
    """Documents end in ``eos_id``; without one, all is one document."""

    def read() -> Iterator[str]:
        ends = [len(tokens)] if eos_id is None else np.flatnonzero(tokens == eos_id).tolist()
        begin = 0
        for end in ends:
            yield tokenizer.decode(tokens[begin:end].tolist())
            begin = end + 1

    return read
