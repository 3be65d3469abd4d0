"""Reserved tokens: those that mark the turns of a conversation, and some spare ones.

They are control pieces: SentencePiece never makes them of a text, so "<|user|>" in a text is spelled in ordinary
pieces, and decoding leaves them out. A new tokenizer has them at fixed ids, right after ``<unk> <s> </s> <pad>``;
`with_reserved` appends them to a tokenizer that was made without, which changes no other id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mamegpt.tokenizer.sentencepiece_file import Piece, append_pieces, read_pieces

__all__ = ["FIRST_RESERVED_ID", "RESERVED", "ROLES", "Role", "Turns", "find_turns", "role_piece", "with_reserved"]

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")
END = "<|end|>"
"""The end of each turn."""
RESERVED = (*(f"<|{role}|>" for role in ROLES), END, *(f"<|spare_{i}|>" for i in range(4)))
FIRST_RESERVED_ID = 4


@dataclass(frozen=True)
class Turns:
    """The ids of the tokens that begin a turn, by role, and of the one that ends it."""

    begin: Mapping[str, int]
    end: int


def role_piece(role: str) -> str:
    """Return the token that begins a turn."""
    return f"<|{role}|>"


def find_turns(pieces: Sequence[Piece]) -> Turns | None:
    """Return the tokens of turns in a vocabulary; None if it lacks one of them."""
    ids = {piece.text: i for i, piece in enumerate(pieces) if piece.kind == "control" and piece.text in RESERVED}
    names = [*map(role_piece, ROLES), END]
    if not ids.keys() >= set(names):
        return None
    return Turns({role: ids[role_piece(role)] for role in ROLES}, ids[END])


def with_reserved(model: bytes) -> bytes:
    """Return a model file with the reserved tokens that it lacks at its end."""
    there = {piece.text for piece in read_pieces(model)}
    return append_pieces(model, [Piece(name, 0.0, "control") for name in RESERVED if name not in there])
