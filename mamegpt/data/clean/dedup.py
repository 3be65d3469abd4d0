"""Find what documents share: duplicates, near-duplicates, repeated lines, and passages of test items.

The kept documents are remembered in memory: about 0.2 kB each for exact duplicates, 2.5 kB for near-duplicates, and 0.1
kB for each line of at least MIN_LINE_CHARACTERS.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from mamegpt.text.characters import MULTIPLIER, mixed, ngram_hashes
from mamegpt.text.folding import fold

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["COMPARED", "Compared", "Contamination", "Duplicates", "NearDuplicates", "RepeatedLines", "TextSignature"]

Compared = Literal["duplicates", "near-duplicates", "repeated-lines"]
COMPARED: tuple[Compared, ...] = get_args(Compared)
"""The steps that compare documents with each other."""

MIN_LINE_CHARACTERS = 30
"""Shorter lines (headings, 「はい」, table cells) may be the same in many documents."""

SHINGLE = 5
"""Length in characters of the shingles by which near-duplicates are compared, ignoring white space, width and case."""

SIMILARITY = 0.8
"""Least Jaccard similarity of the shingles of near-duplicates. At 0.75, two short articles about different persons that
follow one pattern already count as near-duplicates."""

N_HASHES, N_BANDS = 128, 16
"""A pair of Jaccard similarity s becomes a candidate with probability 1 - (1 - s^8)^16: 0.95 at 0.8, 0.99 at 0.85,
0.9999 at 0.9 (Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4). Its similarity is then
estimated from all 128 hashes, to about 0.035, and compared with SIMILARITY."""

OVERLAP = 50
"""A shared passage of this many letters and digits is contamination: about 13 words of two characters with their
particles, like the 13 words of Brown et al., "Language Models are Few-Shot Learners" (2020), appendix C. In Latin
letters this is only about eight words, so a long English name can be enough."""

BLOCK = 16
"""Length of the consecutive blocks by which test items are looked up. Every passage of 2 * BLOCK - 1 contains one."""

_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")


class TextSignature:
    """A text (``text``), folded and hashed in every form that texts are compared in."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def _folded(self) -> str:
        return fold(self.text)

    @cached_property
    def bare(self) -> str:
        """The folded text without white space."""
        return "".join(self._folded.split())

    @cached_property
    def alphanumeric(self) -> str:
        """The letters and digits of the folded text."""
        return _NOT_ALPHANUMERIC.sub("", self._folded)

    @cached_property
    def key(self) -> bytes:
        """A hash of the text, 16 bytes."""
        return _digest(self.bare)

    @cached_property
    def line_keys(self) -> list[bytes]:
        """Hashes of the lines, 16 bytes each; empty for a line of less than MIN_LINE_CHARACTERS characters."""
        lines = ("".join(line.split()) for line in self._folded.split("\n"))
        return [_digest(line) if len(line) >= MIN_LINE_CHARACTERS else b"" for line in lines]

    @cached_property
    def sketch(self) -> Any:
        """The MinHash of the shingles: N_HASHES numbers of 32 bits."""
        from rensa import RMinHash

        sketch = RMinHash(N_HASHES, 42)
        shingles = ngram_hashes(self.bare, min(SHINGLE, len(self.bare)))
        sketch.update(shingles.view("S8").tolist())
        return sketch

    def keys(self, step: Compared) -> npt.NDArray[np.uint64]:
        """Return 64-bit keys, (any,) uint64: of the text, of each band of its sketch, or of each long line.

        Whatever `Duplicates`, `NearDuplicates` or `RepeatedLines` find in another text shares a key with it; a line
        that occurs twice shares one with itself. The reverse need not be true.
        """
        import numpy as np

        if step == "duplicates":
            return np.frombuffer(self.key, "<u8")[:1]
        if step == "repeated-lines":
            return np.frombuffer(b"".join(self.line_keys), "<u8")[::2]  # short lines have no key
        bands = np.array(self.sketch.digest(), np.uint64).reshape(N_BANDS, N_HASHES // N_BANDS)
        sums: npt.NDArray[np.uint64] = bands @ _powers()
        sums += np.arange(N_BANDS, dtype=np.uint64)
        return mixed(sums)


class Duplicates:
    """Finds texts that differ only in width, case and white space."""

    def __init__(self) -> None:
        self._kept: dict[bytes, str] = {}

    def find(self, text: TextSignature) -> str:
        """Return the id of the document that has this text, "" without one."""
        return self._kept.get(text.key, "")

    def add(self, document_id: str, text: TextSignature) -> None:
        """Remember a text under the id of its document."""
        self._kept.setdefault(text.key, document_id)


class NearDuplicates:
    """Finds texts that share SIMILARITY of their shingles, by MinHash and locality-sensitive hashing (rensa)."""

    def __init__(self) -> None:
        from rensa import RMinHashDeduplicator

        self._kept = RMinHashDeduplicator(SIMILARITY, N_HASHES, True, N_BANDS)
        self._ids: list[str] = []

    def find(self, text: TextSignature) -> str:
        """Return the id of the first document that is similar, "" without one."""
        found = self._kept.get_duplicates(text.sketch)
        return self._ids[min(map(int, found))] if found else ""

    def add(self, document_id: str, text: TextSignature) -> None:
        """Remember a text under the id of its document."""
        self._kept.add(str(len(self._ids)), text.sketch)
        self._ids.append(document_id)


class RepeatedLines:
    """Finds lines of at least MIN_LINE_CHARACTERS that occurred before, in the same or a kept document."""

    def __init__(self) -> None:
        self._kept: set[bytes] = set()

    def drop(self, text: TextSignature) -> tuple[str, list[str]]:
        """Return the text without its repeated lines, and these lines."""
        seen, kept, repeated = set[bytes](), list[str](), list[str]()
        for line, key in zip(text.text.split("\n"), text.line_keys, strict=True):
            if key and (key in self._kept or key in seen):
                repeated.append(line)
            else:
                kept.append(line)
                seen.add(key)
        return "\n".join(kept), repeated

    def add(self, text: TextSignature) -> None:
        """Remember the lines of a document that is kept."""
        self._kept.update(filter(None, text.line_keys))


class Contamination:
    """Finds passages of the texts that a model will be tested on.

    A document is contaminated if it shares OVERLAP consecutive letters and digits with an item, or contains a shorter
    item completely. Width, case, white space and punctuation are ignored. Items of less than BLOCK letters and digits
    (「はい」, 京都市) occur in too many texts and are not searched for; ``n_items`` and ``n_too_short`` count both
    kinds.
    """

    def __init__(self, items: Iterable[str]) -> None:
        import numpy as np

        self._items: list[str] = []
        self._blocks: dict[str, list[tuple[int, int]]] = {}  # block -> (item, where in it)
        self.n_too_short = 0
        for item in dict.fromkeys(TextSignature(item).alphanumeric for item in items):
            if len(item) < BLOCK:
                self.n_too_short += 1
                continue
            for start in range(0, len(item) - BLOCK + 1, BLOCK):
                self._blocks.setdefault(item[start : start + BLOCK], []).append((len(self._items), start))
            self._items.append(item)
        self._hashes = np.sort(ngram_hashes("".join(self._blocks), BLOCK)[::BLOCK])

    @property
    def n_items(self) -> int:
        """Number of different items that are searched for."""
        return len(self._items)

    def find(self, text: TextSignature) -> str:
        """Return the first passage, in letters and digits, that a text shares with an item; "" without one."""
        import numpy as np

        found = text.alphanumeric
        hashes = ngram_hashes(found, BLOCK)
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        for at in np.flatnonzero(self._hashes[places] == hashes).tolist() if self._items else ():
            for number, start in self._blocks.get(found[at : at + BLOCK], ()):
                item = self._items[number]
                passage = _common_passage(found, at, item, start)
                if len(passage) >= min(OVERLAP, len(item)):
                    return passage
        return ""


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _powers() -> npt.NDArray[np.uint64]:
    """Return the factors of the numbers in a band, (N_HASHES // N_BANDS,) uint64: a polynomial, as in
    `ngram_hashes`.
    """
    import numpy as np

    return np.cumprod(np.full(N_HASHES // N_BANDS, MULTIPLIER, np.uint64), dtype=np.uint64)


def _common_passage(a: str, at: int, b: str, start: int) -> str:
    """Return the longest passage around ``a[at]`` and ``b[start]`` that both texts share."""
    before = 0
    while before < min(at, start) and a[at - before - 1] == b[start - before - 1]:
        before += 1
    length = 0
    while at + length < len(a) and start + length < len(b) and a[at + length] == b[start + length]:
        length += 1
    return a[at - before : at + length]
