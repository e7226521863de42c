"""Long episodes become few points that keep their extremes; what is no array of numbers over frames is refused."""

from __future__ import annotations

import numpy as np
import pytest
from video_dataset import npy

from schemas.errors import DataError
from vpp.browse.action_plot import action_plots, points


def test_many_frames_become_means_that_keep_the_extremes() -> None:
    values = np.zeros(100_001, np.float32)
    values[50_000] = 9
    found = points(values)
    assert len(found) <= 600
    assert max(point.high or 0 for point in found) == 9
    assert sum(point.y for point in found) < 9
    assert found[-1].x <= 100_000


@pytest.mark.parametrize(("num_dimensions", "num_charts"), [(1, 1), (6, 1), (7, 2), (14, 3), (500, 16)])
def test_a_chart_holds_no_more_lines_than_there_are_colours(num_dimensions: int, num_charts: int) -> None:
    told = action_plots("Actions", npy(np.ones((5, num_dimensions), np.float32)))
    assert told.count("<svg") == num_charts
    assert ("not drawn" in told) == (num_dimensions == 500)


def test_values_that_are_no_numbers_are_left_out() -> None:
    told = action_plots("Actions", npy(np.full((700, 2), np.nan)))
    assert "nothing was logged" in told


@pytest.mark.parametrize("array", [np.ones(4), np.ones((2, 2, 2)), np.ones((2, 2), complex), np.array([["a"]])])
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(DataError, match="corrupt_array"):
        action_plots("Actions", npy(array))


def test_no_frames_are_told() -> None:
    assert "none" in action_plots("Actions", npy(np.ones((0, 4))))
