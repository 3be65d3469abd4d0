"""Scorers: the likelihood of a text under a model, comparable between models.

Texts are characters, and each model tokenizes them in its own way; likelihoods of whole texts are therefore comparable.
Only a tokenizer with an "unknown" token makes its model look better than it is.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from mamegpt.errors import ModelError
from mamegpt.evaluation.texts import TextSample
from mamegpt.models.base import LanguageModel
from mamegpt.models.weights import check_memory, memory_of
from mamegpt.pretrained import (
    Pretrained,
    TransformersModel,
    is_foreign,
    load,
    transformers_loads,
)
from mamegpt.run.metrics import Quality
from mamegpt.system.devices import on_device
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["Scorer", "Writer", "log_likelihoods", "open_model", "stream_of", "text_quality"]

LOGITS = {"cpu": 1 << 23}
"""Most logits in memory at once on a kind of device (32 MB); on a CPU four times as many take a third longer."""
MOST_LOGITS = 1 << 26
"""Most logits in memory at once on any other device (256 MB)."""

MAX_CONTEXT = 1024
"""Longest context for a model of transformers; longer ones are slow and change little for texts of one page."""

Ids = npt.NDArray[np.int64]


class Scorer(Protocol):
    """A model that gives tokens a probability."""

    context_length: int
    """Most tokens before a predicted one."""
    vocab_size: int
    fingerprint: str
    """The fingerprint of its tokenizer, if that is a SentencePiece model."""
    start_id: int | None
    """The token before a text; None if there is no such token."""
    restarts: bool
    """Whether ``start_id`` comes before every document and window, and not only before the first document."""
    end_id: int | None
    """The token after a text; None if there is no such token."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without special tokens."""

    def nats(self, rows: Sequence[Ids]) -> list[float]:
        """Return the sum of -log p of each row's tokens except the first, each given the tokens before it in the row.

        A row has at least one token, and at most ``context_length + 1``.
        """


class Writer(Scorer, Protocol):
    """A scorer that also continues texts."""

    origin: str
    """What was loaded; for a run, the folder of its checkpoint."""
    tokenizer: Tokenizer | None
    """The tokenizer, if it is one of mamegpt."""

    def move(self, device: torch.device) -> None:
        """Compute on a device from now on; a model that was loaded by the caller stays on its own."""

    def write(self, prompts: Sequence[str], n_tokens: int) -> list[str]:
        """Return at most ``n_tokens`` after each prompt, the beginning of a text; temperature 1, prompt i with
        seed i.
        """


def log_likelihoods(scorer: Scorer, texts: Sequence[str]) -> list[float]:
    """Return the natural logarithm of the probability of each text, without its end.

    A text that exceeds the context is scored in windows, as in `text_quality`. Without a start token, the first token
    is not counted.
    """
    rows = [list(_rows(scorer, [np.array(ids, np.int64)])) for ids in scorer.encode(texts)]
    nats = iter(scorer.nats([row for some in rows for row in some]))
    return [-math.fsum(itertools.islice(nats, len(some))) for some in rows]


def text_quality(scorer: Scorer, sample: TextSample) -> Quality:
    """Return the `Quality` for concatenated documents, each with its end, in windows that do not overlap.

    For a mamegpt model it equals `validation.evaluate` on the whole text.
    """
    rows = list(_rows(scorer, _documents(scorer, sample)))
    n_tokens = max(1, sum(len(row) - 1 for row in rows))
    nats = math.fsum(scorer.nats(rows))
    return Quality.from_nats(
        nats,
        n_tokens,
        sample.n_characters,
        sample.n_bytes,
        of_n_characters=sample.of_n_characters,
        dtype="float32",
    )


def stream_of(scorer: Scorer, sample: TextSample) -> Ids:
    """Return the ids of concatenated documents, each with the tokens before and after it, (N,)."""
    before = [scorer.start_id] if scorer.restarts else []
    return np.concatenate([_NONE, *(part for ids in _documents(scorer, sample) for part in (before, ids))]).astype(int)


_NONE = np.empty(0, np.int64)


def _documents(scorer: Scorer, sample: TextSample) -> Iterator[Ids]:
    """Yield the ids of each document and the end-of-text id, if there is one.

    Ids from token shards are used if the scorer has the same tokenizer.
    """
    end = [] if scorer.end_id is None else [scorer.end_id]
    own = sample.tokenizer and sample.tokenizer == scorer.fingerprint
    for text, stored in sample.documents:
        ids = stored if own and stored is not None else scorer.encode([text])[0]
        yield np.concatenate((ids, end)).astype(np.int64)


def _rows(scorer: Scorer, documents: Iterable[Ids]) -> Iterator[Ids]:
    """Cut documents into rows so that each token is predicted once, except a first one with nothing before it."""
    start = _NONE if scorer.start_id is None else np.array([scorer.start_id])
    n = scorer.context_length
    if scorer.restarts:
        for ids in documents:
            yield from (np.concatenate((start, ids[i : i + n])) for i in range(0, len(ids), n))
        return
    stream = np.concatenate((start, *documents))
    yield from (stream[i : i + n + 1] for i in range(0, len(stream) - 1, n))


def open_model(model: str | os.PathLike[str] | Pretrained, *, spm_file: str = "") -> Writer:
    """Load a run, a checkpoint, an exported folder, or any causal model that transformers supports, locally or from the
    Hub, into memory (see `Writer.move`).

    A model that is already loaded stays on its device.

    Raises `ModelError` or `HubError` if there is no such model or it cannot be loaded (no code of a repository is run),
    and `CheckpointError` if a run is damaged.
    """
    if isinstance(model, Pretrained):
        return _Own(model, stays=True)
    if is_foreign(os.fspath(model)):
        return _Foreign(os.fspath(model))
    return _Own(load(model, spm_file=spm_file, device="cpu"))


class _Own:
    """A mamegpt model. Its documents are concatenated, each after an end-of-text token."""

    restarts = False

    def __init__(self, loaded: Pretrained, stays: bool = False) -> None:
        self.stays = stays
        self.origin = loaded.origin
        self.tokenizer: Tokenizer | None = loaded.tokenizer
        self.context_length, self.vocab_size = loaded.model.context_length, loaded.tokenizer.vocab_size
        self.start_id, self.end_id = loaded.tokenizer.start_id, loaded.tokenizer.eos_id
        self.fingerprint = loaded.tokenizer.fingerprint
        self.encode = loaded.tokenizer.encode_batch
        self.loaded = loaded

    def move(self, device: torch.device) -> None:
        """See `Writer.move`."""
        if not self.stays:
            self.loaded.model.to(device)

    def nats(self, rows: Sequence[Ids]) -> list[float]:
        """See `Scorer.nats`."""
        return _sums(self.loaded.model, rows, self.vocab_size)

    def write(self, prompts: Sequence[str], n_tokens: int) -> list[str]:
        """See `Writer.write`."""
        return list(self.loaded.generate_many(prompts, max_new_tokens=n_tokens, temperature=1, seed=0))


class _Foreign:
    """A model and a tokenizer loaded by transformers, in float32."""

    tokenizer: Tokenizer | None = None
    fingerprint = ""

    def __init__(self, where: str) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        self.origin = where
        with transformers_loads(where):
            if Path(where).is_dir():
                with torch.device("meta"):
                    shape: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                        AutoConfig.from_pretrained(where, trust_remote_code=False), trust_remote_code=False
                    )
                check_memory(memory_of(shape), sum(file.stat().st_size for file in Path(where).iterdir()), where)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
            model: Any = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, trust_remote_code=False)
        # Sampling settings in a folder would be defaults of later calls, above all the temperature.
        model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        self._model = TransformersModel(model).eval()
        self.context_length = min(self._model.context_length, MAX_CONTEXT)
        self.vocab_size = int(model.config.vocab_size)
        self.end_id: int | None = self._tokenizer.eos_token_id
        # If the tokenizer adds no start token itself, documents are concatenated, like those of mamegpt models.
        self.restarts = self._tokenizer("豆")["input_ids"][:1] == [self._tokenizer.bos_token_id]
        self.start_id: int | None = self._tokenizer.bos_token_id if self.restarts else self.end_id

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Scorer.encode`."""
        return [self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in texts]

    def move(self, device: torch.device) -> None:
        """See `Writer.move`."""
        self._model.to(device)

    def nats(self, rows: Sequence[Ids]) -> list[float]:
        """See `Scorer.nats`."""
        return _sums(self._model, rows, self.vocab_size)

    def write(self, prompts: Sequence[str], n_tokens: int) -> list[str]:
        """See `Writer.write`; prompts are shortened on the left to fit the context."""
        return [self._write(prompt, n_tokens, seed) for seed, prompt in enumerate(prompts)]

    def _write(self, prompt: str, n_tokens: int, seed: int) -> str:
        from transformers import GenerationConfig

        n_tokens = min(n_tokens, self.context_length // 2)
        start = [] if self.start_id is None else [self.start_id]
        ids = [*start, *self.encode([prompt])[0]][n_tokens - self.context_length :]
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=True, top_k=0, max_new_tokens=n_tokens, eos_token_id=self.end_id, pad_token_id=self.end_id
        )
        model = self._model.model
        given = torch.tensor([ids], device=model.device)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            found = model.generate(given, attention_mask=torch.ones_like(given), generation_config=settings)
        return str(self._tokenizer.decode(found[0, len(ids) :], skip_special_tokens=True))


@torch.inference_mode()
def _sums(model: LanguageModel, rows: Sequence[Ids], vocab_size: int) -> list[float]:
    """Return `Scorer.nats` of a model; rows of similar length are computed together.

    Results are read at the end, so that nothing waits for the device in between.
    """
    device = model.out_head.weight.device
    most = LOGITS.get(device.type, MOST_LOGITS)
    sums = [0.0] * len(rows)
    measured: list[tuple[list[int], torch.Tensor]] = []
    by_length = sorted((i for i in range(len(rows)) if len(rows[i]) > 1), key=lambda i: len(rows[i]))
    while by_length:
        longest = len(rows[by_length[-1]])
        some = by_length[-max(1, most // (vocab_size * longest)) :]
        del by_length[-len(some) :]
        padded = torch.zeros(len(some), longest, dtype=torch.int64)
        counts = torch.zeros(len(some), longest - 1)
        for row, i in enumerate(some):
            padded[row, : len(rows[i])] = torch.from_numpy(rows[i])
            counts[row, : len(rows[i]) - 1] = 1
        padded, counts = on_device(padded.numpy(), device), on_device(counts.numpy(), device)
        logits = model(padded[:, :-1]).float()  # padding comes after all counted tokens
        nats = logits.logsumexp(-1) - logits.gather(-1, padded[:, 1:, None])[..., 0]
        measured.append((some, nats * counts))
    for some, counted in measured:
        totals = counted.cpu().double().sum(-1)  # MPS has no double precision
        if not bool(totals.isfinite().all()):
            raise ModelError(
                "the model's probabilities must be numbers (got NaN): its weights are damaged, or its "
                "training diverged; choose another checkpoint"
            )
        for i, total in zip(some, totals.tolist(), strict=True):
            sums[i] = total
    return sums
