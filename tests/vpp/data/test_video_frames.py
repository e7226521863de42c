"""One frame of an episode is the one that decoding all of it shows, at any rate and distance of keyframes."""

from __future__ import annotations

import av
import numpy as np
import pytest
from videos import numbered_frame, read_number

from pipelines.encode_video import VideoSettings, decode_video, encode_video
from schemas.errors import DataError
from vpp.data.video_frames import decode_frame


def video(num_frames: int, fps: float, keyframe_every: int) -> bytes:
    frames = (av.VideoFrame.from_ndarray(numbered_frame(n, 64, 48), format="rgb24") for n in range(num_frames))
    return encode_video((frame.reformat(format="yuv420p") for frame in frames), VideoSettings(), fps, keyframe_every)


@pytest.mark.parametrize("fps", [0.01, 0.3, 1, 10 / 3, 7, 9.99, 12.5, 14.985, 23.976, 29.97, 30, 59.94, 80, 1000])
def test_each_frame_is_that_of_the_whole_video(fps: float) -> None:
    for num_frames, keyframe_every in ((1, 10), (2, 10), (3, 1), (27, 10), (41, 250)):
        data = video(num_frames, fps, keyframe_every)
        whole = decode_video(data)
        assert len(whole) == num_frames
        for number in range(num_frames):
            frame = decode_frame(data, number)
            assert read_number(frame) == number
            np.testing.assert_array_equal(frame, whole[number])


def test_a_frame_behind_the_end_and_what_is_no_video_are_told() -> None:
    data = video(5, 30, 10)
    for wrong, number, reason in ((data, 5, "wrong_num_frames"), (data[:200], 1, "decode_error")):
        with pytest.raises(DataError) as raised:
            decode_frame(wrong, number)
        assert raised.value.reason == reason
