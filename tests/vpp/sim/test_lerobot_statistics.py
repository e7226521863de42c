"""Statistics of pieces, merged, are those of the whole."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vpp.sim.lerobot_statistics import PictureStatistics, Statistics

ROWS = st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1.0, 1.0)), min_size=1, max_size=20)


@given(st.lists(ROWS, min_size=1, max_size=5))
def test_merged_pieces_equal_the_whole(pieces: list[list[tuple[float, float]]]) -> None:
    merged = Statistics.of_rows(np.array(pieces[0]))
    for piece in pieces[1:]:
        merged = merged.merged(Statistics.of_rows(np.array(piece)))
    everything = np.array([row for piece in pieces for row in piece])
    np.testing.assert_array_equal(merged.min, everything.min(0))
    np.testing.assert_array_equal(merged.max, everything.max(0))
    np.testing.assert_allclose(merged.mean, everything.mean(0), atol=1e-9)
    np.testing.assert_allclose(merged.std, everything.std(0), atol=1e-6)
    assert merged.count == len(everything)


def test_json_keeps_them() -> None:
    found = Statistics.of_rows(np.random.default_rng(0).normal(size=(7, 3)))
    for picture in (False, True):
        again = Statistics.from_json(json.loads(json.dumps(found.to_json(picture))))
        np.testing.assert_array_equal(again.std, found.std)
        assert again.count == 7
    assert np.shape(found.to_json(picture=True)["mean"]) == (3, 1, 1)


def test_pictures_are_summarised_by_colour_between_0_and_1() -> None:
    collected = PictureStatistics()
    for number in range(25):
        picture = np.zeros((16, 16, 3), np.uint8)
        picture[:, :, 1] = 255
        picture[:8, :, 2] = 255 if number == 10 else 0  # half of one of the three pictures that are looked at
        collected.add(picture)
    found = collected.finish()
    np.testing.assert_allclose(found.mean, [0, 1, 1 / 6])
    np.testing.assert_allclose((found.min, found.max), ([0, 1, 0], [0, 1, 1]))
    assert found.count == 3
