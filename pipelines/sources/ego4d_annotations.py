"""Ego4D's annotations as captioned windows: pure functions from the JSON of a video to segments and what is left out.

A narration is a moment; its window is centred on it. EgoVLP (arXiv 2206.01670, equation 1) makes it `beta / alpha`
wide: `beta` is the video's mean gap between consecutive narrations, `alpha` the mean of all `beta`, 4.9 s, so that
windows have 1 s on average. `egovlp` takes that width. `mean` takes `beta` itself: windows of that width tile the video
as its narrations do, and leave the 16 frames of a clip something to move in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from pipelines.captions import clean_caption, clean_narration, is_of_other_person, is_unsure
from pipelines.sources.ego4d_footage import Footage, rows, seconds, table
from schemas.episode import LeftOut, Segment
from schemas.errors import DataError

ALPHA_S = 4.9
"""EgoVLP's `alpha`: mean gap between narrations over Ego4D; also the gap of a video with a single narration."""


@dataclass(frozen=True)
class Reading:
    """Which annotations to take.

    Attributes:
        passes: Annotators' passes whose narrations and summaries count.
        window_s: Seconds around a narration, or the rule that gives them.
        min_window_s: Seconds to which a narrower window is widened where a rule gives it.
        keep_others: Whether what another person than the camera wearer does counts.
    """

    passes: tuple[str, ...] = ("narration_pass_1", "narration_pass_2")
    window_s: Literal["mean", "egovlp"] | float = "mean"
    min_window_s: float = 0.5
    keep_others: bool = True


@dataclass(frozen=True)
class Told:
    """What an annotator tells of a stretch of the canonical video.

    Attributes:
        text: As it was written, with tags.
        start_s: Where it begins.
        end_s: Where it ends.
        moment_s: The moment of a narration, the middle of a range: the footage that shows it is the one it belongs to.
        is_moment: Whether it is a narration.
        left_out: Status, reason and detail where an annotation excludes it; None where it is sound.
    """

    text: str
    start_s: float
    end_s: float
    moment_s: float
    is_moment: bool = False
    left_out: tuple[Literal["rejected", "filtered"], str, str] | None = None


def narrations(annotation: dict[str, Any], video: Footage, reading: Reading) -> Iterator[Told]:
    """The narrations of an entry of `narration.json`: by pass, time (the file has them in any order) and text.

    Raises:
        DataError: `bad_annotation` if the entry is malformed as a whole.
    """
    moments: list[list[tuple[float, str]]] = []
    for name in reading.passes:
        moments.append([])
        for entry in rows(table(annotation, name), "narrations"):
            try:
                moments[-1].append((seconds(entry, "timestamp_sec"), _text(entry, "narration_text")))
            except DataError as error:
                yield _malformed(error)
    gap_s = mean_gap_s([[time_s for time_s, _ in sorted(of_pass) if video.shows(time_s)] for of_pass in moments])
    half_s = window_width_s(gap_s, reading) / 2
    for of_pass in moments:
        for time_s, text in sorted(of_pass):
            yield Told(text, time_s - half_s, time_s + half_s, time_s, is_moment=True)


def summaries(annotation: dict[str, Any], video: Footage, reading: Reading) -> Iterator[Told]:
    """The ranges that the summaries of an entry of `narration.json` tell.

    Raises:
        DataError: `bad_annotation` if the entry is malformed as a whole.
    """
    for name in reading.passes:
        for entry in rows(table(annotation, name), "summaries"):
            yield _range(entry, "summary_text")


def actions(annotation: dict[str, Any], video: Footage, reading: Reading) -> Iterator[Told]:
    """The narrated actions of a video in `fho_main.json`.

    Raises:
        DataError: `bad_annotation` if the video's entry is malformed as a whole.
    """
    for interval in rows(annotation, "annotated_intervals"):
        if interval.get("redacted"):
            yield _range(interval, None, ("filtered", "redacted", "the annotated interval is redacted"))
            continue
        for action in rows(interval, "narrated_actions"):
            if action.get("is_rejected"):
                detail = f"rejected by the annotator: {action.get('reject_reason')!r:.100}"
                yield _range(action, "narration_text", ("filtered", "rejected_annotation", detail))
            elif action.get("is_invalid_annotation") or action.get("is_valid_action") is False:
                yield _range(action, "narration_text", ("filtered", "invalid_action", "marked as no valid action"))
            else:
                yield _range(action, "narration_text")


TELLERS: dict[str, Callable[[dict[str, Any], Footage, Reading], Iterator[Told]]] = {
    "narrations": narrations,
    "summaries": summaries,
    "fho": actions,
}
"""What can be read, by the name of the option `annotations`."""


def mean_gap_s(passes: list[list[float]]) -> float:
    """Mean seconds between consecutive narrations within each pass; `ALPHA_S` where there is no gap to measure.

    >>> mean_gap_s([[0.0, 2.0, 6.0], [1.0, 4.0]])
    3.0
    """
    gaps = [later - earlier for times in passes for earlier, later in pairwise(times)]
    return sum(gaps) / len(gaps) if any(gaps) else ALPHA_S


def window_width_s(gap_s: float, reading: Reading) -> float:
    """Width of the windows of a video whose narrations are `gap_s` seconds apart.

    >>> window_width_s(9.8, Reading(window_s="mean")), window_width_s(9.8, Reading(window_s="egovlp"))
    (9.8, 2.0)
    """
    if not isinstance(reading.window_s, str):
        return reading.window_s
    return max(reading.min_window_s, gap_s if reading.window_s == "mean" else gap_s / ALPHA_S)


def segments_of(
    footages: list[Footage], told: Iterable[Told], reading: Reading
) -> list[tuple[Footage, tuple[Segment, ...], tuple[LeftOut, ...]]]:
    """Gives each thing told to the first footage that shows it, as a segment or as a row that says why not.

    Clips of different benchmarks overlap, so that giving it to all of them would repeat it. What no footage shows
    becomes a row of the first.

    Args:
        footages: Files of one canonical video, at least one, in the order in which they are asked.
        told: What is told of the video.
        reading: Which of it to take.

    Returns:
        For each footage its segments in order of start, those with the same start as they came, and what is left out.
    """
    found: dict[str, tuple[list[Segment], list[LeftOut]]] = {footage.uid: ([], []) for footage in footages}
    redacted = {footage.uid: footage.redacted for footage in footages}
    seen = set()
    for each in told:
        footage = next((footage for footage in footages if footage.shows(each.moment_s)), footages[0])
        segments, left_out = found[footage.uid]
        verdict = _judge(each, footage, redacted[footage.uid], reading.keep_others)
        if isinstance(verdict, LeftOut):
            left_out.append(verdict)
        elif (footage.uid, verdict) in seen:
            detail = f"told twice of the same frames, at {each.moment_s:.2f} s"
            left_out.append(_left_out(each, footage, "filtered", "duplicate_narration", detail))
        else:
            seen.add((footage.uid, verdict))
            segments.append(verdict)
    return [
        (footage, tuple(sorted(found[footage.uid][0], key=lambda s: s.start)), tuple(found[footage.uid][1]))
        for footage in footages
    ]


def _judge(told: Told, footage: Footage, redacted: tuple[tuple[int, int], ...], keep_others: bool) -> Segment | LeftOut:
    if told.left_out:
        return _left_out(told, footage, *told.left_out)
    if is_unsure(told.text):
        return _left_out(told, footage, "filtered", "unsure_narration", "the annotator was unsure")
    if not keep_others and is_of_other_person(told.text):
        return _left_out(told, footage, "filtered", "other_person", "tells what another person does (others=drop)")
    start, end = footage.frames(told.start_s, told.end_s)
    if end <= start or (told.is_moment and not footage.shows(told.moment_s)):
        detail = f"expected a time from {footage.start_s:.2f} to {footage.end_s:.2f} s, found {told.moment_s:.2f} s"
        return _left_out(told, footage, "filtered", "outside_video", detail)
    if any(first < end and start < last for first, last in redacted):
        return _left_out(told, footage, "filtered", "redacted", "the window touches a redacted interval")
    caption = clean_narration(told.text)
    if not caption:
        return _left_out(told, footage, "filtered", "no_caption", f"expected words, found {told.text!r:.100}")
    return Segment(start, end, caption)


def _left_out(
    told: Told, footage: Footage, status: Literal["rejected", "filtered"], reason: str, detail: str
) -> LeftOut:
    is_malformed = status == "rejected"  # then there is no time to speak of
    start, end = (None, None) if is_malformed else footage.frames(told.start_s, told.end_s)
    caption = clean_narration(told.text)
    return LeftOut(status, reason, clean_caption(detail), footage.uid, caption, start, end, footage.split, footage.url)


def _range(
    entry: dict[str, Any],
    text_name: str | None,
    left_out: tuple[Literal["rejected", "filtered"], str, str] | None = None,
) -> Told:
    try:
        start_s, end_s = seconds(entry, "start_sec"), seconds(entry, "end_sec")
        text = _text(entry, text_name) if text_name else ""
    except DataError as error:
        return _malformed(error)
    return Told(text, start_s, end_s, (start_s + end_s) / 2, left_out=left_out)


def _malformed(error: DataError) -> Told:
    return Told("", 0.0, 0.0, 0.0, left_out=("rejected", error.reason, error.detail))


def _text(entry: dict[str, Any], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise DataError("bad_annotation", f"expected text as {name}, found {value!r:.100}")
    return value
