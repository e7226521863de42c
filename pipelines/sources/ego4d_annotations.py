"""Ego4D's annotations as captioned windows: pure functions from the JSON of one video to segments and what is left out.

A narration is a point in time; its window is centred on it and as wide as the mean gap between narrations of that
video (after EgoVLP, arXiv 2206.01670, section 3.1) or a fixed number of seconds. Time stamps are converted with the
video's own frame rate, since the frame numbers in the annotations count canonical 30 fps frames whatever the file has.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pipelines.captions import clean_narration, is_of_other_person, is_unsure
from schemas.episode import LeftOut, Segment
from schemas.errors import DataError

DEFAULT_GAP_S = 4.9
"""Mean gap between narrations over Ego4D (EgoVLP); for a video with a single one."""


@dataclass(frozen=True)
class VideoFacts:
    """What `ego4d.json` says of a video."""

    uid: str
    num_frames: int
    fps: float
    split: str
    redacted: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Reading:
    """Which annotations to take.

    Attributes:
        passes: Annotators' passes whose narrations and summaries count.
        window_s: Seconds around a narration; 0 for the video's mean gap.
        keep_others: Whether what another person than the camera wearer does counts.
    """

    passes: tuple[str, ...] = ("narration_pass_1", "narration_pass_2")
    window_s: float = 0.0
    keep_others: bool = True


def video_facts(entry: dict[str, Any]) -> VideoFacts:
    """Reads an entry of `ego4d.json`.

    Raises:
        DataError: `bad_annotation` if a needed field is missing.
    """
    try:
        metadata = entry["video_metadata"]
        fps = float(metadata["fps"])
        num_frames = int(metadata["num_frames"])
        intervals = [(float(i["start_sec"]), float(i["end_sec"])) for i in entry.get("redacted_intervals") or []]
        redacted = tuple((int(start * fps), min(num_frames, math.ceil(end * fps))) for start, end in intervals)
        splits = [str(entry[name]) for name in ("split_fho", "split_em", "split_av") if entry.get(name)]
        return VideoFacts(str(entry["video_uid"]), num_frames, fps, splits[0] if splits else "", redacted)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            "bad_annotation", f"expected video_uid and video_metadata, found {error!r} in ego4d.json"
        ) from error


def narration_segments(video: VideoFacts, annotation: dict[str, Any], reading: Reading) -> Iterator[Segment | LeftOut]:
    """Windows around the narrations of the wanted passes, and a row for each narration that is left out."""
    passes = [annotation.get(name) or {} for name in reading.passes]
    told = [sorted(entries.get("narrations") or [], key=lambda n: float(n["timestamp_sec"])) for entries in passes]
    width_s = reading.window_s or mean_gap_s([[float(n["timestamp_sec"]) for n in narrations] for narrations in told])
    seen = set()
    for narration in (narration for narrations in told for narration in narrations):
        time_s, text = float(narration["timestamp_sec"]), str(narration["narration_text"])
        start, end = time_s - width_s / 2, time_s + width_s / 2
        if (time_s, text) in seen:
            yield _left_out(video, "duplicate_narration", f"told twice at {time_s:.2f} s", text, start, end)
            continue
        seen.add((time_s, text))
        if time_s < 0 or time_s * video.fps >= video.num_frames:
            expected = f"expected a time inside {video.num_frames} frames at {video.fps:g} fps"
            yield _left_out(video, "outside_video", f"{expected}, found {time_s:.2f} s", text, start, end)
        else:
            yield _segment(video, text, start, end, reading)


def summary_segments(video: VideoFacts, annotation: dict[str, Any], reading: Reading) -> Iterator[Segment | LeftOut]:
    """The ranges that the summaries of the wanted passes tell."""
    for name in reading.passes:
        for summary in (annotation.get(name) or {}).get("summaries") or []:
            start, end = float(summary["start_sec"]), float(summary["end_sec"])
            yield _segment(video, str(summary["summary_text"]), start, end, reading)


def action_segments(video: VideoFacts, annotation: dict[str, Any], reading: Reading) -> Iterator[Segment | LeftOut]:
    """The narrated actions of `fho_main.json` that annotators accepted."""
    for interval in annotation.get("annotated_intervals") or []:
        if interval.get("redacted"):
            start, end = float(interval["start_sec"]), float(interval["end_sec"])
            yield _left_out(video, "redacted", "the annotated interval is redacted", "", start, end)
            continue
        for action in interval.get("narrated_actions") or []:
            text, start, end = str(action["narration_text"]), float(action["start_sec"]), float(action["end_sec"])
            if action.get("is_rejected"):
                detail = f"rejected by the annotator: {action.get('reject_reason')}"
                yield _left_out(video, "rejected_annotation", detail, text, start, end)
            elif action.get("is_invalid_annotation") or not action.get("is_valid_action", True):
                yield _left_out(video, "invalid_action", "marked as no valid action", text, start, end)
            else:
                yield _segment(video, text, start, end, reading)


def mean_gap_s(passes: list[list[float]]) -> float:
    """Mean seconds between neighbouring narrations within each pass.

    >>> mean_gap_s([[0.0, 2.0, 6.0], [1.0, 4.0]])
    3.0
    """
    gaps = [later - earlier for times in passes for earlier, later in pairwise(times)]
    return sum(gaps) / len(gaps) if gaps and sum(gaps) > 0 else DEFAULT_GAP_S


def _segment(video: VideoFacts, text: str, start_s: float, end_s: float, reading: Reading) -> Segment | LeftOut:
    if is_unsure(text):
        return _left_out(video, "unsure_narration", "the narrator was unsure", text, start_s, end_s)
    if is_of_other_person(text) and not reading.keep_others:
        return _left_out(video, "other_person", "tells what another person does", text, start_s, end_s)
    start, end = _frames(video, start_s, end_s)
    if end <= start:
        return _left_out(
            video, "outside_video", f"nothing of {start_s:.2f} to {end_s:.2f} s is in the video", text, start_s, end_s
        )
    if any(first < end and start < last for first, last in video.redacted):
        return _left_out(video, "redacted", "the window touches a redacted interval", text, start_s, end_s)
    return Segment(start, end, clean_narration(text))


def _frames(video: VideoFacts, start_s: float, end_s: float) -> tuple[int, int]:
    return max(0, round(start_s * video.fps)), min(video.num_frames, round(end_s * video.fps))


def _left_out(video: VideoFacts, reason: str, detail: str, text: str, start_s: float, end_s: float) -> LeftOut:
    start, end = _frames(video, start_s, end_s)
    return LeftOut("filtered", reason, detail, video.uid, clean_narration(text), start, max(start, end), video.split)
