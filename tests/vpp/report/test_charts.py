"""Charts put each value where its axis says, and logs of any length become charts of few points."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from finished_run import HOSTILE

from vpp.report.axis import Axis
from vpp.report.interval_chart import LEFT as INTERVAL_LEFT
from vpp.report.interval_chart import RIGHT as INTERVAL_RIGHT
from vpp.report.interval_chart import Rate, interval_chart
from vpp.report.line_chart import BOTTOM, LEFT, RIGHT, TOP, Point, Series, line_chart
from vpp.report.run_curves import Averages, Curve
from vpp.sim.intervals import wilson


def polyline(figure: str, place: int) -> list[tuple[float, float]]:
    line = ElementTree.fromstring(figure).find(f".//g[@class='s{place}']/polyline")
    assert line is not None
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.get("points", "").split())]


def test_points_of_a_line_lie_where_the_axes_say() -> None:
    figure = line_chart("t", [Series("a", [Point(0, 0), Point(5, 5), Point(10, 10)])], "x")
    middle = ((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2)
    assert polyline(figure, 0) == [(LEFT, BOTTOM), middle, (RIGHT, TOP)]


def test_equal_ratios_are_equal_distances_on_a_logarithmic_axis() -> None:
    values = [0.0, 0.01, 0.1, 1.0, math.nan, math.inf, -1.0]
    points = [Point(step, value) for step, value in enumerate(values)]
    heights = [y for _, y in polyline(line_chart("t", [Series("a", points)], "x", is_log=True), 0)]
    assert len(heights) == 3  # what has no logarithm is left out
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
    assert heights[0] > heights[2]


def test_training_and_held_out_share_their_axes() -> None:
    figure = line_chart("t", [Series("a", [Point(0, 0), Point(4, 1)]), Series("b", [Point(2, 2), Point(8, 4)])], "x")
    assert polyline(figure, 0)[0] == (LEFT, BOTTOM)
    assert polyline(figure, 1) == [((LEFT * 3 + RIGHT) / 4, (TOP + BOTTOM) / 2), (RIGHT, TOP)]


@pytest.mark.parametrize("is_log", [False, True])
def test_a_single_value_and_none_at_all_are_drawn(is_log: bool) -> None:
    assert "<circle" in line_chart("t", [Series("a", [Point(3, 0.5)])], "x", is_log)
    assert "nothing was logged yet" in line_chart("t", [Series("a", [])], "x", is_log)


@pytest.mark.parametrize(("low", "high"), [(1e-6, 3e-6), (0.9, 1.1), (0.02, 30), (1e-4, 1e7)])
@pytest.mark.parametrize("is_log", [False, True])
def test_ticks_are_several_and_inside(low: float, high: float, is_log: bool) -> None:
    axis = Axis(low, high, 0, 1, is_log)
    places = [axis.place(tick) if tick else 0.0 for tick in axis.ticks()]
    assert 2 <= len(places) <= 12
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in places)


def test_intervals_run_from_end_to_end_of_wilsons_with_the_rate_as_a_mark() -> None:
    rates = {HOSTILE: [Rate(3, 4, *wilson(3, 4)), None], "b": [Rate(0, 2, *wilson(0, 2)), Rate(2, 2, *wilson(2, 2))]}
    groups = list(ElementTree.fromstring(interval_chart("t", ["x", HOSTILE], rates)).iter("g"))
    assert [group.get("class") for group in groups] == ["s0", "s0", "s1"]
    width = INTERVAL_RIGHT - INTERVAL_LEFT
    for group, (k, n) in zip(groups, [(3, 4), (0, 2), (2, 2)], strict=True):
        (bar,), (mark,) = group.iter("line"), group.iter("circle")
        found = [float(bar.get("x1", "")), float(bar.get("x2", "")), float(mark.get("cx", ""))]
        expected = [INTERVAL_LEFT + width * value for value in (*wilson(k, n), k / n)]
        assert found == pytest.approx(expected, abs=0.06)


def test_many_values_become_few_with_their_mean_and_range() -> None:
    averages = Averages(limit=10)
    for step in range(100_000):
        averages.add(step, math.nan if step == 7 else float(step))
    points = averages.points()
    assert 10 <= len(points) <= 20
    assert (points[0].low, points[-1].high) == (0.0, 99_999.0)
    assert all(p.x == p.y and p.low is not None and p.low < p.y for p in points)


def test_a_curve_is_bounded_and_forgets_what_a_resumed_run_makes_again() -> None:
    curve = Curve(limit=8)
    for step in range(1000):
        curve.put(step, float(step))
    assert 4 <= len(curve.values) <= 8
    curve.forget(500)
    assert max(curve.values) < 500
