"""Statistics of a corpus and of its cleaning, collected in one pass."""

from __future__ import annotations

import hashlib
from bisect import insort
from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

from mamegpt.data.provenance import Provenance
from mamegpt.messages import msg
from mamegpt.system.validation import Count, FromJSON, Lax, Within
from mamegpt.text.characters import CLASSES, count_classes

__all__ = ["CleanReport", "CorpusCounts", "Counted", "DataReport", "Excerpt"]

N_SAMPLES = 4
"""Sample documents per reason to drop one; twice as many of kept documents."""

SAMPLE_CHARACTERS = 300
MAX_TOP = 20_000
"""Different repeated texts that are kept. Whenever there are twice as many, the rarest are forgotten, so the counts of
larger corpora may be too low, and may differ from those of the same corpus counted in parts."""


@dataclass
class CorpusCounts:
    """Sizes of a stream of texts. ``lengths[k]`` is the number of texts of 2^k to 2^(k+1) - 1 characters."""

    n_documents: int = 0
    n_characters: int = 0
    n_bytes: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(CLASSES, 0)))

    def add(self, text: str) -> None:
        """Count one document."""
        self.n_documents += 1
        self.n_characters += len(text)
        self.n_bytes += len(text.encode("utf-8", "surrogatepass"))
        self.lengths[max(0, len(text).bit_length() - 1)] += 1
        self.classes.update(count_classes(text))

    def merge(self, other: _Sizes) -> None:
        """Add the counts of another stream."""
        self.n_documents += other.n_documents
        self.n_characters += other.n_characters
        self.n_bytes += other.n_bytes
        self.lengths.update(other.lengths)
        self.classes.update(other.classes)


_Lot = Annotated[int, Within(ge=0, lt=1 << 64)]


@dataclass(frozen=True)
class _Sizes(FromJSON):
    """`CorpusCounts` in JSON."""

    n_documents: Count
    n_characters: Count
    n_bytes: Count
    lengths: dict[Annotated[int, Lax()], Count]
    classes: dict[str, Count]


@dataclass(frozen=True)
class Counted(FromJSON):
    """`DataReport.to_dict` in JSON."""

    before: _Sizes
    after: _Sizes
    dropped: dict[str, Count]
    edited_documents: dict[str, Count]
    edited_places: dict[str, Count]
    repeated: dict[str, Count]
    drawn: dict[str, list[Annotated[tuple[_Lot, str, str, str], Lax()]]]


@dataclass(frozen=True)
class Excerpt:
    """The beginning of a document and, if it was dropped, the detail: which document it duplicates, or which passage it
    shares.
    """

    title: str
    text: str
    detail: str = ""


class DataReport:
    """Collects statistics document by document; memory does not grow with the corpus."""

    def __init__(self, reasons: list[str], edits: list[str]) -> None:
        """Take the ``reasons`` to drop a document and the names of ``edits``, in the order they are shown in."""
        self.before, self.after = CorpusCounts(), CorpusCounts()
        self.dropped = dict.fromkeys(reasons, 0)
        self.edited_documents = dict.fromkeys(edits, 0)
        self.edited_places = dict.fromkeys(edits, 0)
        self.repeated: Counter[str] = Counter()
        self._drawn: dict[str, list[tuple[int, Excerpt]]] = {name: [] for name in ["", *reasons]}  # "" for kept ones

    @property
    def samples(self) -> dict[str, list[Excerpt]]:
        """Samples of dropped documents by reason, and of kept ones under ""."""
        return {name: [sample for _, sample in drawn] for name, drawn in self._drawn.items()}

    def keep(self, document_id: str, title: str, before: str, after: str, edits: Counter[str]) -> None:
        """Count a kept document and the places where it was edited."""
        self.before.add(before)
        self.after.add(after)
        for name, n in edits.items():
            self.edited_documents[name] += n > 0
            self.edited_places[name] += n
        self._sample("", _lot(document_id), Excerpt(title, _beginning(after)))

    def drop(self, reason: str, document_id: str, title: str, before: str, detail: str = "") -> None:
        """Count a dropped document."""
        self.before.add(before)
        self.dropped[reason] += 1
        self._sample(reason, _lot(document_id), Excerpt(title, _beginning(before), detail))

    def repeat(self, text: str) -> None:
        """Count one more copy of a document or line."""
        self._repeat({_beginning(text, 80): 1})

    def to_dict(self) -> dict[str, Any]:
        """Return all counts as JSON values, in the shape of `Counted`."""
        drawn = {name: [(lot, *astuple(sample)) for lot, sample in some] for name, some in self._drawn.items()}
        return {
            "before": vars(self.before),
            "after": vars(self.after),
            "dropped": self.dropped,
            "edited_documents": self.edited_documents,
            "edited_places": self.edited_places,
            "repeated": self.repeated,
            "drawn": drawn,
        }

    def merge(self, other: Counted) -> None:
        """Add the counts of another report about other documents.

        Raises `ValueError` if it has other reasons or edits.
        """
        both = [
            (getattr(self, name), getattr(other, name)) for name in ("dropped", "edited_documents", "edited_places")
        ]
        if any(mine.keys() != theirs.keys() for mine, theirs in (*both, (self._drawn, other.drawn))):
            raise ValueError(msg("it counts other reasons or edits"))
        self.before.merge(other.before)
        self.after.merge(other.after)
        for mine, theirs in both:
            for key, n in theirs.items():
                mine[key] += n
        self._repeat(other.repeated)
        for name, drawn in other.drawn.items():
            for lot, *sample in drawn:
                self._sample(name, lot, Excerpt(*sample))

    def _repeat(self, counts: Mapping[str, int]) -> None:
        self.repeated.update(counts)
        if len(self.repeated) > 2 * MAX_TOP:
            self.repeated = Counter(dict(self.repeated.most_common(MAX_TOP)))

    def _sample(self, name: str, lot: int, sample: Excerpt) -> None:
        """Keep the samples with the smallest lots: a uniform sample that does not depend on how the corpus is split."""
        drawn = self._drawn[name]
        insort(drawn, (lot, sample), key=itemgetter(0))
        del drawn[N_SAMPLES if name else 2 * N_SAMPLES :]


@dataclass(frozen=True)
class CleanReport:
    """Result of `clean`: all counts in ``data``, and how many test items were searched for or too short for that."""

    data: DataReport
    out: Path
    elapsed_s: float
    n_items: int = 0
    n_items_too_short: int = 0
    settings: dict[str, str] = field(default_factory=dict)

    def provenance(self) -> Provenance:
        """Return a summary for the note next to ``out``."""
        n_read, n_kept = self.data.before.n_documents, self.data.after.n_documents
        return Provenance(
            "clean", self.settings["data"], {"steps": self.settings["steps"]}, n_read, n_kept, self.data.dropped
        )


def _lot(document_id: str) -> int:
    """Return the lot of a document: a hash of its id."""
    return int.from_bytes(
        hashlib.blake2b(document_id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )


def _beginning(text: str, n: int = SAMPLE_CHARACTERS) -> str:
    return text[:n] + "…" * (len(text) > n)
