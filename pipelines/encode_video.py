"""Encodes stored frames as H.264 in MP4, the same bytes for the same frames; and decodes such files again."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from schemas.closed_video import MP4, open_closed, video_stream
from schemas.shard import FRAME_SIZE_PX

Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"]

CLIP_FPS = 7
"""Playback rate of clips: the frame rate that SVD is told in training (arXiv 2412.14803, published code)."""


@dataclass(frozen=True)
class VideoSettings:
    """How stored videos are made: their size, and their encoding (libx264).

    Attributes:
        frame_size: Height and width in pixels, a multiple of 64; 256 is what VPP is published for, smaller ones are for
            small models.
        crf: Constant rate factor: 0 lossless, higher is smaller and worse.
        preset: x264's preset: slower ones make smaller files.
        keyframe_every: Frames of an episode from one keyframe to the next; a reader decodes at most so many to reach
            a frame.
    """

    frame_size: int = FRAME_SIZE_PX
    crf: int = 20
    preset: Preset = "superfast"
    keyframe_every: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise ValueError(f"video.crf: expected 0 to 51, found {self.crf}")
        if self.frame_size < 64 or self.frame_size % 64:
            raise ValueError(f"video.frame_size: expected a multiple of 64, found {self.frame_size}")
        if self.keyframe_every < 1:
            raise ValueError(f"video.keyframe_every: expected at least 1, found {self.keyframe_every}")

    @property
    def encoder(self) -> str:
        """Name, version and settings, for the manifest."""
        version = ".".join(map(str, av.library_versions["libavcodec"]))
        return f"libx264 {self.preset} crf{self.crf} (libavcodec {version})"


def encode_video(
    frames: Iterable[av.VideoFrame], settings: VideoSettings, fps: float = CLIP_FPS, keyframe_every: int = 250
) -> bytes:
    """Encodes yuv420p frames, one packet a frame, in order.

    Args:
        frames: At least one frame, all of one size. Consumed one at a time.
        settings: Quality.
        fps: Playback rate.
        keyframe_every: Longest distance between keyframes.

    Returns:
        An MP4 file that is the same for the same frames.
    """
    buffer = io.BytesIO()
    rate = Fraction(fps).limit_denominator(1000)
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.options = {
            "crf": str(settings.crf),
            "preset": settings.preset,
            "threads": "1",
            "g": str(keyframe_every),
            "flags": "+bitexact",
        }
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace = Colorspace.ITU601
        stream.codec_context.color_range = ColorRange.MPEG
        stream.codec_context.time_base = 1 / rate
        for number, frame in enumerate(frames):
            if number == 0:
                stream.width, stream.height = frame.width, frame.height
            frame.pts, frame.time_base, frame.pict_type = number, 1 / rate, av.video.frame.PictureType.NONE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def decode_frames(data: bytes) -> Iterator[np.ndarray]:
    """Yields the frames of a stored video as RGB uint8 `[H, W, 3]`.

    Raises:
        DataError: If it is no such video.
        av.error.FFmpegError: If it is damaged.
    """
    with open_closed(io.BytesIO(data), MP4) as container:
        for frame in container.decode(video_stream(container)):
            yield frame.to_ndarray(format="rgb24")


def decode_video(data: bytes) -> np.ndarray:
    """Decodes a stored video to RGB uint8 `[T, H, W, 3]`."""
    return np.stack(list(decode_frames(data)))
