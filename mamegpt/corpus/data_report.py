"""What a corpus holds and what cleaning did to it: counted while it streams by, shown as a table, HTML or Markdown."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from mamegpt.corpus.characters import CLASSES, count_classes

__all__ = ["Corpus", "DataReport", "Sample"]

N_SAMPLES = 4
"""Documents shown for each reason to drop one; of kept ones twice as many."""

SAMPLE_CHARACTERS = 300
MAX_TOP = 20_000
"""Different repeated texts that are counted at once; past it those seen once are forgotten, so counts may be low."""


@dataclass
class Corpus:
    """Sizes of a stream of texts. ``lengths[k]`` is the number of those of 2^k to 2^(k+1) - 1 characters."""

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


@dataclass(frozen=True)
class Sample:
    """The beginning of a document, and of a dropped one why: a copy of what, a passage of which test item."""

    title: str
    text: str
    detail: str = ""


class DataReport:
    """Collects, document by document; memory does not grow with the corpus."""

    def __init__(self, reasons: list[str], edits: list[str]) -> None:
        """``reasons`` to drop a document and names of ``edits``, in the order they are shown in."""
        self.before, self.after = Corpus(), Corpus()
        self.dropped = dict.fromkeys(reasons, 0)
        self.edited_documents = dict.fromkeys(edits, 0)
        self.edited_places = dict.fromkeys(edits, 0)
        self.repeated: Counter[str] = Counter()
        self.samples: dict[str, list[Sample]] = {name: [] for name in ["", *reasons]}  # "" for kept ones
        self._draw = random.Random(0)

    def keep(self, title: str, before: str, after: str, edits: Counter[str]) -> None:
        """Count a document that stays, and the places where it was edited."""
        self.before.add(before)
        self.after.add(after)
        for name, n in edits.items():
            self.edited_documents[name] += n > 0
            self.edited_places[name] += n
        self._sample("", self.after.n_documents, 2 * N_SAMPLES, Sample(title, _beginning(after)))

    def drop(self, reason: str, title: str, before: str, detail: str = "") -> None:
        """Count a document that goes."""
        self.before.add(before)
        self.dropped[reason] += 1
        self._sample(reason, self.dropped[reason], N_SAMPLES, Sample(title, _beginning(before), detail))

    def repeat(self, text: str) -> None:
        """Count one more copy of a document or line."""
        self.repeated[_beginning(text, 80)] += 1
        if len(self.repeated) > MAX_TOP:
            self.repeated = Counter({text: n for text, n in self.repeated.items() if n > 1})

    def rows(self) -> list[tuple[str, str]]:
        """The counts as a table of two columns."""
        rows = [("read", f"{self.before.n_documents:,}"), ("kept", f"{self.after.n_documents:,}")]
        rows += [(f"dropped, {reason}", f"{n:,}") for reason, n in self.dropped.items()]
        rows += [
            (f"edited, {name}", f"{n:,} documents, {self.edited_places[name]:,} places")
            for name, n in self.edited_documents.items()
        ]
        before, after = self.before, self.after
        rows.append(("characters", f"{before.n_characters:,} -> {after.n_characters:,}"))
        rows.append(("bytes", f"{before.n_bytes:,} -> {after.n_bytes:,}"))
        return rows

    def _sample(self, name: str, n_seen: int, n_kept: int, sample: Sample) -> None:
        """Keep ``n_kept`` of all samples of a name, each as likely as the others (Vitter 1985, algorithm R)."""
        kept = self.samples[name]
        if len(kept) < n_kept:
            kept.append(sample)
        elif (at := self._draw.randrange(n_seen)) < n_kept:
            kept[at] = sample


def _beginning(text: str, n: int = SAMPLE_CHARACTERS) -> str:
    return text[:n] + "…" * (len(text) > n)
