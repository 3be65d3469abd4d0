"""Score a model on a text: load both, tokenize, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mamegpt.distributed import World, pick_device
from mamegpt.errors import DataError, ModelError
from mamegpt.evaluate import Quality, TokenLengths, evaluate
from mamegpt.pretrained import load_pretrained
from mamegpt.shards import is_shards, open_shards
from mamegpt.sources import read_texts
from mamegpt.tokenizer import Tokenizer

__all__ = ["score"]


def score(model: str, data: str, split: str, *, spm_file: str = "", device: str = "auto") -> Quality:
    """The `Quality` of a model (as `load_pretrained` takes it) on one split of a text or of token shards.

    Raises what loading either raises, and `ModelError` for a model whose head is not ours to look into.
    """
    world = World(0, 1, pick_device(device))
    loaded = load_pretrained(model, spm_file=spm_file, device=world.device)
    if loaded.sizes is None:
        raise ModelError(f"{model} is a {loaded.architecture} model; only models of ours can be evaluated")
    return evaluate(
        loaded.model,
        _tokens(data, split, loaded.tokenizer),
        TokenLengths(loaded.tokenizer),
        context_length=loaded.sizes.context_length,
        eos_id=loaded.tokenizer.eos_id,
        world=world,
    )


def _tokens(data: str, split: str, tokenizer: Tokenizer) -> npt.NDArray[Any]:
    if is_shards(data):
        _, splits = open_shards(Path(data), tokenizer)
        if split not in splits:
            raise DataError(f"{data} has no split {split!r}; it has {', '.join(splits)}")
        return splits[split].tokens
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    return np.array([token for text in read_texts(data, split) for token in (*tokenizer.encode(text), *end)])
