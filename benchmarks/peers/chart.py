"""Charts as SVG, without a library: bars with a name and a number each, and curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

WIDTH = 800
NAMES_WIDTH = 300
NUMBERS_WIDTH = 190
ROW_HEIGHT = 30
CURVE_HEIGHT = 320
FONT = 'font-family="system-ui, sans-serif" font-size="14"'
PLAIN, STRONG = "#9aa5b1", "#2f855a"
TEXT = "#6b7280"  # readable on white and on black


def bar_chart(bars: Sequence[tuple[str, float, str]], highlight: str) -> str:
    """Horizontal bars, (name, value, what to write at its end); the bar called ``highlight`` stands out."""
    longest = max(value for _, value, _ in bars)
    scale = (WIDTH - NAMES_WIDTH - NUMBERS_WIDTH) / longest
    parts = []
    for i, (name, value, label) in enumerate(bars):
        y = i * ROW_HEIGHT
        length, thickness = value * scale, ROW_HEIGHT - 10
        colour = STRONG if name == highlight else PLAIN
        weight = ' font-weight="bold"' if name == highlight else ""
        parts += [
            f'<text x="{NAMES_WIDTH - 10}" y="{y + 20}" text-anchor="end" fill="{TEXT}"{weight}>{escape(name)}</text>',
            f'<rect x="{NAMES_WIDTH}" y="{y + 5}" width="{length:.1f}" height="{thickness}" fill="{colour}"/>',
            f'<text x="{NAMES_WIDTH + length + 8:.1f}" y="{y + 20}" fill="{TEXT}"{weight}>{escape(label)}</text>',
        ]
    return _svg(len(bars) * ROW_HEIGHT + 4, parts)


def curve_chart(curves: Sequence[tuple[str, Sequence[tuple[float, float]]]], highlight: str) -> str:
    """Curves, (name, points): bits per character over a logarithmic axis of seconds."""
    xs = [math.log10(x) for _, points in curves for x, _ in points]
    ys = [y for _, points in curves for _, y in points]
    left, right, top, bottom = 50, WIDTH - 45, 40, CURVE_HEIGHT - 30
    x0, x1 = math.floor(min(xs)), math.ceil(max(xs) + 1e-9)
    y0, y1 = math.floor(min(ys) * 2) / 2, math.ceil(max(ys) * 2 + 1e-9) / 2

    def across(x: float) -> float:
        return left + (math.log10(x) - x0) / (x1 - x0) * (right - left)

    def down(y: float) -> float:
        return bottom - (y - y0) / (y1 - y0) * (bottom - top)

    parts = [f'<text x="8" y="20" fill="{TEXT}">bits per character</text>']
    for exponent in range(x0, x1 + 1):
        x, label = across(10.0**exponent), f"{10**exponent:,}" if exponent >= 0 else f"{10.0**exponent:g}"
        parts.append(f'<path d="M{x:.1f} {top}V{bottom}" stroke="{PLAIN}" stroke-opacity="0.3"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle" fill="{TEXT}">{label} s</text>')
    for half in range(round(y0 * 2), round(y1 * 2) + 1):
        y = down(half / 2)
        parts.append(f'<path d="M{left} {y:.1f}H{right}" stroke="{PLAIN}" stroke-opacity="0.3"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 5:.1f}" text-anchor="end" fill="{TEXT}">{half / 2:.1f}</text>')
    for name, points in curves:
        colour = STRONG if name == highlight else PLAIN
        places = [(across(x), down(y)) for x, y in points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        x, y = places[0]
        parts.append(f'<text x="{x + 8:.1f}" y="{y - 6:.1f}" fill="{TEXT}">{escape(name)}</text>')
    return _svg(CURVE_HEIGHT, parts)


def _svg(height: int, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {FONT}>\n{body}\n</svg>\n'
