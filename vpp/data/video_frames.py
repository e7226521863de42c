"""Decodes clips, or one frame of an episode: MP4 (`schemas.shard`) held in memory, with PyAV and one thread."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from schemas.closed_video import MP4, open_closed, video_stream
from schemas.errors import DataError
from schemas.shard import NUM_FRAMES


def decode_clip(data: bytes | memoryview) -> np.ndarray:
    """Decodes a clip's frames.

    Args:
        data: The MP4 file.

    Returns:
        RGB uint8 `[16, H, W, 3]`.

    Raises:
        DataError: `decode_error`, or `wrong_num_frames`.
    """
    frames = list(islice(_frames(data), NUM_FRAMES + 1))
    if len(frames) != NUM_FRAMES:
        raise DataError(
            "wrong_num_frames",
            f"expected {NUM_FRAMES} frames, found {len(frames)}{' or more' * (len(frames) > NUM_FRAMES)}",
        )
    return np.stack(frames)


def decode_first_frame(data: bytes | memoryview) -> np.ndarray:
    """Decodes a clip's first frame alone.

    Args:
        data: The MP4 file.

    Returns:
        RGB uint8 `[H, W, 3]`.

    Raises:
        DataError: `decode_error`, or `wrong_num_frames`.
    """
    for frame in _frames(data):
        return frame
    raise DataError("wrong_num_frames", f"expected {NUM_FRAMES} frames, found 0")


def decode_frame(data: bytes | memoryview, number: int) -> np.ndarray:
    """Decodes one frame of an episode, from the keyframe before it on.

    Args:
        data: The MP4 file; its frames are evenly spaced in time, as `jobs/preprocess.py` writes them.
        number: Of the frame, from 0 on.

    Returns:
        RGB uint8 `[H, W, 3]`.

    Raises:
        DataError: `decode_error`, or `wrong_num_frames` if the video ends before.
    """
    with _video(data) as (container, stream):
        if stream.frames <= number or not stream.average_rate or not stream.time_base:
            raise DataError("wrong_num_frames", f"expected frame {number}, found {stream.frames} frames")
        time = round(number / (stream.average_rate * stream.time_base))
        container.seek(time, stream=stream)
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise DataError("decode_error", f"a frame before {number} is damaged")
            if frame.pts == time:
                return frame.to_ndarray(format="rgb24")
    raise DataError("decode_error", f"expected frame {number}, found none at its time")


def _frames(data: bytes | memoryview) -> Iterator[np.ndarray]:
    num_decoded = 0
    with _video(data) as (container, stream):
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise DataError("decode_error", f"frame {num_decoded} is damaged")
            yield frame.to_ndarray(format="rgb24")
            num_decoded += 1


@contextmanager
def _video(data: bytes | memoryview) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        with open_closed(io.BytesIO(data), MP4) as container:
            yield container, video_stream(container)
    except av.error.FFmpegError as error:
        raise DataError("decode_error", f"FFmpeg: {error.strerror or error}") from error
