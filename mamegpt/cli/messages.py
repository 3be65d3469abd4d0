"""What the program says, in the user's language: English as it stands in the code, Japanese by one catalogue.

Messages are written where they arise, as f-strings in English. ``locale/ja.json`` holds each of them as a template,
with ``{}`` where something is filled in, and its translation, in which ``{0}``, ``{1}``, ... are these places in
their order (``{0:t}`` if what stands there is translated too, ``{0:l}`` if it is a list of counts, "empty 2, short 1":
such parts have a section of their own, for most are too short to be looked for everywhere). A finished message is
matched with the templates only where it leaves the program.
So nothing is looked up in English, and no other package knows of languages.
"""

from __future__ import annotations

import json
import os
import re
import sys
from functools import cache
from importlib import resources
from typing import IO

from mamegpt.text.display import visible

__all__ = ["is_japanese", "put", "translated"]


def is_japanese() -> bool:
    """Return whether to speak Japanese: as MAMEGPT_LANG says (ja or en), else as the locale does.

    Of a locale's variables the first that is set counts, as POSIX has it: LC_ALL, LC_MESSAGES, LANG.
    """
    names = ("MAMEGPT_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    return next((value for name in names if (value := os.environ.get(name))), "").lower().startswith("ja")


def translated(text: str, part: bool = False) -> str:
    """Return a message (or a ``part`` of one) in the user's language; what the catalogue lacks stays as it is.

    Several messages joined by "; " are translated one by one, and so are lines.
    """
    if not text or not is_japanese():
        return text
    if part and text not in _catalogue("messages")[0] and (found := _one(text, "parts")) is not None:
        return found
    if "\n" in text:
        return "\n".join(map(translated, text.split("\n")))
    return _joined(text) or text


def put(text: str, end: str = "\n", file: IO[str] | None = None) -> None:
    """Print to standard output (or ``file``) at once: `visible` on a terminal, as it is elsewhere."""
    stream = sys.stdout if file is None else file
    print(visible(text) if stream.isatty() else text, end=end, flush=True, file=stream)


class _Filled(str):
    """What fills a place of a template."""

    def __format__(self, how: str) -> str:
        if how == "l":
            return re.sub(r"[^\d,\s](?:[^\d,]*[^\d,\s])?", lambda found: translated(found[0], part=True), self)
        return translated(self, part=True) if how == "t" else str(self)


def _joined(text: str) -> str | None:
    """Return the translation of a message, or of several in a row; None if there is none."""
    for cut in re.finditer("; ", text):
        head, rest = _one(text[: cut.start()]), _joined(text[cut.end() :])
        if head is not None and rest is not None:
            return f"{head}。{rest}"
    return _one(text)


def _one(text: str, section: str = "messages") -> str | None:
    """Return the translation by the template that says most of a text."""
    exact, templates = _catalogue(section)
    if text in exact:
        return exact[text]
    for parts, translation in templates:  # those with most letters first
        if text.startswith(parts[0]) and text.endswith(parts[-1]) and all(part in text for part in parts):
            found = re.fullmatch("(.*?)".join(map(re.escape, parts)), text)
            if found:
                return translation.format(*map(_Filled, found.groups()))
    return None


@cache
def _catalogue(section: str) -> tuple[dict[str, str], list[tuple[list[str], str]]]:
    """Messages without places, and the parts between the places of the others with their translations."""
    text = resources.files("mamegpt.cli").joinpath("locale", "ja.json").read_text(encoding="utf-8")
    messages: dict[str, str] = json.loads(text)[section]
    exact = {english: japanese for english, japanese in messages.items() if "{}" not in english}
    places = [(english.split("{}"), japanese) for english, japanese in messages.items() if "{}" in english]
    return exact, sorted(places, key=lambda place: -sum(map(len, place[0])))
