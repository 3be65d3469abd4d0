"""Sentences for people: English strings that remember what they were made of, so that they can be translated.

Code writes a sentence where it arises, with named fields (errors take them as `msg` does)::

    raise DataError("{path} cannot be read ({reason}); fetch it again", path=path, reason=reason)
    say(msg("wrote {path} in {elapsed_s:.1f} s", path=path, elapsed_s=elapsed_s))

The result is an ordinary English string. `translate` gives the same sentence in another language: it looks the template
up in the gettext catalogue (``mamegpt/locale``; ``make messages`` brings it up to date) and fills in the same fields.
"""

from __future__ import annotations

import gettext
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any

__all__ = ["LANGUAGES", "Message", "join", "msg", "tally", "translate", "without_secrets"]

LANGUAGES = ("ja", "en")
"""The languages that messages are there in; a page shows the first unless another is chosen."""

_USER = re.compile(r"(?<=://)([^\s/]*@|[^\s/:@]*:(?!\d+/)[^\s@]*@)")  # a slash in a password is wrong, and seen
_QUERY = re.compile(
    r"""(?P<place>\b[a-z][\w+.-]*://[^\s?#]*)[?#]\S*?…?(?=(@[\d.]+)?[]'")};:,.]*(\s|$|,\s*[a-z][\w+.-]*://))""",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Return a text whose URLs have lost what may be secret: user and password, and the query, which may be signed.

    ``https://me:word@host/a.parquet?token=x`` becomes ``https://host/a.parquet?…``. A weight at the end stays.
    """
    return _QUERY.sub(r"\g<place>?…", _USER.sub("", text))


class Message(str):
    """A sentence, or a part of one, with the ``template`` and the ``fields`` it was made from.

    A message that `join` made has ``parts`` instead of fields; its template is what stands between them.
    """

    template: str
    fields: dict[str, Any]
    parts: tuple[str, ...]

    def __new__(cls, template: str, /, **fields: Any) -> Message:
        """Fill a template as `str.format` does; without fields it is taken as it is, braces included.

        What may be secret in URLs, in the template and in fields that are strings, is left out (`without_secrets`).
        """
        template = without_secrets(template)
        fields = {name: without_secrets(it) if type(it) is str else it for name, it in fields.items()}
        message = super().__new__(cls, template.format(**fields) if fields else template)
        message.template, message.fields, message.parts = template, fields, ()
        return message


def msg(template: str, /, **fields: Any) -> Message:
    """Return a message; the tools of gettext find templates by the name of this function."""
    return Message(template, **fields)


def join(separator: str, parts: Iterable[str]) -> Message:
    """Return messages with a separator between them, as `str.join` does, so that each can be translated."""
    parts = tuple(parts)
    message = str.__new__(Message, separator.join(parts))
    message.template, message.fields, message.parts = separator, {}, parts
    return message


def tally(counts: Mapping[str, int]) -> Message:
    """Return counts by reason as one message, for example "too short 3, boilerplate 1"; a reason with 0 is left out."""
    return join(", ", [msg("{reason} {n:,}", reason=Message(reason), n=n) for reason, n in counts.items() if n])


def translate(message: str, language: str) -> str:
    """Return a message in a language, "en" or "ja".

    Fields that are messages, or errors with one, are translated too. A string that is not a `Message` is somebody's
    text and stays as it is; so does a message that the catalogue lacks.
    """
    if language == "en" or not isinstance(message, Message) or not message:
        return str(message)
    template = _catalogue(language).gettext(message.template)
    if message.parts:
        return template.join(translate(part, language) for part in message.parts)
    if not message.fields:
        return template
    return template.format(**{name: _field(value, language) for name, value in message.fields.items()})


def _field(value: Any, language: str) -> Any:
    if isinstance(value, BaseException):
        value = getattr(value, "message", value.args[0] if value.args else value)
    return translate(value, language) if isinstance(value, Message) else value


@cache
def _catalogue(language: str) -> gettext.GNUTranslations:
    file = resources.files("mamegpt").joinpath("locale", language, "LC_MESSAGES", "mamegpt.mo")
    with file.open("rb") as opened:
        return gettext.GNUTranslations(opened)
