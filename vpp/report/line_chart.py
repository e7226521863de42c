"""Curves as inline SVG: lines with the range of what they average, and marks where there are few points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vpp.report.axis import Axis
from vpp.report.html import Html, inside, number, tag

WIDTH, HEIGHT = 480, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 468, 12, 218
_FEW = 40


@dataclass(frozen=True)
class Point:
    """A value, and the range of the values that it is the mean of."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """A curve and what it is called."""

    name: str
    points: Sequence[Point]


def line_chart(title: str, series: Sequence[Series], x_label: str, is_log: bool = False) -> Html:
    """A figure with a title, a legend and the curves.

    Args:
        title: Of the figure, with the unit of its values.
        series: Curves; colours follow their order. Points that are not finite, or not above 0 on a logarithmic axis,
            are left out.
        x_label: What the horizontal axis counts.
        is_log: Whether values stand on a logarithmic axis.
    """
    shown = [[p for p in one.points if math.isfinite(p.y) and (p.y > 0 or not is_log)] for one in series]
    every = [point for points in shown for point in points]
    values = [v for p in every for v in (p.y, p.low, p.high) if v is not None and (v > 0 or not is_log)]
    if not every:
        return tag("p", f"{title}: nothing was logged yet.", class_="missing")
    across = Axis.around((point.x for point in every), LEFT, RIGHT)
    upright = Axis.around(values, BOTTOM, TOP, is_log)
    curves = (_curve(place, one.name, shown[place], across, upright) for place, one in enumerate(series))
    picture = tag(
        "svg", _grid(across, upright, x_label), *curves,
        viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title,
    )  # fmt: skip
    caption = f"{title}, logarithmic" if is_log else title
    return tag("figure", tag("figcaption", caption), legend([one.name for one in series]), picture, class_="chart")


def legend(names: Sequence[str]) -> Html:
    """The names beside their colours."""
    return tag("p", *(tag("span", name, class_=colour(place)) for place, name in enumerate(names)), class_="legend")


def colour(place: int) -> str:
    """The class that gives a series its colour."""
    return f"s{place % 6}"


def _grid(across: Axis, upright: Axis, x_label: str) -> Html:
    parts = []
    for value in upright.ticks(4):
        y = f"{upright.place(value):.1f}"
        parts.append(tag("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", number(value), x=LEFT - 7, y=y, dy="0.35em", text_anchor="end"))
    for value in across.ticks(5):
        x = f"{across.place(value):.1f}"
        shown = number(int(value) if value == int(value) else value)
        parts.append(tag("text", shown, x=x, y=BOTTOM + 18, text_anchor="middle"))
    parts.append(tag("text", x_label, x=(LEFT + RIGHT) / 2, y=HEIGHT - 6, text_anchor="middle"))
    return inside(*parts)


def _curve(place: int, name: str, points: Sequence[Point], across: Axis, upright: Axis) -> Html:
    def at(x: float, y: float) -> str:
        return f"{across.place(x):.1f},{upright.place(y):.1f}"

    parts = []
    ranges = [p for p in points if p.low is not None and p.high is not None and p.low < p.high]
    if ranges:
        bottom = [at(p.x, max(p.low or 0, upright.low)) for p in reversed(ranges)]
        corners = [at(p.x, p.high or 0) for p in ranges] + bottom
        parts.append(tag("path", d=f"M{' L'.join(corners)} Z", class_="range"))
    if len(points) > 1:
        parts.append(tag("polyline", points=" ".join(at(p.x, p.y) for p in points), class_="curve"))
    if len(points) <= _FEW:
        for p in points:
            told = tag("title", f"{name}: {number(p.y)} at {number(p.x)}")
            x, y = at(p.x, p.y).split(",")
            parts.append(tag("circle", told, cx=x, cy=y, r=3))
    return tag("g", *parts, class_=colour(place))
