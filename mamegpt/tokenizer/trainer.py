"""From documents to SentencePiece's model file: lines that its trainer can take, and its settings."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sentencepiece

from mamegpt.errors import TokenizerError
from mamegpt.messages import msg
from mamegpt.text.subsample import subsample

__all__ = ["MAX_LINE_BYTES", "TRAINER_SETTINGS", "ModelType", "TrainingLines", "collect", "cut_line", "train_model"]

ModelType = Literal["bpe", "unigram"]

MAX_LINE_BYTES = 4192
"""SentencePiece's trainer drops longer lines (bytes of UTF-8), with no more than a warning."""

TRAINER_SETTINGS: dict[str, Any] = {
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,  # a run of spaces is one piece
    "byte_fallback": True,
    "split_digits": True,
    # The space has a piece even if the text has none: spelt in bytes it would be decoded as U+2581.
    "required_chars": "\u2581",
    "unk_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "pad_id": 3,
    "max_sentence_length": MAX_LINE_BYTES,
    "minloglevel": 2,  # errors only, and those are raised
}

# Training text is cut at these and does not contain them. SentencePiece drops every line with U+2585 (its
# mark for unknown characters), reads U+2581 as a space, and a piece with a tab or a line break would spoil
# the .vocab file. In a text to encode they are spelt in byte pieces.
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


def train_model(
    lines: Sequence[str], vocab_size: int, model_type: str, character_coverage: float, n_threads: int
) -> bytes:
    """SentencePiece's trainer on ``lines``; returns the model file's content.

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
        raise TokenizerError(_explain(str(error), vocab_size)) from error
    return written.getvalue()


def _explain(message: str, vocab_size: int) -> str:
    """Return the trainer's own error, as what to do about it."""
    if found := re.search(r"Vocabulary size too high .*<= (\d+)", message):
        return msg(
            "--vocab-size {vocab_size} is too large for this text; use at most {limit}, or more text",
            vocab_size=vocab_size,
            limit=found[1],
        )
    if found := re.search(r"smaller than required_chars\D*\d+ vs (\d+)", message):
        return msg(
            "--vocab-size {vocab_size} is too small for this text's different characters; use more "
            "than {limit}, or a lower --character-coverage (0.995, 0.98)",
            vocab_size=vocab_size,
            limit=found[1],
        )
    return msg("SentencePiece cannot train on this text: {names}", names=" ".join(message.split()))
