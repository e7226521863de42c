"""Intervals hold what they promise, for few values too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpp.sim.intervals import bounded_mean


@pytest.mark.parametrize("num_values", [4, 50])
@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_the_interval_of_an_average_covers_the_truth_in_94_of_100_cases(num_values: int, rate: float) -> None:
    lengths = np.arange(6)
    probabilities = np.where(lengths < 5, rate**lengths * (1 - rate), rate**5)  # tasks in a row until one fails
    truth = float(lengths @ probabilities)
    random = np.random.default_rng(0)
    intervals = [bounded_mean(random.choice(6, num_values, p=probabilities).tolist(), 5) for _ in range(2000)]
    assert np.mean([low <= truth <= high for low, high in intervals]) >= 0.94


@given(st.lists(st.integers(0, 5), max_size=20))
def test_the_interval_of_an_average_holds_it_and_stays_in_the_range(values: list[int]) -> None:
    low, high = bounded_mean(values, 5)
    assert 0 <= low < high <= 5
    if values:
        assert low <= sum(values) / len(values) <= high
