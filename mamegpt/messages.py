"""Translatable messages: English strings that keep their template and fields.

A message is written where it arises, with named fields; errors take them as `msg` does::

    raise DataError("{path} cannot be read ({reason}); fetch it again", path=path, reason=reason)
    say(msg("wrote {path} in {elapsed_s:.1f} s", path=path, elapsed_s=elapsed_s))

The result is an ordinary English string. `translate` returns the same message in another language: it looks up the
template in the gettext catalogue (``mamegpt/locale``; ``make messages`` updates it) and fills in the same fields.
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
"""The languages of messages; a page shows the first unless another one is chosen."""

_USER = re.compile(r"(?<=://)([^\s/]*@|[^\s/:@]*:(?!\d+/)[^\s@]*@)")  # a slash in a password is invalid, but occurs
_QUERY = re.compile(
    r"""(?P<place>\b[a-z][\w+.-]*://[^\s?#]*)[?#]\S*?…?(?=(@[\d.]+)?[]'")};:,.]*(\s|$|,\s*[a-z][\w+.-]*://))""",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Return a text without secrets in its URLs: user, password, and the query, which may contain a signature.

    ``https://me:word@host/a.parquet?token=x`` becomes ``https://host/a.parquet?…``. A weight at the end stays.
    """
    return _QUERY.sub(r"\g<place>?…", _USER.sub("", text))


class Message(str):
    """A message, or a part of one, with its ``template`` and ``fields``.

    A message from `join` has ``parts`` instead of fields; its template is the separator.
    """

    template: str
    fields: dict[str, Any]
    parts: tuple[str, ...]

    def __new__(cls, template: str, /, **fields: Any) -> Message:
        """Fill a template as `str.format` does; a template without fields is taken literally, including braces.

        Secrets in URLs, in the template and in string fields, are removed (`without_secrets`).
        """
        template = without_secrets(template)
        fields = {name: without_secrets(it) if type(it) is str else it for name, it in fields.items()}
        message = super().__new__(cls, template.format(**fields) if fields else template)
        message.template, message.fields, message.parts = template, fields, ()
        return message


def msg(template: str, /, **fields: Any) -> Message:
    """Return a message. Babel finds templates by the name of this function."""
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

    Fields that are messages, or errors with a message, are translated too. A string that is not a `Message` stays as it
    is, and so does a message that the catalogue lacks.
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
