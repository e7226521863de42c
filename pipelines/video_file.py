"""Frames of a video file by exact index, streamed from any URL: opened once, decoded in order, seeking only over gaps.

Frame `i` is the `i`-th frame in presentation order. A container that carries an index of its packets (MP4) and whose
packets are evenly spaced allows a seek, because then a time stamp is a frame number; in any other file frames are
counted from the beginning, which is slower for a late start but never wrong.

Decoder: PyAV (FFmpeg), one thread, so that tasks add up to the cores they reserve.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from schemas.closed_video import open_closed, video_stream
from schemas.errors import DataError
from schemas.storage import open_read

DECODER = f"pyav {av.__version__} (libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))})"
"""Name and version of the decoder, for the manifest: another one may pick other frames for a time stamp."""

_SEEK_WORTH_FRAMES = 12  # a seek flushes the decoder: skipping fewer frames costs less when they are decoded


@dataclass(frozen=True)
class VideoInfo:
    """What a video's header says; `num_frames` is 0 where it does not say (WebM)."""

    num_frames: int
    fps: float
    width: int
    height: int
    codec: str


def probe(url: str) -> VideoInfo:
    """Reads a video's header without decoding.

    Raises:
        DataError: `missing_file`, `empty_file` or `not_a_video`.
    """
    with _open_video(url) as (_, stream):
        return VideoInfo(
            num_frames=stream.frames,
            fps=float(stream.average_rate or 0.0),
            width=stream.width,
            height=stream.height,
            codec=stream.codec_context.name,
        )


def count_frames(url: str) -> int:
    """Number of frames: the header's, or the number of packets where the header does not tell.

    Raises:
        DataError: `missing_file`, `empty_file`, `not_a_video` or `decode_error`.
    """
    with _open_video(url) as (container, stream):
        return stream.frames or sum(1 for packet in container.demux(stream) if packet.size)


def read_frames(url: str, indices: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame | DataError]]:
    """Yields each of the frames in order, decoding every frame at most once.

    Args:
        url: The video.
        indices: Strictly increasing frame numbers.

    Yields:
        The frame number and the frame in its native size and pixel format; in the place of a damaged frame a
        `decode_error`.

    Raises:
        DataError: `missing_file`, `empty_file`, `not_a_video`, `frame_out_of_range` (the video ends before a frame), or
            `decode_error` where frames can no longer be counted.
    """
    if not indices:
        return
    with _open_video(url) as (container, stream):
        clock = _FrameClock.of(stream)
        frames = _decode(container, stream, clock, url)
        position = -1  # the number of `frame`
        frame: av.VideoFrame | None = None
        for target in indices:
            if clock and clock.keyframe_before(target) > position + _SEEK_WORTH_FRAMES:
                frames, position = _decode_from(container, stream, clock, target, url), -1
            while position < target:
                following = next(frames, None)
                if following is None:
                    raise DataError("frame_out_of_range", f"expected frame {target}, the video ends before it: {url}")
                position, frame = following
            if position > target or frame is None or frame.is_corrupt:
                yield target, DataError("decode_error", f"frame {target} is damaged in {url}")
            else:
                yield target, frame


@dataclass(frozen=True)
class _FrameClock:
    """Frame numbers of evenly spaced packets, number = (pts - start) / step, and from which a decoder can start."""

    start: int
    step: int
    keyframes: tuple[int, ...]

    @classmethod
    def of(cls, stream: VideoStream) -> _FrameClock | None:
        entries = stream.index_entries
        if len(entries) < 2 or len(entries) != stream.frames or stream.start_time is None:
            return None
        first = entries[0].timestamp
        step = entries[1].timestamp - first
        keyframes = []
        for number, entry in enumerate(entries):
            if step <= 0 or entry.timestamp != first + number * step:
                return None
            if entry.is_keyframe:
                keyframes.append(number)
        return cls(stream.start_time, step, tuple(keyframes))

    def keyframe_before(self, number: int) -> int:
        """The last keyframe, in decoding order, at or before a frame; -1 if there is none."""
        position = bisect_right(self.keyframes, number)
        return self.keyframes[position - 1] if position else -1


def _decode(
    container: InputContainer, stream: VideoStream, clock: _FrameClock | None, url: str
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decodes from where the container stands and numbers the frames, by the clock or by counting from the beginning.

    A packet that cannot be decoded is skipped where a clock tells the numbers of those that follow.
    """
    counted = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError as error:
            if clock is None:
                raise DataError("decode_error", f"{_words(error)} behind frame {counted - 1} of {url}") from error
            continue
        for frame in frames:
            yield (_number(frame, clock, url) if clock else counted), frame
            counted += 1


def _decode_from(
    container: InputContainer, stream: VideoStream, clock: _FrameClock, target: int, url: str
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Seeks to the keyframe from which `target` can be decoded and yields numbered frames from there."""
    keyframe = clock.keyframe_before(target)
    while True:
        container.seek(clock.start + keyframe * clock.step, stream=stream, backward=True)
        frames = _decode(container, stream, clock, url)
        first = next(frames, None)
        if keyframe <= 0 or (first is not None and first[0] <= target):
            break
        keyframe = clock.keyframe_before(keyframe - 1)  # open GOP: frames shown before a keyframe need the one before
    if first is not None:
        yield first
        yield from frames


def _number(frame: av.VideoFrame, clock: _FrameClock, url: str) -> int:
    number = Fraction(frame.pts - clock.start, clock.step) if frame.pts is not None else None
    if number is None or number.denominator != 1:
        raise DataError(
            "irregular_timestamps", f"expected time stamps every {clock.step} ticks, found {frame.pts} in {url}"
        )
    return int(number)


@contextlib.contextmanager
def _open_video(url: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a video; what FFmpeg says against the data becomes a `DataError`, a failing store stays what it is."""
    try:
        with open_read(url) as handle:
            if not handle.read(1):
                raise DataError("empty_file", f"expected a video, found 0 bytes in {url}")
            handle.seek(0)
            try:
                container = open_closed(handle)
            except av.error.FFmpegError as error:
                raise DataError("not_a_video", f"{_words(error)} ({url})") from error
            except DataError as error:
                raise DataError(error.reason, f"{error.detail} in {url}") from error
            with container:
                try:
                    stream = video_stream(container)
                except DataError as error:
                    raise DataError(error.reason, f"{error.detail} in {url}") from error
                try:
                    yield container, stream
                except av.error.FFmpegError as error:
                    raise DataError("decode_error", f"{_words(error)} ({url})") from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError("missing_file", f"expected a video, found no file at {url}") from error


def _words(error: av.error.FFmpegError) -> str:
    return f"FFmpeg: {error.strerror or error}"
