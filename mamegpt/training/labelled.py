"""The data of a run that tunes a model to classify: texts with labels, as token shards of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mamegpt.config import TuneConfig
from mamegpt.data.conversation_order import label_token
from mamegpt.data.labelled import LabelledReader, sorted_labels
from mamegpt.data.shards import Encoded, Meta, write_shards
from mamegpt.data.sources import noted_source
from mamegpt.errors import DataError, TokenizerError
from mamegpt.messages import msg, tally
from mamegpt.system.files import write_json
from mamegpt.text.normalize import normalize
from mamegpt.tokenizer.tokenizer import Tokenizer
from mamegpt.training.events import Emit, LabelledTextsRead

__all__ = ["write_labelled_texts"]

UNKNOWN_LABEL = msg("a label that the training data lacks")
MOST_LABELS = 1000


def write_labelled_texts(
    folder: Path, labels_file: Path, config: TuneConfig, tokenizer: Tokenizer, check: Callable[[Meta], None], emit: Emit
) -> None:
    """Write token shards of the texts, cut to the context of the model, and the names of their labels.

    Raises `DataError` if there are fewer than two labels or too many, `TokenizerError` if the tokenizer has no
    end-of-text token.
    """
    if tokenizer.eos_id is None:
        raise TokenizerError("{path} has no end-of-text token, which separates the texts", path=tokenizer.path)
    readers = {name: LabelledReader(*source, config.encoding) for name, source in config.sources.items()}
    train = readers["train"]
    labels = sorted_labels(label for _, label in train)
    if not 2 <= len(labels) <= min(MOST_LABELS, tokenizer.vocab_size - 1):
        raise DataError(
            "{data} has {n:,} labels; a classifier has 2 to {most:,} (rows that were left out: {reasons})",
            data=config.data,
            n=len(labels),
            most=MOST_LABELS,
            reasons=tally(train.dropped) or msg("none"),
        )
    counts, dropped = Counter[str](dict.fromkeys(labels, 0)), Counter[str]()
    encoded = {name: _Encoded(reader, tokenizer, labels, config.context_length) for name, reader in readers.items()}

    def finish(meta: Meta) -> None:
        check(meta)
        write_json(labels_file, labels)

    made = write_shards(
        folder,
        encoded,
        tokenizer,
        val_fraction=config.val_fraction,
        source=noted_source(train.files),
        check=finish,
    )
    for reader in readers.values():
        dropped += reader.dropped
    for one in encoded.values():
        counts += one.counts
        dropped += one.dropped
    n_cut = sum(one.n_cut for one in encoded.values())
    n_texts: dict[str, int] = {name: split.n_documents for name, split in made.splits.items()}
    emit(LabelledTextsRead(counts, n_texts, dict(dropped), n_cut))


class _Encoded:
    """Texts as ids, each followed by the token of its label; counts labels, and texts that are cut or left out."""

    def __init__(
        self, reader: LabelledReader, tokenizer: Tokenizer, labels: Sequence[str], context_length: int
    ) -> None:
        self.reader, self.tokenizer, self.context_length = reader, tokenizer, context_length
        self.numbers = {label: i for i, label in enumerate(labels)}
        self.counts, self.dropped, self.n_cut = Counter[str](), Counter[str](), 0

    def __iter__(self) -> Iterator[Encoded]:
        assert self.tokenizer.eos_id is not None
        for text, label in self.reader:
            if label not in self.numbers:
                self.dropped[UNKNOWN_LABEL] += 1
                continue
            normalized = normalize(text)
            ids = self.tokenizer.encode(normalized)
            self.n_cut += len(ids) > self.context_length
            self.counts[label] += 1
            last = label_token(self.numbers[label], self.tokenizer.eos_id)
            yield Encoded([*ids[: self.context_length], last], normalized, normalized)
