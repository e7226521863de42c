"""What `ego4d.json` says of a video file: which stretch of its video it shows, and what of that is redacted.

Annotations speak of the canonical video. A file of `full_scale/` or `video_540ss/` shows all of it, a file of `clips/`
a part. Seconds hold for all of them, and become frames with the file's own rate. The annotations' frame numbers are not
used: they count the canonical video's frames, and some contradict the seconds beside them (showlab/EgoVLP, issue 7).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from schemas.errors import DataError
from schemas.storage import join_inside

_UID = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_S = 1e7  # four months: anything beyond is no time stamp, and would not fit the manifest's frame numbers


@dataclass(frozen=True)
class Footage:
    """One video file.

    Attributes:
        uid: Of the video or the clip; the file's name without `.mp4`.
        url: The file.
        num_frames: Number of its frames.
        fps: Its frames per second.
        split: `train`, `val`, ... of the first benchmark that has one (FHO, episodic memory, audio-visual); or empty.
        start_s: Second of the canonical video at which it begins.
        redacted_s: Redacted ranges `(start, end)` in seconds of the canonical video.
    """

    uid: str
    url: str
    num_frames: int
    fps: float
    split: str
    start_s: float
    redacted_s: tuple[tuple[float, float], ...]

    @property
    def end_s(self) -> float:
        """Second of the canonical video at which it ends."""
        return self.start_s + self.num_frames / self.fps

    @property
    def redacted(self) -> tuple[tuple[int, int], ...]:
        """Frames `[start, end)` that are redacted, as far as it shows them; a frame touched is redacted."""
        ranges = ((self._frame(start_s), self._frame(end_s)) for start_s, end_s in self.redacted_s)
        clamped = ((max(0, math.floor(first)), min(self.num_frames, math.ceil(last))) for first, last in ranges)
        return tuple((first, last) for first, last in clamped if first < last)

    def shows(self, moment_s: float) -> bool:
        """Whether it has a frame of that second of the canonical video."""
        return 0 <= self._frame(moment_s) < self.num_frames

    def frames(self, start_s: float, end_s: float) -> tuple[int, int]:
        """Frames `[start, end)` nearest to seconds of the canonical video, clamped to the file."""
        start, end = (min(max(0, round(self._frame(moment_s))), self.num_frames) for moment_s in (start_s, end_s))
        return start, max(start, end)

    def _frame(self, moment_s: float) -> float:
        return (moment_s - self.start_s) * self.fps


def video_footage(entry: dict[str, Any], folder: str) -> Footage:
    """Reads an entry of `videos` in `ego4d.json`; `folder` is where the files lie.

    Raises:
        DataError: `bad_annotation` if a needed field is missing or wrong, `bad_uid` if the uid is no plain name.
    """
    uid = plain_uid(entry.get("video_uid"))
    metadata = table(entry, "video_metadata")
    ranges = [(seconds(each, "start_sec"), seconds(each, "end_sec")) for each in rows(entry, "redacted_intervals")]
    ranges += [
        (seconds(each, "canonical_video_start_sec"), seconds(each, "canonical_video_end_sec"))
        for each in rows(entry, "video_components")
        if each.get("redacted")
    ]
    splits = [str(entry[name]) for name in ("split_fho", "split_em", "split_av") if entry.get(name)]
    return Footage(
        uid=uid,
        url=join_inside(folder, f"{uid}.mp4"),
        num_frames=_num_frames(metadata),
        fps=_fps(metadata),
        split=splits[0] if splits else "",
        start_s=0.0,
        redacted_s=tuple(sorted(set(ranges))),
    )


def clip_footage(entry: dict[str, Any], video: Footage, folder: str) -> Footage:
    """Reads an entry of `clips` in `ego4d.json`; `video` is the one it is cut from.

    Raises:
        DataError: As `video_footage`.
    """
    uid = plain_uid(entry.get("clip_uid"))
    metadata = table(entry, "clip_metadata")
    start_s = seconds(entry, "video_start_sec")
    url = join_inside(folder, f"{uid}.mp4")
    return Footage(uid, url, _num_frames(metadata), _fps(metadata), video.split, start_s, video.redacted_s)


def plain_uid(value: Any) -> str:
    """A uid that may become a file name.

    Raises:
        DataError: `bad_uid` if it holds anything but letters, digits, `-` and `_`.
    """
    if not isinstance(value, str) or not _UID.fullmatch(value):
        raise DataError("bad_uid", f"expected a uid of letters, digits, - and _, found {value!r:.100}")
    return value


def table(holder: dict[str, Any], name: str) -> dict[str, Any]:
    """The JSON object at `name`; empty where there is none.

    Raises:
        DataError: `bad_annotation` if there is something else.
    """
    value = holder.get(name)
    if value is not None and not isinstance(value, dict):
        raise DataError("bad_annotation", f"expected an object as {name}, found {value!r:.100}")
    return value or {}


def rows(holder: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The JSON objects in the list at `name`; empty where there is none.

    Raises:
        DataError: `bad_annotation` if there is something else.
    """
    value = holder.get(name)
    if value is not None and not (isinstance(value, list) and all(isinstance(each, dict) for each in value)):
        raise DataError("bad_annotation", f"expected a list of objects as {name}, found {value!r:.100}")
    return value or []


def seconds(holder: dict[str, Any], name: str) -> float:
    """The number of seconds at `name`.

    Raises:
        DataError: `bad_annotation` if there is none.
    """
    value = holder.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _LONGEST_S:
        raise DataError("bad_annotation", f"expected seconds as {name}, found {value!r:.100}")
    return float(value)


def _num_frames(metadata: dict[str, Any]) -> int:
    value = metadata.get("num_frames")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 31:
        raise DataError("bad_annotation", f"expected a number of frames as num_frames, found {value!r:.100}")
    return value


def _fps(metadata: dict[str, Any]) -> float:
    value = metadata.get("fps")
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1000:
        raise DataError("bad_annotation", f"expected frames per second as fps, found {value!r:.100}")
    return float(value)
