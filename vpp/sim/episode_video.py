"""Videos of episodes: each encoded by itself where it is recorded, then put one behind another without decoding.

H.264 in MP4, 4:2:0, a keyframe every 10 frames and no B-frames, so that packets stand in the order of the frames and
a reader may begin at any episode. Videos of others that are put together may have B-frames.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import IO

import av
import numpy as np

from schemas.closed_video import MP4, open_closed, video_stream

ENCODER = f"libx264 (pyav {av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))})"
"""Name and version of the encoder: videos of different ones cannot be put into one file."""

_LONGEST_DELAY = 16
"""By how many frames decoding may begin before showing: no H.264 video with B-frames needs more."""

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
        videos: MP4 files of one encoder, size and setting.
        fps: Frames a second.
        handle: File to write to; has to be able to seek.

    Raises:
        ValueError: If they were not encoded alike.
        DataError: If one is no such file.
    """
    frame_s = 1 / Fraction(fps).limit_denominator(1000)
    with av.open(handle, "w", format="mp4") as target:
        stream, first, delay = None, 0, 0
        for video in videos:
            with open_closed(io.BytesIO(video), MP4) as source:
                encoded = video_stream(source)
                packets = [packet for packet in source.demux(encoded) if packet.size]
                if stream is None:
                    stream = target.add_stream_from_template(encoded)
                    stream.time_base = frame_s
                    header = encoded.codec_context.extradata
                    delay = _LONGEST_DELAY if encoded.codec_context.has_b_frames else 0
                places = _places(packets)
                late = max((number - place for number, place in enumerate(places)), default=0)
                if encoded.codec_context.extradata != header or late > delay:
                    raise ValueError("expected videos of one encoder, size and setting")
                for number, (packet, place) in enumerate(zip(packets, places, strict=True)):
                    packet.pts, packet.dts = first + place, first + number - delay
                    packet.time_base, packet.duration, packet.stream = frame_s, 1, stream
                    target.mux(packet)
                first += len(packets)


def _places(packets: Sequence[av.Packet]) -> list[int]:
    """Which frame of the video each packet is, from 0; B-frames stand behind frames that are shown after them."""
    in_order = sorted(range(len(packets)), key=lambda number: packets[number].pts or 0)
    places = [0] * len(packets)
    for place, number in enumerate(in_order):
        places[number] = place
    return places
