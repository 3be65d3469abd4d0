"""Pages made from templates: one frame, one style sheet, every language at once.

Whatever comes from outside (names, titles, texts) is only ever text in them: the templates escape it, and control
characters and bidirectional overrides are made visible, as on a terminal.
"""

from __future__ import annotations

import functools
import json
from importlib import resources

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mamegpt.text.display import visible

__all__ = ["Words", "as_text", "render"]


def render(package: str, template: str, **values: object) -> str:
    """Return a template of a package filled with values.

    The template extends ``base.html`` of this package, and calls ``word`` for the `Words` of its own.
    """
    return _environment(package).get_template(template).render(values)


class Words:
    """The words of a package's pages (``words.json``) in all their languages, of which the style sheet shows one."""

    def __init__(self, package: str) -> None:
        found = resources.files(package).joinpath("words.json").read_text(encoding="utf-8")
        self.languages: dict[str, dict[str, str]] = json.loads(found)

    def __call__(self, name: str, *values: object, tag: str = "span") -> Markup:
        """Return an element a language: the word, filled with values where it is a format string."""
        return Markup(
            "".join(
                f'<{tag} lang="{language}">{as_text(words[name].format(*values))}</{tag}>'
                for language, words in self.languages.items()
            )
        )


def as_text(value: object) -> Markup:
    """Return HTML that shows a value as it stands; `Markup` is HTML already."""
    return value if isinstance(value, Markup) else escape(visible(str(value)))


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
    environment.globals["word"] = Words(package)
    return environment
