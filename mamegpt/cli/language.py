"""The language of the user, and translation of messages into it: English, as in the code, or Japanese."""

from __future__ import annotations

import os
import sys
from typing import IO, Literal

from mamegpt.messages import Message, msg, translate
from mamegpt.text.display import visible

__all__ = ["label", "put", "translated", "user_language"]


# fmt: off
LABELS = (
    # why documents and records are dropped, and the steps of cleaning
    msg("empty"), msg("duplicate"), msg("no keyword"), msg("too few hits"), msg("excluded"), msg("no text column"),
    msg("redirect"), msg("other namespace"), msg("normalisation"), msg("aozora"), msg("markup"), msg("empty-brackets"),
    msg("boilerplate"), msg("personal-data"), msg("white-space"), msg("short"), msg("no-sentence-end"),
    msg("not-japanese"), msg("repetitive"), msg("duplicates"), msg("contamination"), msg("near-duplicates"),
    msg("repeated-lines"), msg("paragraph"), msg("line"), msg("file"),
    # the classes of characters
    msg("hiragana"), msg("katakana"), msg("kanji"), msg("Latin"), msg("other letters"), msg("digits"),
    msg("punctuation"), msg("white space"), msg("other"),
    # facts of machine.json
    msg("machine"), msg("device"), msg("processes"), msg("threads"), msg("version"), msg("SIMD"), msg("engine"),
    # error messages of systems
    msg("No such file or directory"), msg("Permission denied"), msg("Is a directory"), msg("Not a directory"),
    msg("Address already in use"), msg("Cannot assign requested address"), msg("Name or service not known"),
    msg("Temporary failure in name resolution"), msg("Broken pipe"), msg("No space left on device"),
    msg("Disk quota exceeded"), msg("File too large"), msg("Read-only file system"), msg("Input/output error"),
    msg("Connection refused"), msg("Network is unreachable"), msg("timed out"), msg("File exists"),
    # separators of messages
    msg("; "), msg(", "), msg(" or "), msg(" and "),
)
# fmt: on
"""Messages that appear as plain text in results; `label` translates them, and so do pages."""


def user_language() -> Literal["en", "ja"]:
    """Return the language of the user: that of MAMEGPT_LANG (ja or en), else that of the locale.

    The first locale variable that is set counts, as in POSIX: LC_ALL, LC_MESSAGES, LANG. Windows sets none; there it is
    the language of its own menus.
    """
    names = ("MAMEGPT_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    value = next((value for name in names if (value := os.environ.get(name))), "")
    if not value and sys.platform == "win32":
        return "ja" if _windows_language() & PRIMARY == JAPANESE else "en"
    return "ja" if value.lower().startswith("ja") else "en"


PRIMARY, JAPANESE = 0x3FF, 0x11
"""The bits of Windows' number of a language that are the language without the country, and what they are for ja."""


def _windows_language() -> int:
    import ctypes

    return int(ctypes.windll.kernel32.GetUserDefaultUILanguage())  # type: ignore[attr-defined,unused-ignore]


def translated(message: str) -> str:
    """Return a `Message` in the user's language; text that is not a message stays as it is."""
    return translate(message, user_language())


def label(name: str) -> str:
    """Return a name that is plain text, such as a reason in a report, in the user's language."""
    return translated(Message(name))


def put(text: str, end: str = "\n", file: IO[str] | None = None) -> None:
    """Print to standard output (or ``file``) at once: `visible` on a terminal, as it is elsewhere."""
    stream = sys.stdout if file is None else file
    print(visible(text) if stream.isatty() else text, end=end, flush=True, file=stream)
