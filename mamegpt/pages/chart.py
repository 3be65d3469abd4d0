"""Curves as SVG, without a library: several lines over one axis, numbers only, colours left to the page's style sheet.

Elements carry classes: ``grid``, ``tick``, ``line``, ``dot``, ``faint``, and ``c0``, ``c1``, ... for the colour.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Curve", "Points", "clock", "line_chart", "short", "thin"]

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 18, 10, 28
MAX_POINTS = 240
"""Points of a line; more could not be told apart."""

CLOCK_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200)
"""Distances of ticks on an axis of seconds; past these, days."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """Points (x, y), x ascending. ``dots`` marks each with its values; ``faint`` draws it behind the others."""

    name: str
    colour: int
    points: Points
    dots: bool = False
    faint: bool = False


def line_chart(curves: Sequence[Curve], x_text: Callable[[float], str]) -> str:
    """Draw curves into one SVG; with no points it is empty.

    ``x_text`` writes an x: `short`, or `clock` for seconds, which then are in round minutes or hours.
    """
    every = [point for curve in curves for point in curve.points]
    if not every:
        return ""
    x_ticks = _ticks([x for x, _ in every], CLOCK_STEPS if x_text is clock else ())
    y_ticks = _ticks([y for _, y in every])
    x_low, x_high = min(x for x, _ in every), max(x for x, _ in every)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def across(x: float) -> float:
        return LEFT + (x - x_low) / ((x_high - x_low) or 1) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for y in y_ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {down(y):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{down(y) + 4:.1f}" text-anchor="end">{short(y)}</text>')
    for x in x_ticks:
        if x_low <= x <= x_high:
            place = f'x="{across(x):.1f}" y="{HEIGHT - 8}" text-anchor="middle"'
            parts.append(f'<text class="tick" {place}>{escape(x_text(x))}</text>')
    for curve in sorted(curves, key=lambda curve: not curve.faint):
        kind = f"line c{curve.colour}" + (" faint" if curve.faint else "")
        places = [f"{across(x):.1f} {down(y):.1f}" for x, y in curve.points]
        if places:
            parts.append(f'<path class="{kind}" d="M{"L".join(places)}"/>')
        for x, y in curve.points if curve.dots else ():
            told = escape(f"{curve.name}: {y:.4g} ({x_text(x)})")
            parts.append(
                f'<circle class="dot c{curve.colour}" cx="{across(x):.1f}" cy="{down(y):.1f}" r="3.5">'
                f"<title>{told}</title></circle>"
            )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def thin(points: Points) -> list[tuple[float, float]]:
    """At most `MAX_POINTS` points: of each stretch the last x and the mean y."""
    n = min(len(points), MAX_POINTS)
    edges = [len(points) * i // n for i in range(n + 1)] if n else []
    stretches = [points[a:b] for a, b in itertools.pairwise(edges)]
    return [(stretch[-1][0], sum(y for _, y in stretch) / len(stretch)) for stretch in stretches]


def short(value: float) -> str:
    """Return a number of an axis: 1500 as 1.5k, 2,000,000 as 2M, 0.00030 as 0.0003."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def clock(seconds: float) -> str:
    """Seconds as a clock shows them: 0:05, 12:30, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _ticks(values: Sequence[float], steps: Sequence[int] = ()) -> list[float]:
    """Two to eight evenly spaced round numbers, the first at or below all values, the last at or above.

    Their distance is the first of ``steps`` that is large enough, else one, two or five times a power of ten.
    """
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 3))
    step = next(step for step in (*steps, power, 2 * power, 5 * power, 10 * power) if span / step <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]
