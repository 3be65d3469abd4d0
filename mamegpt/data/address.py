"""Parse the source of text in ``--data``: lists, weights, names on the Hub, URLs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from mamegpt.data.readers.read import INPUT_FORMATS, format_of
from mamegpt.errors import DataError
from mamegpt.messages import without_secrets
from mamegpt.system.files import is_here
from mamegpt.system.hub import is_hub_name
from mamegpt.system.remote import is_url

__all__ = ["HubAddress", "hub_address", "public_parts", "split_list", "split_weight", "without_weight"]

MAX_WEIGHT = 100
_HUB = re.compile(r"(?P<name>[^@:]+)(:(?P<config>[^@<>:/\\|?*]+))?(@(?P<revision>[^\s@:?*]+))?")
_HF = re.compile(
    r"hf://datasets/(?P<name>[^/@]+/[^/@]+)(@(?P<revision>refs/(convert|pr)/[^/]+|[^/@]+))?(/(?P<path>.*))?"
)


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A dataset on the Hub, and optionally a configuration, a revision and a path in it; empty means not given."""

    name: str
    config: str = ""
    revision: str = ""
    path: str = ""

    def pinned(self, commit: str) -> str:
        """Return this address at a commit, in the form that `hub_address` parses."""
        if self.path:
            return f"hf://datasets/{self.name}@{commit}/{self.path}"
        return f"{self.name}{':' * bool(self.config)}{self.config}@{commit}"


def split_list(source: str) -> list[str]:
    """Return the sources of a list, with their weights. A comma in the query of a URL separates only before a URL."""
    parts = list[str]()
    for part in source.split(","):
        if parts and is_url(parts[-1].strip()) and "?" in parts[-1] and not is_url(part.strip()):
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    return [part.strip() for part in parts]


def split_weight(part: str) -> tuple[str, float]:
    """Return a source and its weight: the number after the last ``@``, or 1 without one.

    Raises `DataError` for a weight that is not above 0 and at most MAX_WEIGHT, or is not a number although the part
    after the ``@`` cannot be a revision.
    """
    name, at, number = part.rpartition("@")
    if not at or is_here(part):
        return part, 1.0
    try:
        weight = float(number)
    except ValueError:
        if is_url(part) or (hub_address(part) and not is_here(name)):
            return part, 1.0
        weight = 0.0
    if not 0 < weight <= MAX_WEIGHT:
        raise DataError(
            "{part!r}: {number!r} is not a weight; give a number above 0 and at most {max_weight} after the @ (and "
            "after a revision that is a number, @1)",
            part=part,
            number=number,
            max_weight=MAX_WEIGHT,
        )
    return name, weight


def hub_address(name: str) -> HubAddress | None:
    """Return the dataset that a name means; None if it is not the address of a dataset.

    Addresses: ``owner/name`` and ``owner/name:configuration``, each optionally with ``@revision``;
    ``hf://datasets/owner/name@revision/path``.
    """
    if found := _HF.fullmatch(name):
        revision, path = unquote(found["revision"] or ""), (found["path"] or "").strip("/")
        return HubAddress(found["name"], "", revision, path) if is_hub_name(found["name"]) else None
    found = _HUB.fullmatch(name)
    if not found or not is_hub_name(found["name"]) or format_of(Path(found["name"])) in INPUT_FORMATS:
        return None
    return HubAddress(found["name"], found["config"] or "", found["revision"] or "")


def without_weight(part: str) -> str:
    """Return a source without its weight, if it has a valid one; the source itself need not exist any more."""
    try:
        return split_weight(part)[0]
    except DataError:
        return part


def public_parts(source: str) -> list[str]:
    """Return public names for the sources of a list: a name on the Hub, or the last part of a path.

    Names of the user's folders and servers stay private.
    """
    names = [without_weight(part) for part in split_list(source)]
    return [
        name if hub_address(name) and not is_here(name) else Path(without_secrets(name).removesuffix("?…")).name
        for name in names
    ]
