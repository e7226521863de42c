"""Actions and proprioception over an episode as lines: a few dimensions a chart, long episodes as means with ranges."""

from __future__ import annotations

import math

import numpy as np

from schemas.errors import DataError
from vpp.data.npy_view import npy_view
from vpp.report.html import Html, inside, tag
from vpp.report.line_chart import Point, Series, line_chart

_POINTS = 600
_LINES = 6  # as many as there are colours
_MOST_DIMENSIONS = 96


def action_plots(title: str, content: bytes) -> Html:
    """Charts of an array over frames.

    Args:
        title: What it holds.
        content: An `.npy` file of numbers `[T, D]`.

    Raises:
        DataError: `corrupt_array` if it is something else.
    """
    values = npy_view(memoryview(content))
    if values.ndim != 2 or values.dtype.kind not in "fiub":
        found = f"found {values.dtype} {list(values.shape)}"
        raise DataError("corrupt_array", f"{title}: expected numbers [T, D], {found}")
    if not values.size:
        return no_plot(title)
    num_shown = min(values.shape[1], _MOST_DIMENSIONS)
    num_charts = math.ceil(num_shown / _LINES)
    charts = []
    for group in np.array_split(np.arange(num_shown), num_charts):
        name = title if num_charts == 1 else f"{title}, {group[0]} to {group[-1]}"
        series = [Series(str(number), points(values[:, number])) for number in group]
        charts.append(line_chart(name, series, "frame"))
    left = values.shape[1] - num_shown
    return inside(*charts, tag("p", f"{left} more dimensions are not drawn.", class_="faint") if left else Html())


def no_plot(title: str) -> Html:
    """What stands in the place of charts where there are no numbers."""
    return tag("p", f"{title}: none.", class_="missing")


def points(values: np.ndarray) -> list[Point]:
    """A dimension over frames as a curve of at most 600 points; of more frames each is a mean with its range.

    >>> points(np.array([1.0, 3.0]))
    [Point(x=0, y=1.0, low=None, high=None), Point(x=1, y=3.0, low=None, high=None)]
    """
    exact = values.astype(np.float64)
    size = math.ceil(len(exact) / _POINTS)
    if size == 1:
        return [Point(frame, value) for frame, value in enumerate(exact.tolist())]
    starts = np.arange(0, len(exact), size)
    counts = np.diff(np.append(starts, len(exact)))
    means = (np.add.reduceat(exact, starts) / counts).tolist()
    lows, highs = (of.reduceat(exact, starts).tolist() for of in (np.minimum, np.maximum))
    return [
        Point(float(start + (count - 1) / 2), mean, low, high)
        for start, count, mean, low, high in zip(starts, counts, means, lows, highs, strict=True)
    ]
