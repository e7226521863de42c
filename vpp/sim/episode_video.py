"""Videos of episodes: each encoded by itself where it is recorded, then put one behind another without decoding.

H.264 in MP4, 4:2:0, a keyframe every 10 frames and no B-frames, so that packets stand in the order of the frames and
a reader may begin at any episode.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction
from typing import IO

import av
import numpy as np

ENCODER = f"libx264 (pyav {av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))})"
"""Name and version of the encoder: videos of different ones cannot be put into one file."""

_OPTIONS = {"preset": "superfast", "crf": "18", "g": "10", "bf": "0", "threads": "1"}


class EpisodeVideo:
    """Encodes pictures as they come.

    Args:
        fps: Pictures a second.
    """

    def __init__(self, fps: float) -> None:
        self._rate = Fraction(fps).limit_denominator(1000)
        self._buffer = io.BytesIO()
        self._container = av.open(self._buffer, "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=self._rate)
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = dict(_OPTIONS)
        self._num_frames = 0

    def add(self, picture: np.ndarray) -> None:
        """Adds a picture uint8 `[H, W, 3]`, of even height and width, the same for all."""
        if not self._num_frames:
            self._stream.height, self._stream.width = picture.shape[:2]
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = self._num_frames, 1 / self._rate
        self._container.mux(self._stream.encode(frame))
        self._num_frames += 1

    def finish(self) -> bytes:
        """Returns the MP4."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._buffer.getvalue()


def concatenate(videos: Iterable[bytes], fps: float, handle: IO[bytes]) -> None:
    """Writes the packets of several videos one behind another as one MP4, frames evenly spaced.

    Args:
        videos: MP4 files of `EpisodeVideo`.
        fps: Frames a second.
        handle: File to write to; has to be able to seek.

    Raises:
        ValueError: If they were not encoded alike.
    """
    frame_s = 1 / Fraction(fps).limit_denominator(1000)
    with av.open(handle, "w", format="mp4") as target:
        stream, number = None, 0
        for video in videos:
            with av.open(io.BytesIO(video), "r") as source:
                encoded = source.streams.video[0]
                if stream is None:
                    stream = target.add_stream_from_template(encoded)
                    stream.time_base = frame_s
                    header = encoded.codec_context.extradata
                if encoded.codec_context.extradata != header:
                    raise ValueError("expected videos of one encoder, size and setting")
                for packet in source.demux(encoded):
                    if packet.size:
                        packet.pts = packet.dts = number
                        packet.time_base, packet.duration, packet.stream = frame_s, 1, stream
                        target.mux(packet)
                        number += 1
