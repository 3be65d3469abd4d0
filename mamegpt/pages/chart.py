"""Charts as SVG, without a library: curves over one axis, and bars. Colors are left to ``static/chart.css``.

Elements carry its classes: ``grid``, ``tick``, ``name``, ``line``, ``dot``, ``bar``, ``faint``, and a color: ``c0`` to
``c5``, or ``plain``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mamegpt.pages.render import as_text

__all__ = ["Bars", "Curve", "Points", "bar_chart", "clock", "line_chart", "short", "thin"]

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 18, 10, 28
TEXT_HEIGHT, BAR_HEIGHT = 24, 7
MAX_POINTS = 240
"""Points of a line; more could not be told apart."""

CLOCK_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200)
"""Distances of ticks on an axis of seconds; past these, days."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """Points (x, y), x ascending. ``dots`` marks each with its values; ``faint`` draws it behind the others.

    A single point is marked in any case, for no line shows it.
    """

    name: str
    color: str
    points: Points
    dots: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Bars:
    """A row of bars below one another, (length, color) each, under its name and what is written at its end."""

    name: str
    bars: Sequence[tuple[float, str]]
    text: str


def line_chart(
    curves: Sequence[Curve],
    x_text: Callable[[float], str],
    *,
    log_x: bool = False,
    named: bool = False,
    y_name: str = "",
) -> Markup:
    """Draw curves into one SVG; with no points it is empty.

    ``x_text`` writes an x: `short`, or `clock` for seconds, which then are in round minutes or hours. A logarithmic
    axis goes from one power of ten to another. ``named`` writes a curve's name where it begins, that of a faint one
    where it ends.
    """
    every = [point for curve in curves for point in curve.points]
    if not every:
        return Markup()
    xs = [x for x, _ in every]
    x_ticks = _powers_of_ten(xs) if log_x else _ticks(xs, CLOCK_STEPS if x_text is clock else ())
    y_ticks = _ticks([y for _, y in every])
    x_low, x_high = (x_ticks[0], x_ticks[-1]) if log_x else (min(xs), max(xs))
    y_low, y_high = y_ticks[0], y_ticks[-1]
    top = TOP + TEXT_HEIGHT if y_name else TOP
    scale = math.log10 if log_x else float

    def across(x: float) -> float:
        return LEFT + (scale(x) - scale(x_low)) / ((scale(x_high) - scale(x_low)) or 1) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - top - BOTTOM)

    parts = [f'<text class="name" x="0" y="12">{as_text(y_name)}</text>'] if y_name else []
    for y in y_ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {down(y):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{down(y) + 4:.1f}" text-anchor="end">{short(y)}</text>')
    for x in x_ticks:
        if x_low <= x <= x_high:
            place = f'x="{across(x):.1f}" y="{HEIGHT - 8}" text-anchor="middle"'
            parts.append(f'<text class="tick" {place}>{as_text(x_text(x))}</text>')
    for curve in sorted(curves, key=lambda curve: not curve.faint):
        kind = f"line {curve.color}" + (" faint" if curve.faint else "")
        places = [(f"{across(x):.1f}", f"{down(y):.1f}") for x, y in curve.points]
        if places:
            parts.append(f'<path class="{kind}" d="M{"L".join(map(" ".join, places))}"/>')
        for (x, y), (left, height) in zip(curve.points, places, strict=True) if curve.dots or len(places) == 1 else ():
            title = as_text(f"{curve.name}: {y:.4g} ({x_text(x)})")
            parts.append(
                f'<circle class="dot {curve.color}" cx="{left}" cy="{height}" r="3.5"><title>{title}</title></circle>'
            )
        if named and places:
            (left, height), where = (places[-1], 'dy="4"') if curve.faint else (places[0], 'dy="-6"')
            parts.append(f'<text class="name" x="{left}" y="{height}" dx="8" {where}>{as_text(curve.name)}</text>')
    return _svg(HEIGHT, parts)


def bar_chart(rows: Sequence[Bars]) -> Markup:
    """Draw rows of bars into one SVG, the longest as wide as it is; lengths are from 0 on."""
    scale = WIDTH / (max((length for row in rows for length, _ in row.bars), default=0) or 1)
    parts, y = [], 0
    for row in rows:
        y += TEXT_HEIGHT
        parts.append(f'<text class="name" x="0" y="{y - 6}">{as_text(row.name, "tspan")}</text>')
        parts.append(f'<text class="tick" x="{WIDTH}" y="{y - 6}" text-anchor="end">{as_text(row.text)}</text>')
        for length, color in row.bars:
            parts.append(
                f'<rect class="bar {color}" y="{y}" width="{length * scale:.1f}" height="{BAR_HEIGHT}" rx="2"/>'
            )
            y += BAR_HEIGHT + 1
        y += 6
    return _svg(y, parts)


def _svg(height: int, parts: Sequence[str]) -> Markup:
    return Markup(f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>')


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


def _powers_of_ten(values: Sequence[float]) -> list[float]:
    """Two or more powers of ten, the first at or below all values, the last at or above."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return [10.0**i for i in range(low, max(low + 1, high) + 1)]
