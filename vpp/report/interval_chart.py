"""Success rates as inline SVG: for each task and evaluation a bar, its 95 % interval, with a mark at the rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vpp.report.axis import Axis
from vpp.report.html import Html, tag
from vpp.report.line_chart import colour, legend

WIDTH, LEFT, RIGHT = 480, 8, 400
_TOP, _HEAD, _LINE, _GAP, _FOOT = 4, 20, 18, 10, 22


@dataclass(frozen=True)
class Rate:
    """How often something was solved, with its interval."""

    k: int
    n: int
    low: float
    high: float


def interval_chart(title: str, names: Sequence[str], rates: Mapping[str, Sequence[Rate | None]]) -> Html:
    """A figure with a title, a legend and the intervals, one below the other, on an axis from 0 to 100 %.

    Args:
        title: Of the figure.
        names: The evaluations.
        rates: By task, for each evaluation; None where it did not run the task.
    """
    across = Axis(0, 1, LEFT, RIGHT)
    y, parts = _TOP, []
    for task, of_task in rates.items():
        parts.append(tag("text", task, x=LEFT, y=y + 14, class_="strong"))
        y += _HEAD
        for place, rate in enumerate(of_task):
            if rate is not None and rate.n:
                parts.append(_interval(across, y + _LINE / 2, f"{names[place]}, {task}", rate, place))
                y += _LINE
        y += _GAP
    grid = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = across.place(value)
        grid.append(tag("line", x1=x, x2=x, y1=_TOP, y2=y, class_="grid"))
        anchor = "start" if value == 0 else "middle"
        grid.append(tag("text", f"{100 * value:.0f} %", x=x, y=y + 16, text_anchor=anchor))
    picture = tag(
        "svg", *grid, *parts, viewBox=f"0 0 {WIDTH} {y + _FOOT}", role="img", aria_label=title,
    )  # fmt: skip
    return tag("figure", tag("figcaption", title), legend(names), picture, class_="chart")


def _interval(across: Axis, y: float, name: str, rate: Rate, place: int) -> Html:
    low, high, at = (across.place(value) for value in (rate.low, rate.high, rate.k / rate.n))
    told = f"{name}: {rate.k} of {rate.n} solved, 95 % interval {100 * rate.low:.0f} to {100 * rate.high:.0f} %"
    return tag(
        "g",
        tag("title", told),
        tag("line", x1=f"{low:.1f}", x2=f"{high:.1f}", y1=y, y2=y, class_="interval"),
        tag("circle", cx=f"{at:.1f}", cy=y, r=5),
        tag("text", f"{rate.k} of {rate.n}", x=RIGHT + 14, y=y, dy="0.35em"),
        class_=colour(place),
    )
