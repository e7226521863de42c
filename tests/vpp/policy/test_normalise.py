"""Normalised values have the range that was asked for, and come back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vpp.policy.normalise import Kind, make_normaliser

VALUES = arrays(np.float32, st.tuples(st.integers(2, 20), st.just(3)), elements=st.floats(-100, 100, width=32))


@given(VALUES, st.sampled_from(["none", "min_max", "mean_std"]))
def test_values_come_back(values: np.ndarray, kind: Kind) -> None:
    exact = values.astype(np.float64)
    normaliser = make_normaliser(
        kind, mean=exact.mean(0), std=exact.std(0), low=exact.min(0), high=exact.max(0)
    )  # fmt: skip
    tensor = torch.from_numpy(values)
    assert torch.allclose(normaliser.restore(normaliser.normalise(tensor)), tensor, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("kind", ["min_max", "mean_std"])
def test_the_range_is_what_was_asked_for(kind: Kind) -> None:
    values = np.random.default_rng(0).normal(3, 5, (1000, 2))
    values[:, 1] = 7.0
    normaliser = make_normaliser(
        kind, mean=values.mean(0), std=values.std(0), low=values.min(0), high=values.max(0)
    )  # fmt: skip
    normalised = normaliser.normalise(torch.from_numpy(values)).numpy()
    found = (normalised[:, 0].min(), normalised[:, 0].max()) if kind == "min_max" else (
        normalised[:, 0].mean(), normalised[:, 0].std()
    )  # fmt: skip
    assert np.allclose(found, (-1, 1) if kind == "min_max" else (0, 1), atol=1e-5)
    assert np.allclose(normalised[:, 1], 0, atol=1e-6)
