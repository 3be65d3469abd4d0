"""SentencePiece tokenizers that lose nothing: train, load, encode, decode, decode as a stream.

A tokenizer of ours has an identity normaliser, no dummy prefix, keeps every space, and spells what its
vocabulary lacks (rare kanji, emoji, the line feed) in byte pieces. So ``decode(encode(text)) == text`` for
every text without U+2581, which SentencePiece itself uses for the space. What cleaning a text needs happens
before, in `mamegpt.text.normalize`. Tokenizers made elsewhere load too; `Tokenizer.settings` says how they differ.

Sources: Kudo and Richardson, "SentencePiece" (EMNLP 2018); byte-pair encoding after Sennrich, Haddow and
Birch (ACL 2016); unigram after Kudo, "Subword Regularization" (ACL 2018).
"""

from __future__ import annotations

import codecs
import hashlib
import struct
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import sentencepiece

from mamegpt.arguments import checked
from mamegpt.errors import ConfigError, TokenizerError, first_line
from mamegpt.messages import join, msg
from mamegpt.system.files import atomic_write, is_lfs_pointer, refuse_existing
from mamegpt.system.limits import usable_cores
from mamegpt.tokenizer.reserved import Turns, find_turns
from mamegpt.tokenizer.sentencepiece_file import Piece, read_pieces, read_settings, round_scores
from mamegpt.tokenizer.trainer import (
    MIN_COVERAGE,
    N_FIXED_PIECES,
    Alphabet,
    ModelType,
    TrainingLines,
    collect,
    train_model,
)
from mamegpt.tokenizer.vocab_size import choose_vocab_size

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "StreamDecoder",
    "Tokenizer",
    "TokenizerReport",
    "check_characters",
    "output_paths",
    "train_tokenizer",
]

_MAX_THREADS = 128  # of the trainer
_N_MEASURED_CHARACTERS = 1_000_000


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
    for_minutes: float | None  # of training, for which the vocabulary size was chosen; None if it was given
    character_coverage: float
    model_type: ModelType
    n_characters: int  # read
    n_characters_used: int  # trained on: what is left after breaks, blank lines and sampling
    n_sentences: int  # lines trained on
    n_lines_split: int  # lines longer than MAX_LINE_BYTES, cut into several
    elapsed_s: float
    characters_per_token: float
    byte_fallback_rate: float


@checked
def train_tokenizer(
    documents: Iterable[str],
    out: str | Path,
    *,
    vocab_size: int = 0,
    for_minutes: float = 10.0,
    model_type: ModelType = "bpe",
    character_coverage: float = 0.0,
    n_threads: int | None = None,
    max_characters: int | None = 10_000_000,
    overwrite: bool = False,
) -> TokenizerReport:
    """Train a lossless tokenizer on ``documents`` (or lines) and write ``out``.model and ``out``.vocab.

    ``out`` may end in ``.model`` or not. Without a ``vocab_size`` one is chosen for the length of the text and
    ``for_minutes`` of training (`choose_vocab_size`). ``character_coverage`` (0.98 to 1) is the share of the text's
    characters that get pieces of their own; the rest is represented by bytes. Without one, it is 0.9995, or less where
    that leaves too few longer pieces. ``n_threads`` defaults to the number
    of cores. Of a text longer than ``max_characters`` an even sample of lines is used, always the same one
    (``None``: all of it, at about 75 bytes of memory a character). Ids 0 to 3 are ``<unk> <s> </s> <pad>``, and
    4 to 11 the tokens of `mamegpt.tokenizer.reserved`.

    The same text gives the same file: for BPE always, for unigram with the same ``n_threads``.

    Raises `ConfigError` for a setting out of range, `TokenizerError` if the text is empty or does not fit
    ``vocab_size``, `OutputError` if the files exist and not ``overwrite``.
    """
    started = time.perf_counter()
    if n_threads is None:
        n_threads = min(usable_cores(), _MAX_THREADS)
    _check_settings(vocab_size, for_minutes, character_coverage, n_threads, max_characters)
    model_path, vocab_path = output_paths(Path(out))
    if not overwrite:
        refuse_existing(model_path)
        refuse_existing(vocab_path)

    corpus = collect(map(_checked, documents), max_characters)
    if not corpus.lines:
        raise TokenizerError(
            "no text to train {model_path} on: every document is empty or blank", model_path=model_path
        )
    is_chosen = not vocab_size
    alphabet = Alphabet(corpus.lines)
    if is_chosen:
        vocab_size = max(choose_vocab_size(for_minutes, corpus.n_read), alphabet.least_vocab_size)
    coverage = character_coverage or alphabet.coverage(vocab_size, is_chosen=is_chosen)
    proto = train_model(corpus.lines, vocab_size, model_type, coverage, n_threads, is_limit=is_chosen)
    if model_type == "unigram":
        proto = round_scores(proto)
    tokenizer = Tokenizer(proto, model_path)

    with atomic_write(vocab_path) as file:
        file.writelines(f"{piece.text}\t{piece.score:g}\n" for piece in tokenizer.pieces)
    with atomic_write(model_path, "wb") as file:  # last: where the model is, the vocabulary is
        file.write(proto)

    characters_per_token, byte_fallback_rate = _measure(tokenizer, corpus, n_threads)
    return TokenizerReport(
        path=model_path,
        vocab_size=tokenizer.vocab_size,
        for_minutes=for_minutes if is_chosen else None,
        character_coverage=coverage,
        model_type=model_type,
        n_characters=corpus.n_read,
        n_characters_used=corpus.n_used,
        n_sentences=len(corpus.lines),
        n_lines_split=corpus.n_lines_split,
        elapsed_s=time.perf_counter() - started,
        characters_per_token=characters_per_token,
        byte_fallback_rate=byte_fallback_rate,
    )


def _check_settings(
    vocab_size: int, for_minutes: float, character_coverage: float, n_threads: int, max_characters: int | None
) -> None:
    """Raise `ConfigError`, all problems in one line."""
    problems = []
    if not for_minutes > 0:
        problems.append(msg("--for-minutes must be above 0 (got {for_minutes:g})", for_minutes=for_minutes))
    if vocab_size and vocab_size <= N_FIXED_PIECES:
        problems.append(
            msg(
                "--vocab-size must be more than {fixed}, the {control} control and 256 byte tokens "
                "(got {vocab_size}); try 16000",
                fixed=N_FIXED_PIECES,
                control=N_FIXED_PIECES - 256,
                vocab_size=vocab_size,
            )
        )
    if character_coverage and not MIN_COVERAGE <= character_coverage <= 1:
        problems.append(
            msg(
                "--character-coverage must be between 0.98 and 1 (got {character_coverage}); use 0.9995",
                character_coverage=character_coverage,
            )
        )
    if not 1 <= n_threads <= _MAX_THREADS:
        problems.append(
            msg(
                "n_threads must be between 1 and {most} (got {n_threads}); leave it out to use every core",
                n_threads=n_threads,
                most=_MAX_THREADS,
            )
        )
    if max_characters is not None and max_characters < 1:
        problems.append(
            msg(
                "--max-characters must be at least 1 (got {max_characters})",
                max_characters=max_characters,
            )
        )
    if problems:
        raise ConfigError(join("; ", problems))


def output_paths(out: Path) -> tuple[Path, Path]:
    """Return the model file and the vocabulary file that `train_tokenizer` writes."""
    stem = out.name.removesuffix(".model")
    return out.with_name(f"{stem}.model"), out.with_name(f"{stem}.vocab")


def _checked(text: str) -> str:
    check_characters(text)
    return text


def check_characters(text: str) -> None:
    """Raise `TokenizerError` if ``text`` cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        near = text[max(0, error.start - 10) : error.start]
        raise TokenizerError(
            "character {at} of a text is an unpaired surrogate, after {near!r}; remove it first",
            at=error.start,
            near=near,
        ) from error


def _measure(tokenizer: Tokenizer, corpus: TrainingLines, n_threads: int) -> tuple[float, float]:
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
            self.settings = read_settings(model)
            self._processor.LoadFromSerializedProto(model)
        except (RuntimeError, ValueError, LookupError, struct.error) as error:
            raise TokenizerError(
                "{path} is not a complete SentencePiece model; train or copy it again", path=path
            ) from error

    def __repr__(self) -> str:
        return f"Tokenizer({str(self.path)!r}, vocab_size={self.vocab_size:_})"

    @classmethod
    @checked
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a ``.model`` file. Raises `TokenizerError` if it is missing or not a SentencePiece model."""
        path = Path(path)
        try:
            model = path.read_bytes()
        except OSError as error:
            if path.is_dir():
                there = ", ".join(sorted(str(file) for file in path.glob("*.model"))) or msg("none there")
                raise TokenizerError(
                    "cannot read the tokenizer {path}, a folder; give a .model file in it: {there}",
                    path=path,
                    there=there,
                ) from error
            raise TokenizerError(
                "cannot read the tokenizer {path} ({reason}); give a .model file", path=path, reason=first_line(error)
            ) from error
        if is_lfs_pointer(path):
            raise TokenizerError(
                "{path} is a Git LFS pointer, not the file; fetch it in its folder with: git lfs pull", path=path
            )
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
    def start_id(self) -> int | None:
        """The id that a model reads before the beginning of a text: ``</s>``, which ended the text before.

        This is the one definition of the start of a text. Training puts ``</s>`` after each text (`encode_joined`), so
        each text follows one, as in GPT-2; ``<s>`` is never trained. Evaluation, generation and exports ask here.
        None if the model has no ``</s>``.
        """
        return self.eos_id

    @property
    def pad_id(self) -> int | None:
        """The id of ``<pad>``; None if the model has none."""
        return _id_or_none(self._processor.pad_id())

    @cached_property
    def pieces(self) -> list[Piece]:
        """The whole vocabulary, by id."""
        try:
            return read_pieces(self._model)
        except (ValueError, LookupError, struct.error) as error:
            raise TokenizerError(
                "{path} has a token that cannot be read; train or copy it again", path=self.path
            ) from error

    @cached_property
    def turns(self) -> Turns | None:
        """The tokens that mark the turns of a conversation; None if the model has none."""
        return find_turns(self.pieces)

    @cached_property
    def byte_ids(self) -> list[int]:
        """The ids of the 256 byte pieces, by their byte; none if the model has no byte fallback."""
        if not self.settings.byte_fallback:
            return []
        return [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in range(256)]

    @checked
    def piece(self, token: int) -> str:
        """Return the text of one piece, as in the vocabulary. Raises `TokenizerError` if there is no such id."""
        try:
            return str(self._processor.id_to_piece(token))
        except IndexError as error:
            raise TokenizerError(self._unknown_id([token])) from error

    @checked
    def token_bytes(self, token: int) -> bytes:
        """Return the UTF-8 a token stands for; nothing for control pieces and ``<unk>``."""
        if self._processor.is_byte(token):
            return bytes([int(self.piece(token)[3:5], 16)])
        if self._processor.is_control(token) or self._processor.is_unknown(token):
            return b""
        return self.piece(token).replace("\u2581", " ").encode()

    @checked
    def normalize(self, text: str) -> str:
        """Return what the model cuts into pieces: ``text`` after its own normalisation, U+2581 for the space."""
        return str(self._processor.normalize(text))

    @checked
    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without ``<s>`` or ``</s>``; the names of these in ``text`` are plain text.

        Raises `TokenizerError` if ``text`` holds half a surrogate pair.
        """
        try:
            return list(self._processor.encode(text))
        except (RuntimeError, TypeError):  # which one depends on SentencePiece's version
            check_characters(text)
            raise

    @checked
    def encode_batch(self, texts: Sequence[str], n_threads: int | None = None) -> list[list[int]]:
        """Return ``[encode(text) for text in texts]``, on ``n_threads`` threads (default: one a core)."""
        texts = list(texts)
        try:
            return list(self._processor.encode(texts, num_threads=n_threads or usable_cores()))
        except (RuntimeError, TypeError):
            for text in texts:
                check_characters(text)
            raise

    @checked
    def encode_joined(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Return the ids of all texts one after the other, each followed by ``</s>`` if the model has it, (tokens,).

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

    @checked
    def decode(self, ids: Collection[int]) -> str:
        """Return the text of ``ids``: control pieces are nothing, ``<unk>`` is " ⁇ ", broken UTF-8 is U+FFFD a byte.

        Raises `TokenizerError` if one of them is not an id of this model.
        """
        ids = list(map(int, ids))
        try:
            return str(self._processor.decode(ids))
        except IndexError as error:
            raise TokenizerError(self._unknown_id(ids)) from error

    def stream(self) -> StreamDecoder:
        """Return a decoder for one text that arrives id by id."""
        return StreamDecoder(self)

    def _unknown_id(self, ids: Sequence[int]) -> str:
        bad = next(token for token in ids if not 0 <= token < self.vocab_size)
        return msg(
            "{bad} is not a token id of {path}, which has 0 to {last_id}; check that it is the right tokenizer",
            bad=bad,
            path=self.path,
            last_id=self.vocab_size - 1,
        )


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
