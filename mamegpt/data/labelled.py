"""Texts with labels to learn from: rows of jsonl and parquet with the columns ``text`` and ``label``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from mamegpt.data.rows import rows
from mamegpt.data.schema import GUESS
from mamegpt.data.sources import find_files
from mamegpt.errors import DataError, TokenizerError
from mamegpt.messages import msg
from mamegpt.text.normalize import normalize
from mamegpt.tokenizer.tokenizer import check_characters

__all__ = ["LabelledReader", "LabelledText", "sorted_labels"]

COLUMNS = ("text", "label")
NO_OBJECT = msg("not an object with columns")
NO_STRING = msg("not text")
NO_CHARACTERS = msg("an unpaired surrogate")
NO_TEXT = msg("empty text")
NO_LABEL = msg("no label")


class LabelledText(NamedTuple):
    """A text and the name of its label."""

    text: str
    label: str


class LabelledReader:
    """Reads the texts with labels of a source, in order; ``dropped`` counts by reason the rows that are none."""

    def __init__(self, source: str, split: str = "train", encoding: str = GUESS.encoding) -> None:
        """Find the files. Raises as `find_files`."""
        self.files = find_files(source, split)
        self.encoding = encoding
        self.dropped = Counter[str]()

    def __iter__(self) -> Iterator[LabelledText]:
        """Yield them. Raises `DataError` for a file without the columns, and for one that is damaged."""
        self.dropped.clear()
        for file in self.files:
            is_first = True
            for row in rows(file, self.encoding, COLUMNS):
                if not isinstance(row, dict):
                    self.dropped[NO_OBJECT] += 1
                    continue
                if is_first and not row.keys() >= set(COLUMNS):
                    raise DataError(
                        "{path} lacks the columns text and label (it has {names}); rename them",
                        path=file.path,
                        names=", ".join(map(str, row)),
                    )
                is_first = False
                found = _labelled(row)
                if isinstance(found, LabelledText):
                    yield found
                else:
                    self.dropped[found] += 1


def _labelled(row: dict[str, Any]) -> LabelledText | str:
    """Return the text and the label in a row, or why there are none. A label may also be a whole number or a bool."""
    text, label = row.get("text"), row.get("label")
    if not isinstance(text, str):
        return NO_STRING
    if not isinstance(label, str | int) or not str(label).strip():
        return NO_LABEL
    found = LabelledText(text.strip(), " ".join(str(label).split()))
    try:
        check_characters("".join(found))
    except TokenizerError:
        return NO_CHARACTERS
    return found if normalize(found.text).strip() else NO_TEXT


def sorted_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return each label once: in the order of numbers if all are, else in that of strings."""
    found = set(labels)
    is_number = all(label.removeprefix("-").isdecimal() for label in found)
    return tuple(sorted(found, key=int if is_number else None))
