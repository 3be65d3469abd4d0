"""SentencePiece tokenizers that lose nothing: train, load, encode, decode, decode as a stream.

A tokenizer of ours has an identity normaliser, no dummy prefix, keeps every space, and spells what its
vocabulary lacks (rare kanji, emoji, the line feed) in byte pieces. So ``decode(encode(text)) == text`` for
every text without U+2581, which SentencePiece itself uses for the space. What cleaning a text needs happens
before, in `mamegpt.text`. Tokenizers made elsewhere load too; `Tokenizer.settings` says how they differ.

Sources: Kudo and Richardson, "SentencePiece" (EMNLP 2018); byte-pair encoding after Sennrich, Haddow and
Birch (ACL 2016); unigram after Kudo, "Subword Regularization" (ACL 2018).
"""

from __future__ import annotations

import codecs
import hashlib
import heapq
import io
import os
import random
import re
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import sentencepiece

from mamegpt.errors import ConfigError, TokenizerError
from mamegpt.files import atomic_write, refuse_existing

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "MAX_LINE_BYTES",
    "Piece",
    "StreamDecoder",
    "Tokenizer",
    "TokenizerReport",
    "TokenizerSettings",
    "check_characters",
    "cut_line",
    "train_tokenizer",
]

ModelType = Literal["bpe", "unigram"]
PieceKind = Literal["normal", "unknown", "control", "user_defined", "unused", "byte"]

MAX_LINE_BYTES = 4192
"""SentencePiece's trainer drops longer lines (bytes of UTF-8), with no more than a warning."""

_TRAINER_SETTINGS: dict[str, Any] = {
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
_MAX_THREADS = 128  # of the trainer
_N_FIXED_PIECES = 4 + 256
_N_MEASURED_CHARACTERS = 1_000_000
_SCORE_STEPS = 64  # unigram scores become multiples of 1 / 64

# Training text is cut at these and does not contain them. SentencePiece drops every line with U+2585 (its
# mark for unknown characters), reads U+2581 as a space, and a piece with a tab or a line break would spoil
# the .vocab file. In a text to encode they are spelt in byte pieces.
_BREAKS = re.compile("[\x00\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029\u2581\u2585]+")
_SENTENCE_END = re.compile("[。！？]+[」』）]*")
_CLAUSE_END = re.compile("、")


# ---------------------------------------------------------------- training


@dataclass(frozen=True)
class TokenizerReport:
    """What `train_tokenizer` did; every number is of the text it was given.

    ``characters_per_token`` and ``byte_fallback_rate`` are measured by encoding lines spread evenly over the
    training text (about a million characters at most), each with its line feed. ``byte_fallback_rate`` is the
    share of tokens that are bytes, the line feed not counted as one.
    """

    path: Path
    vocab_size: int
    model_type: ModelType
    n_characters: int  # read
    n_characters_used: int  # trained on: what is left after breaks, blank lines and sampling
    n_sentences: int  # lines trained on
    n_lines_split: int  # lines longer than MAX_LINE_BYTES, cut into several
    elapsed_s: float
    characters_per_token: float
    byte_fallback_rate: float


def train_tokenizer(
    documents: Iterable[str],
    out: Path,
    *,
    vocab_size: int = 16_000,
    model_type: ModelType = "bpe",
    character_coverage: float = 0.9995,
    n_threads: int | None = None,
    max_characters: int | None = 10_000_000,
    overwrite: bool = False,
) -> TokenizerReport:
    """Train a lossless tokenizer on ``documents`` (or lines) and write ``out``.model and ``out``.vocab.

    ``out`` may end in ``.model`` or not. ``character_coverage`` (0.98 to 1) is the share of the text's
    characters that get pieces of their own; the rest is spelt in bytes. ``n_threads`` defaults to the number
    of cores. Of a text longer than ``max_characters`` an even sample of lines is used, always the same one
    (``None``: all of it, at about 75 bytes of memory a character). Ids 0 to 3 are ``<unk> <s> </s> <pad>``.

    The same text gives the same file: for BPE always, for unigram with the same ``n_threads``.

    Raises `ConfigError` for a setting out of range, `TokenizerError` if the text is empty or does not fit
    ``vocab_size``, `OutputError` if the files exist and not ``overwrite``.
    """
    started = time.perf_counter()
    if n_threads is None:
        n_threads = min(os.cpu_count() or 1, _MAX_THREADS)
    _check_settings(vocab_size, model_type, character_coverage, n_threads, max_characters)
    model_path, vocab_path = _output_paths(Path(out))
    if not overwrite:
        refuse_existing(model_path)
        refuse_existing(vocab_path)

    corpus = _collect([documents] if isinstance(documents, str) else documents, max_characters)
    if not corpus.lines:
        raise TokenizerError(f"no text to train {model_path} on: every document is empty or blank")
    proto = _train(corpus.lines, vocab_size, model_type, character_coverage, n_threads)
    if model_type == "unigram":
        proto = _round_scores(proto)
    tokenizer = Tokenizer(proto, model_path)

    with atomic_write(vocab_path) as file:
        file.writelines(f"{piece.text}\t{piece.score:g}\n" for piece in tokenizer.pieces)
    with atomic_write(model_path, "wb") as file:  # last: where the model is, the vocabulary is
        file.write(proto)

    characters_per_token, byte_fallback_rate = _measure(tokenizer, corpus, n_threads)
    return TokenizerReport(
        path=model_path,
        vocab_size=tokenizer.vocab_size,
        model_type=model_type,
        n_characters=corpus.n_read,
        n_characters_used=corpus.n_used,
        n_sentences=len(corpus.lines),
        n_lines_split=corpus.n_lines_split,
        elapsed_s=time.perf_counter() - started,
        characters_per_token=characters_per_token,
        byte_fallback_rate=byte_fallback_rate,
    )


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


def _check_settings(
    vocab_size: int, model_type: str, character_coverage: float, n_threads: int, max_characters: int | None
) -> None:
    """Raise `ConfigError`, all problems in one line."""
    problems = []
    if vocab_size <= _N_FIXED_PIECES:
        problems.append(f"vocab_size {vocab_size} has no room beside 4 control and 256 byte pieces; try 16000")
    if model_type not in ("bpe", "unigram"):
        problems.append(f"model_type {model_type!r} is unknown; use 'bpe' or 'unigram'")
    if not 0.98 <= character_coverage <= 1:
        problems.append(f"character_coverage {character_coverage} is not between 0.98 and 1; use 0.9995")
    if not 1 <= n_threads <= _MAX_THREADS:
        problems.append(f"n_threads {n_threads} is not between 1 and {_MAX_THREADS}; leave it out to use every core")
    if max_characters is not None and max_characters < 1:
        problems.append(f"max_characters {max_characters} is not positive; None uses the whole text")
    if problems:
        raise ConfigError("; ".join(problems))


def _output_paths(out: Path) -> tuple[Path, Path]:
    stem = out.name.removesuffix(".model")
    return out.with_name(f"{stem}.model"), out.with_name(f"{stem}.vocab")


@dataclass
class _Corpus:
    """Lines the trainer can take, and what became of the text they are from (in characters)."""

    lines: list[str]
    n_read: int
    n_used: int
    n_lines_split: int


def _collect(documents: Iterable[str], max_characters: int | None) -> _Corpus:
    """Read ``documents`` once and keep an even sample of their lines, in their order.

    Each line draws a number and the lines with the lowest stay, so memory is bounded by ``max_characters``
    and no line is likelier than another (Efraimidis and Spirakis, 2006, with equal weights).
    """
    draw = random.Random(0).random
    kept: list[tuple[float, int, str]] = []  # a heap with the highest draw on top
    n_read = n_used = n_lines = n_lines_split = 0
    for document in documents:
        check_characters(document)
        n_read += len(document)
        for line in _BREAKS.split(document):
            parts = cut_line(line)
            n_lines_split += len(parts) > 1
            for part in filter(str.strip, parts):
                n_lines += 1
                n_used += len(part)
                heapq.heappush(kept, (-draw(), n_lines, part))
                while max_characters is not None and n_used > max_characters:
                    n_used -= len(heapq.heappop(kept)[2])
    lines = [part for _, _, part in sorted(kept, key=lambda entry: entry[1])]
    return _Corpus(lines, n_read, n_used, n_lines_split)


def check_characters(text: str) -> None:
    """Raise `TokenizerError` if ``text`` cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        near = text[max(0, error.start - 10) : error.start]
        raise TokenizerError(
            f"character {error.start} of a text is half a surrogate pair, after {near!r}; remove it first"
        ) from error


def _train(lines: Sequence[str], vocab_size: int, model_type: str, character_coverage: float, n_threads: int) -> bytes:
    """SentencePiece's trainer on ``lines``; returns the model file's content.

    Lines go in as long as they may be. No piece joins punctuation to words anyway (the trainer does not mix
    scripts), so cutting at sentence ends takes time for nothing: benchmarks/bench_tokenizer_training.py.
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
            **_TRAINER_SETTINGS,
        )
    except RuntimeError as error:
        raise TokenizerError(_explain(str(error), vocab_size)) from error
    return written.getvalue()


def _explain(message: str, vocab_size: int) -> str:
    """The trainer's own error, as what to do about it."""
    if found := re.search(r"Vocabulary size too high .*<= (\d+)", message):
        return f"vocab_size {vocab_size} is too large for this text; use at most {found[1]}, or more text"
    if found := re.search(r"smaller than required_chars\D*\d+ vs (\d+)", message):
        return (
            f"vocab_size {vocab_size} is too small for this text's different characters; use more than "
            f"{found[1]}, or a lower character_coverage (0.995, 0.98)"
        )
    return f"SentencePiece cannot train on this text: {' '.join(message.split())}"


def _measure(tokenizer: Tokenizer, corpus: _Corpus, n_threads: int) -> tuple[float, float]:
    """(characters per token, share of byte tokens other than the line feed) on lines evenly spread."""
    step = max(1, corpus.n_used // _N_MEASURED_CHARACTERS)
    texts = [line + "\n" for line in corpus.lines[::step]]
    line_feed = next(i for i, piece in enumerate(tokenizer.pieces) if piece.text == "<0x0A>")
    fallback = {i for i, piece in enumerate(tokenizer.pieces) if piece.kind == "byte"} - {line_feed}
    encoded = tokenizer.encode_batch(texts, n_threads)
    n_tokens = sum(map(len, encoded))
    n_fallback = sum(token in fallback for ids in encoded for token in ids)
    return sum(map(len, texts)) / n_tokens, n_fallback / n_tokens


# ---------------------------------------------------------------- a trained tokenizer


class Piece(NamedTuple):
    """One entry of the vocabulary, as the model file has it; U+2581 in ``text`` stands for a space."""

    text: str
    score: float
    kind: PieceKind


@dataclass(frozen=True)
class TokenizerSettings:
    """How a model was made, as far as a text's tokens depend on it.

    ``charsmap`` is SentencePiece's compiled normalisation table, empty for ``normalizer`` "identity".
    """

    model_type: str  # "unigram", "bpe", "word" or "char"
    normalizer: str
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    byte_fallback: bool

    @property
    def is_lossless(self) -> bool:
        """Whether ``decode(encode(text)) == text`` for every text without U+2581."""
        return self.byte_fallback and not self.charsmap and not self.remove_extra_whitespaces


class Tokenizer:
    """A SentencePiece model: text to ids and back. ``path`` is the file it is from."""

    def __init__(self, model: bytes, path: Path) -> None:
        """Use the content of a model file; raises `TokenizerError` if it is not one."""
        self.path = path
        self.fingerprint = hashlib.sha256(model).hexdigest()
        """SHA-256 of the model file: two tokenizers are the same if it is equal."""
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self.settings = _read_settings(model)
            self._processor.LoadFromSerializedProto(model)
        except (RuntimeError, ValueError, LookupError, struct.error) as error:
            raise TokenizerError(f"{path} is not a whole SentencePiece model; train or copy it again") from error

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a ``.model`` file. Raises `TokenizerError` if it is missing or not a SentencePiece model."""
        path = Path(path)
        try:
            model = path.read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise TokenizerError(f"cannot read the tokenizer {path} ({reason}); give a .model file") from error
        return cls(model, path)

    @property
    def vocab_size(self) -> int:
        """Number of ids; they run from 0 to ``vocab_size - 1``."""
        return int(self._processor.get_piece_size())

    @property
    def unk_id(self) -> int:
        """The id of what has no piece; every model has one (with byte pieces it is never used)."""
        return int(self._processor.unk_id())

    @property
    def bos_id(self) -> int | None:
        """The id of ``<s>``; None if the model has none."""
        return _id_or_none(self._processor.bos_id())

    @property
    def eos_id(self) -> int | None:
        """The id of ``</s>``, the end of a text; None if the model has none."""
        return _id_or_none(self._processor.eos_id())

    @property
    def pad_id(self) -> int | None:
        """The id of ``<pad>``; None if the model has none."""
        return _id_or_none(self._processor.pad_id())

    @cached_property
    def pieces(self) -> list[Piece]:
        """The whole vocabulary, by id."""
        try:
            return [_read_piece(self._model, *span) for number, *span in _fields(self._model) if number == 1]
        except (ValueError, LookupError, struct.error) as error:
            raise TokenizerError(f"{self.path} has a piece that cannot be read; train or copy it again") from error

    def piece(self, token: int) -> str:
        """The text of one piece, as in the vocabulary. Raises `TokenizerError` if there is no such id."""
        try:
            return str(self._processor.id_to_piece(token))
        except IndexError as error:
            raise TokenizerError(self._unknown_id([token])) from error

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 a token stands for; nothing for control pieces and ``<unk>``."""
        if self._processor.is_byte(token):
            return bytes([int(self.piece(token)[3:5], 16)])
        if self._processor.is_control(token) or self._processor.is_unknown(token):
            return b""
        return self.piece(token).replace("\u2581", " ").encode()

    def normalize(self, text: str) -> str:
        """What the model cuts into pieces: ``text`` after its own normalisation, U+2581 for the space."""
        return str(self._processor.normalize(text))

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``, without ``<s>`` or ``</s>``; the names of these in ``text`` are plain text.

        Raises `TokenizerError` if ``text`` holds half a surrogate pair.
        """
        try:
            return list(self._processor.encode(text))
        except (RuntimeError, TypeError):  # which one depends on SentencePiece's version
            check_characters(text)
            raise

    def encode_batch(self, texts: Sequence[str], n_threads: int | None = None) -> list[list[int]]:
        """``[encode(text) for text in texts]``, on ``n_threads`` threads (default: one a core)."""
        texts = list(texts)
        try:
            return list(self._processor.encode(texts, num_threads=n_threads or os.cpu_count() or 1))
        except (RuntimeError, TypeError):
            for text in texts:
                check_characters(text)
            raise

    def encode_joined(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """The ids of all texts one after the other, each text followed by ``</s>`` if the model has it, (tokens,).

        Other threads go on meanwhile. Raises `TokenizerError` as `encode` does.
        """
        import numpy as np

        try:
            ids = self._processor.encode(
                list(texts), num_threads=1, return_type="numpy", add_eos=self.eos_id is not None
            )
        except (RuntimeError, TypeError):
            for text in texts:
                check_characters(text)
            raise
        return np.concatenate([np.zeros(0, np.int32), *ids])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``: control pieces are nothing, ``<unk>`` is " ⁇ ", broken UTF-8 is U+FFFD a byte.

        Raises `TokenizerError` if one of them is not an id of this model.
        """
        ids = list(ids)
        try:
            return str(self._processor.decode(ids))
        except IndexError as error:
            raise TokenizerError(self._unknown_id(ids)) from error

    def stream(self) -> StreamDecoder:
        """A decoder for one text that arrives id by id."""
        return StreamDecoder(self)

    def _unknown_id(self, ids: Sequence[int]) -> str:
        bad = next(token for token in ids if not 0 <= token < self.vocab_size)
        return f"{bad} is no id of {self.path}, which has 0 to {self.vocab_size - 1}; is it the right tokenizer?"


class StreamDecoder:
    """Ids in, text out as soon as its characters are whole.

    The concatenation of every `push` and the last `flush` is ``tokenizer.decode(ids)``, for any ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._bytes = codecs.getincrementaldecoder("utf-8")(_EACH_BYTE)
        settings = tokenizer.settings
        self._strips_all = settings.remove_extra_whitespaces
        self._strips = settings.add_dummy_prefix or settings.remove_extra_whitespaces  # at the text's start

    def push(self, token: int) -> str:
        """Take one id and return the text it completes: "" while a character still lacks bytes."""
        tokenizer = self._tokenizer
        piece = tokenizer.piece(token)
        if tokenizer._processor.is_byte(token):
            return self._emit(self._bytes.decode(bytes([int(piece[3:5], 16)])))
        head = self._emit(self._bytes.decode(b"", final=True))
        if tokenizer._processor.is_control(token):
            return head
        if tokenizer._processor.is_unknown(token):
            return head + self._emit(tokenizer.decode([token]))
        return head + self._emit(self._strip_start(piece).replace("\u2581", " "))

    def flush(self) -> str:
        """End the text: what bytes are left can no longer become a character, and are U+FFFD each."""
        return self._emit(self._bytes.decode(b"", final=True))

    def _strip_start(self, piece: str) -> str:
        """Take off the space that encoding put (or dropped others) before the text."""
        if not self._strips or not piece.startswith("\u2581"):
            return piece
        self._strips = self._strips_all
        return piece[1:]

    def _emit(self, text: str) -> str:
        self._strips = self._strips and not text
        return text


def _replace_each_byte(error: UnicodeError) -> tuple[str, int]:
    """SentencePiece's rendering of broken UTF-8; Python's "replace" gives one U+FFFD for several bytes."""
    assert isinstance(error, UnicodeDecodeError), "registered for decoding only"
    return "\ufffd" * (error.end - error.start), error.end


_EACH_BYTE = "mamegpt.replace_each_byte"
codecs.register_error(_EACH_BYTE, _replace_each_byte)


def _id_or_none(token: int) -> int | None:
    return token if token >= 0 else None


# ---------------------------------------------------------------- the model file
#
# A protocol-buffers message (sentencepiece_model.proto). Reading the dozen fields that matter takes less
# than a dependency on protobuf would.

_PIECE_KINDS: dict[int, PieceKind] = {
    1: "normal",
    2: "unknown",
    3: "control",
    4: "user_defined",
    5: "unused",
    6: "byte",
}
_MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


def _fields(message: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int]]:
    """(field number, where its value begins, where it ends) for each field of ``message[start:end]``."""
    end = len(message) if end is None else end
    while start < end:
        key, start = _varint(message, start)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            stop = _varint(message, start)[1]
        elif wire_type == 1:
            stop = start + 8
        elif wire_type == 2:
            length, start = _varint(message, start)
            stop = start + length
        elif wire_type == 5:
            stop = start + 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {start}")
        if stop > end:
            raise ValueError(f"field {number} at byte {start} is cut off")
        yield number, start, stop
        start = stop


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """(value, position after it) of the number at ``at``: seven bits a byte, the lowest first."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _read_piece(model: bytes, start: int, end: int) -> Piece:
    text, score, kind = "", 0.0, 1
    for number, a, b in _fields(model, start, end):
        if number == 1:
            text = model[a:b].decode()
        elif number == 2:
            (score,) = struct.unpack("<f", model[a:b])
        elif number == 3:
            kind = _varint(model, a)[0]
    return Piece(text, score, _PIECE_KINDS[kind])


def _read_settings(model: bytes) -> TokenizerSettings:
    """The trainer's and the normaliser's part; raises ValueError if one is not there."""
    parts = {number: _spans(model, start, end) for number, start, end in _fields(model) if number in (2, 3)}
    if parts.keys() != {2, 3}:
        raise ValueError("no trainer or normaliser settings")
    trainer, normalizer = parts[2], parts[3]

    def number_of(fields: dict[int, tuple[int, int]], number: int, default: int) -> int:
        return _varint(model, fields[number][0])[0] if number in fields else default

    return TokenizerSettings(
        model_type=_MODEL_TYPES.get(number_of(trainer, 3, 1), "unknown"),
        normalizer=model[slice(*normalizer.get(1, (0, 0)))].decode(),
        charsmap=model[slice(*normalizer.get(2, (0, 0)))],
        add_dummy_prefix=bool(number_of(normalizer, 3, 1)),
        remove_extra_whitespaces=bool(number_of(normalizer, 4, 1)),
        byte_fallback=bool(number_of(trainer, 35, 0)),
    )


def _spans(model: bytes, start: int, end: int) -> dict[int, tuple[int, int]]:
    return {number: (a, b) for number, a, b in _fields(model, start, end)}


def _round_scores(model: bytes) -> bytes:
    """Round each piece's score to a multiple of 1/64.

    Then sums of scores are exact in 32 and in 64 bits alike, and the `tokenizers` library, which adds in 64,
    breaks ties as SentencePiece does.
    """
    rounded = bytearray(model)
    for number, start, end in _fields(model):
        if number == 1 and 2 in (piece := _spans(model, start, end)):
            (score,) = struct.unpack_from("<f", model, piece[2][0])
            struct.pack_into("<f", rounded, piece[2][0], round(score * _SCORE_STEPS) / _SCORE_STEPS)
    return bytes(rounded)
