"""From documents to SentencePiece's model file: lines that its trainer can take, and its settings."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import sentencepiece

from mamegpt.errors import TokenizerError
from mamegpt.messages import msg
from mamegpt.text.subsample import subsample
from mamegpt.tokenizer.reserved import RESERVED

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "CHARACTER_SHARE",
    "MAX_COVERAGE",
    "MAX_LINE_BYTES",
    "MIN_COVERAGE",
    "N_FIXED_PIECES",
    "TRAINER_SETTINGS",
    "Alphabet",
    "ModelType",
    "TrainingLines",
    "collect",
    "cut_line",
    "train_model",
]

ModelType = Literal["bpe", "unigram"]

MAX_LINE_BYTES = 4192
"""SentencePiece's trainer drops longer lines (bytes of UTF-8), with no more than a warning."""

N_FIXED_PIECES = 4 + len(RESERVED) + 256
"""Control pieces, reserved ones among them, and byte pieces."""
MIN_COVERAGE = 0.98
"""The lowest character coverage that SentencePiece takes."""
MAX_COVERAGE = 0.9995
"""The highest that is chosen; rarer characters become bytes."""
CHARACTER_SHARE = 0.5
"""Of the pieces besides the fixed ones, the share for single characters where the coverage is chosen (docs/log.md)."""

TRAINER_SETTINGS: dict[str, Any] = {
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,  # a run of spaces is one piece
    "byte_fallback": True,
    "split_digits": True,
    # The space has a piece even if the text has none: as bytes it would be decoded as U+2581.
    "required_chars": "\u2581",
    "unk_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "pad_id": 3,
    "control_symbols": ",".join(RESERVED),
    "max_sentence_length": MAX_LINE_BYTES,
    "minloglevel": 2,  # errors only, and those are raised
}

# Training text is cut at these and does not contain them. SentencePiece drops every line with U+2585 (its
# mark for unknown characters), reads U+2581 as a space, and a piece with a tab or a line break would spoil
# the .vocab file. In a text to encode they become byte pieces.
_BREAKS = re.compile("[\x00\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029\u2581\u2585]+")
_SENTENCE_END = re.compile("[。！？]+[」』）]*")
_CLAUSE_END = re.compile("、")


def cut_line(line: str, max_bytes: int = MAX_LINE_BYTES) -> list[str]:
    """Cut ``line`` into parts of at most ``max_bytes`` (4 or more) of UTF-8 whose concatenation is ``line``.

    Each cut is at the last sentence end (。！？ and the 」』） after it) that fits, else at the last 、, else
    between two characters.
    """
    parts, start = [], 0
    while len(line) - start > max_bytes // 4:  # a shorter rest fits, whatever its characters are
        window = line[start : start + max_bytes + 1]
        n_fitting = len(window.encode()[:max_bytes].decode(errors="ignore"))
        if n_fitting == len(window):
            break
        for boundary in (_SENTENCE_END, _CLAUSE_END):
            ends = [match.end() for match in boundary.finditer(window) if match.end() <= n_fitting]
            if ends:
                n_fitting = ends[-1]
                break
        parts.append(line[start : start + n_fitting])
        start += n_fitting
    return [*parts, line[start:]]


@dataclass
class TrainingLines:
    """Lines the trainer can take, and what became of the text they are from (in characters)."""

    lines: list[str]
    n_read: int
    n_used: int
    n_lines_split: int


def collect(documents: Iterable[str], max_characters: int | None) -> TrainingLines:
    """Read ``documents`` once and keep a `subsample` of their lines, of at most ``max_characters``."""
    n_read = n_lines_split = 0

    def lines() -> Iterator[str]:
        nonlocal n_read, n_lines_split
        for document in documents:
            n_read += len(document)
            for line in _BREAKS.split(document):
                parts = cut_line(line)
                n_lines_split += len(parts) > 1
                yield from filter(str.strip, parts)

    kept = subsample(lines(), max_characters, len)
    return TrainingLines(kept, n_read, sum(map(len, kept)), n_lines_split)


class Alphabet:
    """The characters of a text, and how many of them a vocabulary should have tokens for."""

    def __init__(self, lines: Sequence[str]) -> None:
        """Take the lines of the text, of which there are some."""
        self._lines = lines

    @cached_property
    def _covered(self) -> npt.NDArray[np.float64]:
        """The share of the text that the n + 1 most frequent characters are."""
        import numpy as np

        counts = np.zeros(0x110000, np.int64)
        for i in range(0, len(self._lines), 10_000):
            codes = np.frombuffer("".join(self._lines[i : i + 10_000]).encode("utf-32-le"), np.uint32)
            counts += np.bincount(codes, minlength=0x110000)
        covered: npt.NDArray[np.float64] = np.cumsum(-np.sort(-counts)) / counts.sum()
        return covered

    def n_characters(self, coverage: float) -> int:
        """Return how many characters a coverage asks for."""
        return int(self._covered.searchsorted(coverage)) + 1

    @property
    def least_vocab_size(self) -> int:
        """The vocabulary size of which `CHARACTER_SHARE` is enough for `MIN_COVERAGE`."""
        return N_FIXED_PIECES + math.ceil(self.n_characters(MIN_COVERAGE) / CHARACTER_SHARE)

    def coverage(self, vocab_size: int, *, is_chosen: bool) -> float:
        """Return the character coverage for a vocabulary size: `MAX_COVERAGE` where its characters have room.

        They have if they are at most `CHARACTER_SHARE` of the tokens, or, where the size was not chosen but given, if
        they fit at all. Else it is that of `CHARACTER_SHARE` of the tokens, but at least `MIN_COVERAGE`.
        """
        n_free = vocab_size - N_FIXED_PIECES
        n_wanted, n_most = self.n_characters(MAX_COVERAGE), int(CHARACTER_SHARE * n_free)
        if n_wanted <= n_most or (not is_chosen and n_wanted < n_free):
            return MAX_COVERAGE
        return max(MIN_COVERAGE, float(self._covered[max(0, n_most - 1)]))


def train_model(
    lines: Sequence[str],
    vocab_size: int,
    model_type: str,
    character_coverage: float,
    n_threads: int,
    *,
    is_limit: bool = False,
) -> bytes:
    """SentencePiece's trainer on ``lines``; returns the model file's content.

    With ``is_limit`` a text too short for ``vocab_size`` pieces gets as many as it has.

    Lines go in as long as they may be. No piece joins punctuation to words anyway (the trainer does not mix
    scripts), so cutting at sentence ends takes time for nothing: benchmarks/peers/bench_tokenizer_training.py.
    """
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=written,
            vocab_size=vocab_size,
            model_type=model_type,
            character_coverage=character_coverage,
            # The file records this number, and BPE gains nothing by it: 1 gives the same file everywhere.
            num_threads=n_threads if model_type == "unigram" else 1,
            # Unigram only. A fifth of SentencePiece's default: a third less time, the same compression.
            seed_sentencepiece_size=max(200_000, 10 * vocab_size),
            **TRAINER_SETTINGS,
        )
    except RuntimeError as error:
        if is_limit and (found := _TOO_LARGE.search(str(error))):
            return train_model(lines, int(found[1]), model_type, character_coverage, n_threads)
        raise TokenizerError(_explain(str(error), vocab_size, character_coverage)) from error
    return written.getvalue()


_TOO_LARGE = re.compile(r"Vocabulary size too high .*<= (\d+)")


def _explain(message: str, vocab_size: int, character_coverage: float) -> str:
    """Return the trainer's own error, as what to do about it."""
    if found := _TOO_LARGE.search(message):
        return msg(
            "--vocab-size {vocab_size} is too large for this text; use at most {limit}, or more text",
            vocab_size=vocab_size,
            limit=found[1],
        )
    if found := re.search(r"smaller than required_chars\D*\d+ vs (\d+)", message):
        if character_coverage <= MIN_COVERAGE:
            return msg(
                "--vocab-size {vocab_size} is too small for this text's different characters; use more than {limit}",
                vocab_size=vocab_size,
                limit=found[1],
            )
        return msg(
            "--vocab-size {vocab_size} is too small for this text's different characters; use more "
            "than {limit}, or a lower --character-coverage (0.995, 0.98)",
            vocab_size=vocab_size,
            limit=found[1],
        )
    return msg("SentencePiece cannot train on this text: {names}", names=" ".join(message.split()))
