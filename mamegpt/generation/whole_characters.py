"""Which ids may come next, so that byte pieces always make whole characters.

A tokenizer with byte fallback represents rare characters by pieces of one byte of their UTF-8. A model that has learned
little puts such pieces in orders that are no UTF-8, and a decoder shows U+FFFD there. So byte pieces may come only
where they begin or continue a character, and nothing else may come before it is complete.

Source: The Unicode Standard, section 3.9, table 3-7, "Well-Formed UTF-8 Byte Sequences".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["Missing", "WholeCharacters"]

_TAIL = range(0x80, 0xC0)
_SEQUENCES = (
    (range(0x00, 0x80),),
    (range(0xC2, 0xE0), _TAIL),
    (range(0xE0, 0xE1), range(0xA0, 0xC0), _TAIL),
    (range(0xE1, 0xED), _TAIL, _TAIL),
    (range(0xED, 0xEE), range(0x80, 0xA0), _TAIL),
    (range(0xEE, 0xF0), _TAIL, _TAIL),
    (range(0xF0, 0xF1), range(0x90, 0xC0), _TAIL, _TAIL),
    (range(0xF1, 0xF4), _TAIL, _TAIL, _TAIL),
    (range(0xF4, 0xF5), range(0x80, 0x90), _TAIL, _TAIL),
)
"""Table 3-7: the bytes of a character, by its first."""

Missing = tuple[range, ...]
"""Where a text stands: the bytes that its last character still needs; none between two characters."""


class WholeCharacters:
    """The rule for one vocabulary. Without byte pieces it allows every id everywhere."""

    def __init__(self, byte_ids: Sequence[int] = (), vocab_size: int = 0) -> None:
        """``byte_ids`` are the byte pieces by their byte; logits are (``vocab_size``,)."""
        self._bytes = {token: byte for byte, token in enumerate(byte_ids)}
        self._vocab_size = vocab_size
        self._masks: dict[Missing, Tensor] = {}

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> WholeCharacters:
        """Return the rule for what a model writes with ``tokenizer``."""
        return cls(tokenizer.byte_ids, tokenizer.vocab_size)

    def after(self, ids: Iterable[int], missing: Missing = ()) -> Missing:
        """Return where a text stands after ``ids``, which may hold broken UTF-8."""
        for token in ids:
            byte = self._bytes.get(token)
            if byte is None:
                missing = ()
            elif missing and byte in missing[0]:
                missing = missing[1:]
            else:
                missing = next((sequence[1:] for sequence in _SEQUENCES if byte in sequence[0]), ())
        return missing

    def allows(self, token: int, missing: Missing) -> bool:
        """Return whether ``token`` may come where a text stands."""
        byte = self._bytes.get(token)
        if missing:
            return byte is not None and byte in missing[0]
        return byte is None or any(byte in sequence[0] for sequence in _SEQUENCES)

    def mask(self, missing: Missing) -> Tensor | None:
        """Return what to add to logits where a text stands, (V,): 0 for ids that may come, else -inf; None: all may."""
        if not self._bytes:
            return None
        next_byte = missing[:1]
        if next_byte not in self._masks:
            mask = torch.full((self._vocab_size,), -torch.inf if missing else 0.0)
            mask[list(self._bytes)] = -torch.inf
            mask[[token for token in self._bytes if self.allows(token, next_byte)]] = 0.0
            self._masks[next_byte] = mask
        return self._masks[next_byte]
