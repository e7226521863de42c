"""A simulator's pictures are resized as those of a data set are before they are encoded."""

from __future__ import annotations

import av
import numpy as np
import pytest

from pipelines.frames import FrameResizer
from vpp.sim.stored_picture import StoredPicture


@pytest.mark.parametrize("size_px", [84, 200, 256, 300])
def test_a_rendered_picture_is_what_preprocessing_would_store_before_the_codec(size_px: int) -> None:
    picture = np.random.default_rng(size_px).integers(0, 256, (size_px, size_px, 3), np.uint8)
    frame = FrameResizer()(av.VideoFrame.from_ndarray(picture, format="rgb24"))
    np.testing.assert_array_equal(StoredPicture()(picture), frame.to_ndarray(format="rgb24"))
