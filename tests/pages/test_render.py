"""Templates: all of them escape, none leaves a name unfilled, and the style sheet knows what they use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2 import StrictUndefined
from little import ROOT
from markupsafe import Markup

from mamegpt.messages import LANGUAGES, Message, join, msg
from mamegpt.pages.render import _environment, as_text

TEMPLATES = sorted((ROOT / "mamegpt").rglob("templates/*.html"))
PACKAGES = sorted({path.parents[1] for path in TEMPLATES} - {ROOT / "mamegpt/pages"})
STYLES = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mamegpt/pages/static").glob("*.css"))
HOSTILE = "</style><script>alert(1)</script>\"'\n&amp;\x00\u202e豆{{ 7 * 7 }}"
SHOWN = (
    "&lt;/style&gt;&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;\n&amp;amp;&lt;U+0000&gt;&lt;U+202E&gt;豆{{ 7 * 7 }}"
)


def test_text_stays_text_and_html_stays_html() -> None:
    assert as_text(HOSTILE) == SHOWN and as_text(12) == "12" and as_text(Markup("<b>")) == "<b>"


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda path: path.name)
def test_what_a_template_is_given_is_escaped_and_what_it_lacks_is_an_error(folder: Path) -> None:
    environment = _environment(".".join(folder.relative_to(ROOT).parts))
    assert environment.autoescape is True and environment.undefined is StrictUndefined
    assert environment.from_string('<p title="{{ x }}">{{ x }}').render(x=HOSTILE) == f'<p title="{SHOWN}">{SHOWN}'
    assert environment.from_string('{{ _("made {made}", made=x) }}').render(x=HOSTILE).count(SHOWN) == 2


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: "/".join(path.parts[-3:]))
def test_templates_leave_escaping_on_and_load_nothing(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\|\s*safe|autoescape|Markup|<script|<link|<img|src=|href=|style=|\son\w+=|url\(", text)


def test_the_style_sheet_knows_every_class_and_property() -> None:
    assert not re.search(r"url\(|@import", STYLES)
    assert set(re.findall(r"var\((--[\w-]+)", STYLES)) <= set(re.findall(r"(--[\w-]+):", STYLES))
    for path in TEMPLATES:
        for names in re.findall(r'class="([\w -]+)[" {]', path.read_text(encoding="utf-8")):
            for name in set(names.split()) - {"by-"}:
                assert f".{name}" in STYLES, (path, name)


def test_a_message_stands_in_every_language_on_a_page() -> None:
    made = msg("made {made}", made="<1>")
    assert as_text(made) == '<span lang="ja">&lt;1&gt; 作成</span><span lang="en">made &lt;1&gt;</span>'
    assert as_text(msg("digits"), "tspan") == '<tspan lang="ja">数字</tspan><tspan lang="en">digits</tspan>'
    assert as_text(msg("GPU")) == "GPU" and as_text(Message("<x>")) == "&lt;x&gt;"
    both = as_text(join("; ", [msg("digits"), msg("kanji")]))
    assert both == '<span lang="ja">数字。漢字</span><span lang="en">digits; kanji</span>'
    assert set(re.findall(r"#(\w+):checked\) \[lang", STYLES)) == set(LANGUAGES), "the style sheet shows one of them"
