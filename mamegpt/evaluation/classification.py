"""How often a classifier finds the right label: accuracy, confusion table, and the baseline of one label for all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mamegpt import __version__
from mamegpt.data.conversation_order import LabelledTexts
from mamegpt.data.labelled import LabelledText
from mamegpt.errors import DataError
from mamegpt.evaluation.proportion import Proportion
from mamegpt.models.classifier import Classifier
from mamegpt.run.run import Run
from mamegpt.system.files import write_json
from mamegpt.system.run_files import CONFUSION_FILE
from mamegpt.system.validation import Count, FromJSON

__all__ = ["Confusion", "kept_confusion", "measure_held_out", "measure_texts"]


@dataclass(frozen=True)
class Confusion(FromJSON, extra="ignore"):
    """How many texts of each label were given which label: ``counts[i][j]`` of label i were taken for label j.

    ``origin`` is the model; for a run, the folder of its checkpoint.
    """

    origin: str
    labels: list[str]
    counts: list[list[Count]]

    @property
    def n(self) -> int:
        """The number of texts."""
        return sum(map(sum, self.counts))

    @property
    def accuracy(self) -> Proportion:
        """The share of texts that were given their label."""
        return Proportion(sum(row[i] for i, row in enumerate(self.counts)) / self.n, self.n)

    @property
    def baseline(self) -> tuple[str, Proportion]:
        """The most frequent label, and the accuracy of giving it to every text."""
        totals = [*map(sum, self.counts)]
        return self.labels[totals.index(max(totals))], Proportion(max(totals) / self.n, self.n)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        label, baseline = self.baseline
        shares = {"accuracy": self.accuracy.share, "baseline": baseline.share, "baseline_label": label}
        return {"mamegpt": __version__, **asdict(self), "n": self.n, **shares}


def measure_texts(classifier: Classifier, texts: Iterable[LabelledText], source: str = "") -> Confusion:
    """Classify texts whose label is known.

    Raises `DataError` for a label that the model lacks, or if there is no text.
    """
    numbers = {label: i for i, label in enumerate(classifier.labels)}
    rows, labels = [], []
    for text, label in texts:
        if label not in numbers:
            raise DataError(
                "{source} has the label {label}, which the model lacks; it has {names}",
                source=source,
                label=label,
                names=", ".join(classifier.labels),
            )
        rows.append(classifier.text_ids(text))
        labels.append(numbers[label])
    if not rows:
        raise DataError("{source} has no texts with labels", source=source)
    return _confusion(classifier, rows, labels)


def measure_held_out(classifier: Classifier, run: Run) -> Confusion | None:
    """Classify the held-out texts of a run, and keep the result in its folder; None if there are none."""
    found = run.tokens()
    split = found[1].get("val") if found else None
    if split is None or split.eos_id is None:
        return None
    texts = LabelledTexts(split.tokens, split.eos_id)
    rows = [split.tokens[b : b + n].tolist() for b, n in zip(texts.begins, texts.lengths, strict=True)]
    confusion = _confusion(classifier, rows, texts.labels.tolist())
    write_json(run.folder / CONFUSION_FILE, confusion.to_dict())
    return confusion


def kept_confusion(run: Run, origin: Path) -> Confusion | None:
    """Return what `measure_held_out` kept in a run, if it is of the model ``origin``."""
    found = run.read_confusion(Confusion)
    return found if found and Path(found.origin).name == origin.name else None


def _confusion(classifier: Classifier, rows: list[list[int]], labels: list[int]) -> Confusion:
    counts = np.zeros((len(classifier.labels),) * 2, np.int64)
    np.add.at(counts, (np.array(labels), classifier.logits(rows).argmax(-1).numpy()), 1)
    return Confusion(classifier.origin, [*classifier.labels], counts.tolist())
