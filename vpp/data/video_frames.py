"""Decodes a stored clip: an MP4 of 16 frames (`schemas.shard`), held in memory, with PyAV and one thread."""

from __future__ import annotations

import io

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
    frames: list[np.ndarray] = []
    try:
        with av.open(io.BytesIO(data), "r", options=_CLOSED) as container:
            if not container.streams.video:
                raise DataError("decode_error", "expected a video stream, found none")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # the caller's threads add up to the cores they were given
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise DataError("decode_error", f"frame {len(frames)} is damaged")
                frames.append(frame.to_ndarray(format="rgb24"))
    except av.error.FFmpegError as error:
        raise DataError("decode_error", f"FFmpeg: {error.strerror or error}") from error
    if len(frames) != NUM_FRAMES:
        raise DataError("wrong_num_frames", f"expected {NUM_FRAMES} frames, found {len(frames)}")
    return np.stack(frames)
