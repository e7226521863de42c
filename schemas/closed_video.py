"""Opens videos that strangers made: a single file that reads no other, of bounded frames, with one thread.

FFmpeg believes what a header says: of a playlist it opens what that names, and it makes room for as many frames, and as
large ones, as a few bytes claim.
"""

from __future__ import annotations

from typing import IO, Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from schemas.episode import MAX_FRAMES
from schemas.errors import DataError
from schemas.mp4_boxes import check_sample_tables

MAX_PIXELS = 1 << 24
"""Of a frame: 4096 x 4096, more than the 5.3K of a camera that one wears."""

ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
"""Keeps `VideoReformatter.reformat` to one thread; before PyAV 17 it had no more, and no such argument."""

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
SINGLE_FILES = f"{MP4},matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,h264,hevc,ivf,obu"
"""Containers that hold their own frames."""


def open_closed(handle: IO[bytes], formats: str = SINGLE_FILES) -> InputContainer:
    """Opens a container that is one of some formats and reads nothing but the file.

    Raises:
        DataError: `too_many_frames` if an MP4's tables claim more samples than it can hold.
        av.error.FFmpegError: If it is no such file.
    """
    check_sample_tables(handle)
    closed = {"format_whitelist": formats, "protocol_whitelist": "none"}
    return av.open(handle, "r", options=closed, metadata_errors="replace")


def video_stream(container: InputContainer) -> VideoStream:
    """The first video stream, ready to be decoded.

    Raises:
        DataError: `not_a_video` if there is none that can be decoded, `too_many_frames` or `too_many_pixels`.
    """
    stream = next(iter(container.streams.video), None)
    if stream is None or stream.codec_context is None:
        raise DataError("not_a_video", "expected a video stream of a known codec, found none")
    if stream.frames > MAX_FRAMES:
        raise DataError("too_many_frames", f"expected at most {MAX_FRAMES} frames, found {stream.frames}")
    if stream.width * stream.height > MAX_PIXELS:
        found = f"found {stream.width} x {stream.height}"
        raise DataError("too_many_pixels", f"expected frames of at most {MAX_PIXELS} pixels, {found}")
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # frames may be larger than the header says
    stream.codec_context.thread_count = 1  # the caller's tasks add up to the cores they were given
    return stream
