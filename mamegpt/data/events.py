"""What functions of this package report while they work, to the ``on_event`` that they are given."""

from __future__ import annotations

from dataclasses import dataclass

from mamegpt.data.readers.read import Layout

__all__ = ["Counted", "Event", "Reading"]


@dataclass(frozen=True)
class Reading:
    """Files are about to be read: the name of the first, how many there are, and where the first has its text."""

    file: str
    n_files: int
    layout: Layout


@dataclass(frozen=True)
class Counted:
    """Documents read up to now, and how many of them are kept."""

    n_read: int
    n_kept: int


Event = Reading | Counted
