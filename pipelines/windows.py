"""Which 16 frames make a clip: the whole episode, a sliding window, or one language segment. Pure functions.

Ranges are half-open in frames of the episode. The modes and their defaults follow arXiv 2412.14803 and its code:
internet and Open-X episodes are sampled evenly as a whole and dropped above 100 frames, robot data of one's own is
windowed with stride 2 every 2 frames, the index clamped at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from schemas.episode import Episode, LeftOut, Segment
from schemas.shard import NUM_FRAMES

WindowMode = Literal["auto", "whole", "sliding", "segment"]


@dataclass(frozen=True)
class WindowSettings:
    """How clips are cut from an episode.

    Attributes:
        mode: `whole` (one clip of the whole episode, evenly sampled), `sliding` (windows inside each captioned
            segment), `segment` (one clip of each captioned segment, evenly sampled), or `auto` (what suits the kind
            of source).
        stride: Frames from one frame of a sliding window to the next.
        hop: Frames from one sliding window to the next.
        at_end: What a sliding window does at the end of its segment: `clamp` repeats the last frame, `drop` leaves
            the window out.
        min_frames: Shorter episodes (`whole`) or segments are filtered.
        max_frames: Longer episodes are filtered in mode `whole`; 0 for no limit.
    """

    mode: WindowMode = "auto"
    stride: int = 2
    hop: int = 2
    at_end: Literal["clamp", "drop"] = "clamp"
    min_frames: int = 2
    max_frames: int = 100

    def __post_init__(self) -> None:
        for name in ("stride", "hop", "min_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"window.{name}: expected at least 1, found {getattr(self, name)}")
        if self.max_frames < 0:
            raise ValueError(f"window.max_frames: expected 0 (no limit) or more, found {self.max_frames}")


@dataclass(frozen=True)
class Window:
    """The frames of one clip: `indices` has 16 non-decreasing frame numbers in `[start, end)`."""

    start: int
    end: int
    indices: tuple[int, ...]
    caption: str


def evenly(start: int, end: int, num_frames: int = NUM_FRAMES) -> tuple[int, ...]:
    """`num_frames` frame numbers spread evenly over `[start, end)`, first and last included.

    >>> evenly(0, 31, 4)
    (0, 10, 20, 30)
    >>> evenly(5, 7, 4)
    (5, 5, 6, 6)
    """
    last = end - start - 1
    steps = num_frames - 1
    return tuple(start + (2 * step * last + steps) // (2 * steps) for step in range(num_frames))


def sliding_starts(length: int, settings: WindowSettings) -> range:
    """First frames of the windows in a segment of `length` frames, relative to it.

    With `clamp` a window needs two different frames, with `drop` it has to fit.

    >>> list(sliding_starts(36, WindowSettings(stride=2, hop=2, at_end="drop")))
    [0, 2, 4]
    >>> list(sliding_starts(7, WindowSettings(stride=2, hop=2, at_end="clamp")))
    [0, 2, 4]
    """
    reach = settings.stride * (NUM_FRAMES - 1) if settings.at_end == "drop" else settings.stride
    return range(0, max(0, length - reach), settings.hop)


def windows(episode: Episode, settings: WindowSettings) -> Iterator[Window | LeftOut]:
    """Yields the windows of an episode in order, and a `LeftOut` for each thing that gives none.

    Args:
        episode: The episode with its captioned segments.
        settings: Mode other than `auto`.
    """
    if settings.mode == "whole":
        yield from _whole(episode, settings)
        return
    for segment in episode.segments:
        for window in _inside(episode, segment, settings):
            if isinstance(window, Window) and _touches(window, episode.redacted):
                yield _left_out(
                    episode,
                    "redacted",
                    "the window touches a redacted interval",
                    window.start,
                    window.end,
                    window.caption,
                )
            else:
                yield window


def _whole(episode: Episode, settings: WindowSettings) -> Iterator[Window | LeftOut]:
    length = episode.num_frames
    captions = sorted({segment.caption for segment in episode.segments})
    if not captions:
        return  # the source has said so already, in `left_out`
    if len(captions) > 1:
        detail = (
            f"expected one caption for the episode, found {len(captions)}; window.mode=segment makes a clip of each"
        )
        yield _left_out(episode, "several_captions", detail, 0, length)
    elif settings.max_frames and length > settings.max_frames:
        detail = f"expected at most {settings.max_frames} frames (window.max_frames), found {length}"
        yield _left_out(episode, "too_long", detail, 0, length, captions[0])
    elif length < settings.min_frames:
        yield _too_short(episode, 0, length, captions[0], settings)
    elif _touches(Window(0, length, (), ""), episode.redacted):
        yield _left_out(episode, "redacted", "the episode has a redacted interval", 0, length, captions[0])
    else:
        yield Window(0, length, evenly(0, length), captions[0])


def _inside(episode: Episode, segment: Segment, settings: WindowSettings) -> Iterator[Window | LeftOut]:
    length = segment.end - segment.start
    if length < settings.min_frames:
        yield _too_short(episode, segment.start, segment.end, segment.caption, settings)
    elif settings.mode == "segment":
        yield Window(segment.start, segment.end, evenly(segment.start, segment.end), segment.caption)
    else:
        starts = sliding_starts(length, settings)
        if not starts:
            yield _too_short(episode, segment.start, segment.end, segment.caption, settings)
        for first in starts:
            begin = segment.start + first
            indices = tuple(range(begin, begin + NUM_FRAMES * settings.stride, settings.stride))
            if indices[-1] >= segment.end:  # most windows need no look at each frame
                indices = tuple(min(index, segment.end - 1) for index in indices)
            yield Window(indices[0], indices[-1] + 1, indices, segment.caption)


def _touches(window: Window, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(start < window.end and window.start < end for start, end in ranges)


def _too_short(episode: Episode, start: int, end: int, caption: str, settings: WindowSettings) -> LeftOut:
    needed = settings.min_frames
    if settings.mode == "sliding":
        needed = max(needed, settings.stride * (NUM_FRAMES - 1 if settings.at_end == "drop" else 1) + 1)
    return _left_out(
        episode, "too_short", f"expected at least {needed} frames, found {end - start}", start, end, caption
    )


def _left_out(episode: Episode, reason: str, detail: str, start: int, end: int, caption: str = "") -> LeftOut:
    return LeftOut(
        status="filtered", reason=reason, detail=detail, episode_id=episode.episode_id, caption=caption,
        start=start, end=end, split=episode.split, source_url=episode.source_url,
    )  # fmt: skip
