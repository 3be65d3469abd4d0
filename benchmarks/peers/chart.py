"""Charts as files of their own, which a README shows on white and on black."""

from __future__ import annotations

from importlib import resources

from markupsafe import Markup

__all__ = ["STRONG", "WEAK", "svg_file"]

STRONG, WEAK = "c0", "plain"
STYLE = """
:root {
  font-family: system-ui, sans-serif;
  --c0: #2f855a;
  --plain: #9aa5b1;
  --line: #9aa5b14d;
  --ink: #6b7280;
  --faint: #6b7280;
}
"""


def svg_file(chart: Markup) -> str:
    """The chart with the style sheet that a page would have for it."""
    style = resources.files("mamegpt.pages").joinpath("static", "chart.css").read_text(encoding="utf-8")
    start, rest = str(chart).split(">", 1)
    start = start.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"')
    return f"{start}>\n<style>\n{style}{STYLE}</style>\n{rest}\n"
