"""Charts: ticks are round, points keep their places, names are text."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamegpt.pages.chart import (
    CLOCK_STEPS,
    MAX_POINTS,
    Bars,
    Curve,
    _powers_of_ten,
    _ticks,
    bar_chart,
    clock,
    line_chart,
    short,
    thin,
)

numbers = st.floats(-1e9, 1e9, allow_subnormal=False).map(lambda x: round(x, 6))


@given(st.lists(numbers, min_size=1), st.sampled_from([(), CLOCK_STEPS]))
def test_ticks_are_few_round_and_enclose(values: list[float], steps: Sequence[int]) -> None:
    ticks = _ticks(values, steps)
    assert 2 <= len(ticks) <= 8
    step = ticks[1] - ticks[0]
    assert ticks[0] <= min(values) + 1e-6 * step and ticks[-1] >= max(values) - 1e-6 * step
    if not steps or step > CLOCK_STEPS[-1]:
        assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)
    else:
        assert min(abs(step - one) for one in (*steps, step)) == 0


@given(st.lists(st.tuples(numbers, numbers)))
def test_thinned_points_keep_mean_and_end(points: list[tuple[float, float]]) -> None:
    found = thin(points)
    assert len(found) == min(len(points), MAX_POINTS)
    if len(points) <= MAX_POINTS:
        assert found == points


def test_thinning_takes_means_of_even_stretches() -> None:
    points = [(float(i), float(i % 2)) for i in range(10 * MAX_POINTS)]
    found = thin(points)
    assert found[0] == (9.0, 0.5) and found[-1] == (10 * MAX_POINTS - 1, 0.5) and len(found) == MAX_POINTS


def test_a_line_goes_from_corner_to_corner() -> None:
    svg = ElementTree.fromstring(line_chart([Curve("a", "c3", [(0, 0), (5, 5), (10, 10)], dots=True)], short))
    (path,) = (one for one in svg.findall("path") if one.attrib["class"] == "line c3")
    assert path.attrib["d"] == "M52.0 252.0L297.0 131.0L542.0 10.0"
    assert [dot.findtext("title") for dot in svg.findall("circle")] == ["a: 0 (0)", "a: 5 (5)", "a: 10 (10)"]
    assert line_chart([Curve("a", "c0", [])], short) == ""
    single = line_chart([Curve("a", "c0", [(1, 0)])], short)
    assert "nan" not in single and single.count("<circle") == 1, "no line shows a single point"


@given(st.lists(st.floats(1e-6, 1e9), min_size=1))
def test_powers_of_ten_are_few_and_enclose(values: list[float]) -> None:
    ticks = _powers_of_ten(values)
    assert 2 <= len(ticks) <= 17 and ticks[0] <= min(values) * (1 + 1e-9) and ticks[-1] >= max(values) * (1 - 1e-9)
    assert all(math.isclose(b, 10 * a) for a, b in itertools.pairwise(ticks))


def test_a_logarithmic_axis_gives_each_power_the_same_room() -> None:
    curve = Curve("a", "c0", [(1, 0), (10, 1), (100, 2)])
    svg = ElementTree.fromstring(line_chart([curve], short, log_x=True, named=True, y_name="bits"))
    (path,) = (one for one in svg.findall("path") if one.attrib["class"] == "line c0")
    assert re.findall(r"[ML]([\d.]+) ", path.attrib["d"]) == ["52.0", "297.0", "542.0"]
    assert [text.text for text in svg.findall("text") if text.attrib["class"] == "name"] == ["bits", "a"]
    assert [text.text for text in svg.findall("text") if text.attrib.get("text-anchor") == "middle"] == [
        "1",
        "10",
        "100",
    ]


def test_bars_are_as_long_as_their_values() -> None:
    rows = [Bars("豆", [(2, "plain"), (8, "c0")], "2 → 8"), Bars("米", [(0, "plain"), (4, "c0")], "0 → 4")]
    svg = ElementTree.fromstring(bar_chart(rows))
    assert [(bar.attrib["class"], bar.attrib["width"]) for bar in svg.findall("rect")] == [
        ("bar plain", "140.0"),
        ("bar c0", "560.0"),
        ("bar plain", "0.0"),
        ("bar c0", "280.0"),
    ]
    assert [text.text for text in svg.findall("text")] == ["豆", "2 → 8", "米", "0 → 4"]
    places = [float(one.attrib["y"]) for one in svg]
    assert places == sorted(places) and places[-1] < float(svg.attrib["viewBox"].split()[3])
    assert "nan" not in bar_chart([Bars("a", [(0, "c0")], "0")]) and ElementTree.fromstring(bar_chart([])) is not None


def test_names_are_text_whatever_they_hold() -> None:
    name = "</title><script>a&\"'\u202e"
    for svg in (
        line_chart([Curve(name, "c0", [(1, 1), (2, 2)], dots=True)], lambda _: name, named=True, y_name=name),
        bar_chart([Bars(name, [(1, "c0")], name)]),
    ):
        found = ElementTree.fromstring(svg)
        assert {one.tag for one in found.iter()} <= {"svg", "path", "text", "circle", "title", "rect"}
        texts = [one.text for one in found.iter() if one.text]
        assert sum("</title><script>a&\"'<U+202E>" in text for text in texts) >= 2 and "\u202e" not in svg


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.0003, "0.0003"), (1500, "1.5k"), (2_000_000, "2M"), (-3e9, "-3G"), (12.5, "12.5")]
)
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (59.7, "1:00"), (750, "12:30"), (3723, "1:02:03")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
