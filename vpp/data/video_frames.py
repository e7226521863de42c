"""Decodes a stored clip: an MP4 of 16 frames (`schemas.shard`), held in memory, with PyAV and one thread."""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
import av.error
import numpy as np

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


def _frames(data: bytes | memoryview) -> Iterator[np.ndarray]:
    num_decoded = 0
    try:
        with av.open(io.BytesIO(data), "r", options=_CLOSED) as container:
            if not container.streams.video:
                raise DataError("decode_error", "expected a video stream, found none")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # the caller's threads add up to the cores they were given
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise DataError("decode_error", f"frame {num_decoded} is damaged")
                yield frame.to_ndarray(format="rgb24")
                num_decoded += 1
    except av.error.FFmpegError as error:
        raise DataError("decode_error", f"FFmpeg: {error.strerror or error}") from error
