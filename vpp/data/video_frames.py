"""Decodes clips, or one frame of an episode: MP4 (`schemas.shard`) held in memory, with PyAV and one thread."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from schemas.errors import DataError
from schemas.shard import NUM_FRAMES

_CLOSED = {"format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2", "protocol_whitelist": "none"}
"""Only containers that hold their own frames: a playlist would have FFmpeg read other files or the network."""


def decode_clip(data: bytes | memoryview) -> np.ndarray:
    """Decodes a clip's frames.

    Args:
        data: The MP4 file.

    Returns:
        RGB uint8 `[16, H, W, 3]`.

    Raises:
        DataError: `decode_error`, or `wrong_num_frames`.
    """
    frames = list(_frames(data))
    if len(frames) != NUM_FRAMES:
        raise DataError("wrong_num_frames", f"expected {NUM_FRAMES} frames, found {len(frames)}")
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
        with av.open(io.BytesIO(data), "r", options=_CLOSED) as container:
            if not container.streams.video:
                raise DataError("decode_error", "expected a video stream, found none")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # the caller's threads add up to the cores they were given
            yield container, stream
    except av.error.FFmpegError as error:
        raise DataError("decode_error", f"FFmpeg: {error.strerror or error}") from error
