"""SentencePiece's model file: its pieces and settings read, its scores rounded, pieces appended.

It is a protocol-buffers message (sentencepiece_model.proto). Reading the dozen fields that matter takes less than a
dependency on protobuf would.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["Piece", "TokenizerSettings", "append_pieces", "read_pieces", "read_settings", "round_scores"]

PieceKind = Literal["normal", "unknown", "control", "user_defined", "unused", "byte"]

_SCORE_STEPS = 64  # unigram scores become multiples of 1 / 64


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


def read_pieces(model: bytes) -> list[Piece]:
    """Return the whole vocabulary, by id; raises ValueError, LookupError or struct.error if it is damaged."""
    return [_read_piece(model, start, end) for number, start, end in _fields(model) if number == 1]


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


def append_pieces(model: bytes, pieces: Iterable[Piece]) -> bytes:
    """Return a model file with more pieces after those it has, whose ids stay.

    Repeated fields of a message may be anywhere in it, so the new ones go to its end.
    """
    numbers = {kind: number for number, kind in _PIECE_KINDS.items()}
    return model + b"".join(
        _field(
            1,
            _field(1, piece.text.encode())
            + b"\x15"
            + struct.pack("<f", piece.score)
            + bytes([0x18, numbers[piece.kind]]),
        )
        for piece in pieces
    )


def _field(number: int, value: bytes) -> bytes:
    """Return a field of bytes; both the number and the length fit into seven bits."""
    assert number < 16 and len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


def read_settings(model: bytes) -> TokenizerSettings:
    """Return the trainer's and the normaliser's part; raises ValueError if one is not there."""
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


def round_scores(model: bytes) -> bytes:
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
