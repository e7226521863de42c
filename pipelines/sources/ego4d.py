"""Ego4D: hour-long videos with narrations, listed from `ego4d.json` and `annotations/` in one streaming pass.

The annotation files are read with an incremental parser, since `narration.json` has gigabytes: memory holds one
video's annotations and a few facts of each video.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import ijson
import numpy as np

from pipelines.sources.ego4d_annotations import (
    Reading,
    VideoFacts,
    action_segments,
    narration_segments,
    summary_segments,
    video_facts,
)
from pipelines.sources.source import NumberedFrame, Trajectory
from pipelines.video_file import read_frames
from schemas.episode import Episode, LeftOut, Segment
from schemas.errors import DataError, UsageError
from schemas.storage import exists, join, join_inside, list_names, open_read

CAMERA = "ego"
_PASSES = {"both": ("narration_pass_1", "narration_pass_2"), "1": ("narration_pass_1",), "2": ("narration_pass_2",)}
_SEGMENTS: dict[str, Callable[[VideoFacts, dict[str, Any], Reading], Iterator[Segment | LeftOut]]] = {
    "narrations": narration_segments,
    "summaries": summary_segments,
    "fho": action_segments,
}


class Ego4D:
    """Implements `pipelines.sources.source.Source`.

    Args:
        dataset: The dataset's name.
        url: The folder with `ego4d.json`, `annotations/` and the videos (`v2/`).
        annotations: `narrations` (a window around each), `summaries`, or `fho` (the actions of `fho_main.json`).
        passes: `both`, `1` or `2`: which annotators' narrations and summaries.
        window: Seconds around a narration; `mean_gap` for the video's mean gap between narrations.
        others: `keep` or `drop` what another person than the camera wearer does.
        videos: Folder of the videos: `full_scale`, `clips` or `video_540ss`.
    """

    kind: ClassVar[str] = "ego4d"

    def __init__(
        self,
        dataset: str,
        url: str,
        annotations: str = "narrations",
        passes: str = "both",
        window: str = "mean_gap",
        others: Literal["keep", "drop"] = "keep",
        videos: str = "full_scale",
    ) -> None:
        for name, value, known in (
            ("annotations", annotations, tuple(_SEGMENTS)),
            ("passes", passes, tuple(_PASSES)),
            ("others", others, ("keep", "drop")),
        ):
            if value not in known:
                raise UsageError(f"--sources {dataset}: {name}: expected one of {', '.join(known)}, found {value!r}")
        try:
            window_s = 0.0 if window == "mean_gap" else float(window)
        except ValueError as error:
            raise UsageError(f"--sources {dataset}: window: expected mean_gap or seconds, found {window!r}") from error
        self._dataset, self._url, self._videos = dataset, url, videos
        self._annotations = annotations
        self._reading = Reading(_PASSES[passes], window_s, others == "keep")

    def parts(self) -> list[str]:
        """One part: the annotation files are read once, from front to back."""
        for name in ("ego4d.json", self._annotation_file()):
            if not exists(join(self._url, name)):
                raise UsageError(f"--sources {self._dataset}: expected {name} in {self._url}, found no such file")
        return ["all"]

    def list_part(self, part: str) -> Iterator[Episode | LeftOut]:
        """Lists every video that the metadata or the annotations name."""
        known: dict[str, VideoFacts] = {}
        try:
            for entry in self._stream("ego4d.json", "videos.item"):
                try:
                    facts = video_facts(entry)
                    known[facts.uid] = facts
                except DataError as error:
                    yield self._left_out("rejected", error.reason, error.detail, str(entry.get("video_uid", "")))
            on_disk = set(list_names(join(self._url, self._videos)))
            annotated = set()
            for uid, annotation in self._annotated_videos():
                annotated.add(uid)
                yield self._episode(uid, annotation, known.get(uid), on_disk)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            detail = f"expected JSON, found {error} in {self._url}; what stands behind it is not listed"
            yield LeftOut("rejected", "bad_json", detail, source_url=self._url)
            return
        for uid in known:
            if uid not in annotated:
                yield self._left_out(
                    "filtered", "no_narration", f"{self._annotation_file()} does not name the video", uid
                )

    def frames(self, episode: Episode, camera: str, indices: Sequence[int]) -> Iterator[NumberedFrame]:
        """Reads frames of the video."""
        return read_frames(episode.source_url, indices)

    def trajectory(self, episode: Episode, start: int, end: int) -> Trajectory | None:
        """Ego4D has no actions."""
        return None

    def latents(self, episode: Episode, camera: str) -> np.ndarray | None:
        """Ego4D brings none."""
        return None

    def _annotation_file(self) -> str:
        return "annotations/fho_main.json" if self._annotations == "fho" else "annotations/narration.json"

    def _stream(self, name: str, prefix: str) -> Iterator[dict[str, Any]]:
        with open_read(join(self._url, name)) as handle:
            yield from ijson.items(handle, prefix, use_float=True)

    def _annotated_videos(self) -> Iterator[tuple[str, dict[str, Any]]]:
        if self._annotations == "fho":
            for video in self._stream(self._annotation_file(), "videos.item"):
                yield str(video.get("video_uid", "")), video
        else:
            with open_read(join(self._url, self._annotation_file())) as handle:
                yield from ijson.kvitems(handle, "", use_float=True)

    def _episode(
        self, uid: str, annotation: dict[str, Any], facts: VideoFacts | None, on_disk: set[str]
    ) -> Episode | LeftOut:
        if annotation.get("status") == "redacted":
            return self._left_out("filtered", "redacted", "the video's annotations are redacted", uid)
        if facts is None:
            return self._left_out("rejected", "unknown_video", "ego4d.json does not name the video", uid)
        if f"{uid}.mp4" not in on_disk:
            return self._left_out(
                "rejected", "missing_file", f"expected {self._videos}/{uid}.mp4, found no such file", uid
            )
        try:
            found = list(_SEGMENTS[self._annotations](facts, annotation, self._reading))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return self._left_out("rejected", "bad_annotation", f"{type(error).__name__}: {error}", uid)
        if not found:
            return self._left_out("filtered", "no_narration", f"no {self._annotations} for the video", uid)
        segments = sorted((e for e in found if isinstance(e, Segment)), key=lambda s: (s.start, s.end, s.caption))
        return Episode(
            episode_id=uid,
            split=facts.split,
            source_url=join_inside(self._url, f"{self._videos}/{uid}.mp4"),
            num_frames=facts.num_frames,
            fps=facts.fps,
            cameras=(CAMERA,),
            segments=tuple(segments),
            left_out=tuple(entry for entry in found if isinstance(entry, LeftOut)),
            redacted=facts.redacted,
        )

    def _left_out(self, status: Literal["rejected", "filtered"], reason: str, detail: str, uid: str) -> LeftOut:
        return LeftOut(status, reason, detail, uid, source_url=join(self._url, self._videos, f"{uid}.mp4"))
