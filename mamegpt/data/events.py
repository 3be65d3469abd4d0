"""Events that functions of this package report to their ``on_event`` callback."""

from __future__ import annotations

from dataclasses import dataclass

from mamegpt.data.readers.read import Layout

__all__ = ["Counted", "Event", "Reading"]


@dataclass(frozen=True)
class Reading:
    """Files are about to be read: the name of the first, the number of files, and the layout of the first."""

    file: str
    n_files: int
    layout: Layout


@dataclass(frozen=True)
class Counted:
    """Documents read so far, and how many of them are kept."""

    n_read: int
    n_kept: int


Event = Reading | Counted
