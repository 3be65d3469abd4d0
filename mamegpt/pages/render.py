"""Pages made from templates: one frame, one style sheet, every language at once.

A template writes its own words as ``_("Results")``. They are messages, as in Python, and a message on a page stands in
every language, of which the style sheet shows one.

Whatever comes from outside (names, titles, texts) is only ever text in them: the templates escape it, and control
characters and bidirectional overrides are made visible, as on a terminal.
"""

from __future__ import annotations

import functools

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mamegpt.messages import LANGUAGES, Message, msg, translate
from mamegpt.text.display import visible

__all__ = ["as_text", "render"]


def render(package: str, template: str, **values: object) -> str:
    """Return a template of a package, which extends ``base.html`` of this package, filled with values."""
    return _environment(package).get_template(template).render(values)


def as_text(value: object, tag: str = "span") -> Markup:
    """Return HTML that shows a value: text as it stands, a `Message` as an element for each language it differs in.

    `Markup` is HTML already.
    """
    if isinstance(value, Markup):
        return value
    if not isinstance(value, Message):
        return escape(visible(str(value)))
    texts = {language: escape(visible(translate(value, language))) for language in LANGUAGES}
    if len({*texts.values()}) == 1:
        return texts[LANGUAGES[0]]
    return Markup("".join(f'<{tag} lang="{language}">{text}</{tag}>' for language, text in texts.items()))


@functools.cache
def _environment(package: str) -> Environment:
    own, shared = PackageLoader(package), PackageLoader("mamegpt.pages")
    environment = Environment(
        loader=ChoiceLoader([own, shared, PackageLoader("mamegpt.pages", "static")]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=as_text,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["_"] = msg
    return environment
