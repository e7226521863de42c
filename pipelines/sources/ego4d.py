"""Ego4D: hour-long videos with narrations, listed from `ego4d.json` and `annotations/` in one streaming pass.

Both files are read with an incremental parser, since `narration.json` can have gigabytes: memory holds one video's
annotations and a few facts of each video.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal
from zlib import crc32

import ijson
import numpy as np

from pipelines.sources.ego4d_annotations import TELLERS, Reading, segments_of
from pipelines.sources.ego4d_footage import Footage, clip_footage, plain_uid, video_footage
from pipelines.sources.shallow_json import ShallowJson
from pipelines.sources.source import NumberedFrame, Trajectory
from pipelines.video_file import read_frames
from schemas.episode import Episode, LeftOut
from schemas.errors import DataError, UsageError
from schemas.storage import exists, is_dir, join, list_names, open_read, size_bytes

CAMERA = "ego"
BYTES_PER_PART = 256 << 20
"""Size of the annotation file for which one part is made."""

_PASSES = {"both": ("narration_pass_1", "narration_pass_2"), "1": ("narration_pass_1",), "2": ("narration_pass_2",)}
_RULES: dict[str, Literal["mean", "egovlp"]] = {"mean": "mean", "egovlp": "egovlp"}
_METADATA = "ego4d.json"


class Ego4D:
    """Implements `pipelines.sources.source.Source`.

    An episode is a video (a clip with `videos=clips`), its id the uid, its segments the windows of the narrations.

    Args:
        dataset: The dataset's name.
        url: The folder with `ego4d.json`, `annotations/` and the videos (`v2/`).
        annotations: `narrations` (a window around each), `summaries`, or `fho` (the actions of `fho_main.json`).
        passes: `both`, `1` or `2`: which annotators' narrations and summaries.
        window_s: Seconds around a narration; `mean` for the video's mean gap between narrations, `egovlp` for that
            gap divided by 4.9 s (EgoVLP's width, 1 s on average).
        min_window_s: Seconds to which narrower windows of `mean` and `egovlp` are widened; the default has about the
            16 frames of a clip.
        others: `keep` or `drop` what another person than the camera wearer does. They are kept: the video shows it
            and its caption says so.
        videos: Folder of the videos: `full_scale`, `video_540ss` or `clips`. Clips overlap; a narration goes to the
            first that shows it.
    """

    kind: ClassVar[str] = "ego4d"

    def __init__(
        self,
        dataset: str,
        url: str,
        annotations: str = "narrations",
        passes: str = "both",
        window_s: str = "mean",
        min_window_s: str = "0.5",
        others: str = "keep",
        videos: str = "full_scale",
    ) -> None:
        for name, value, known in (
            ("annotations", annotations, tuple(TELLERS)),
            ("passes", passes, tuple(_PASSES)),
            ("others", others, ("keep", "drop")),
            ("videos", videos, ("full_scale", "video_540ss", "clips")),
        ):
            if value not in known:
                raise UsageError(f"--sources {dataset}: {name}: expected one of {', '.join(known)}, found {value!r}")
        self._dataset, self._url, self._videos = dataset, url, videos
        self._annotations = annotations
        self._reading = Reading(
            passes=_PASSES[passes],
            window_s=_RULES.get(window_s)
            or _seconds(window_s, f"--sources {dataset}: window_s: expected mean, egovlp or seconds above 0"),
            min_window_s=_seconds(min_window_s, f"--sources {dataset}: min_window_s: expected seconds above 0"),
            keep_others=others == "keep",
        )

    def parts(self) -> list[str]:
        """Shares of the videos by a hash of their uid, one for each 256 MiB of annotations.

        Every part parses both annotation files from front to back, in one stream. That takes a tenth of the time that
        listing all the narrations in them takes, so parts in parallel are worth it for large files only.
        """
        for name in (_METADATA, self._annotation_file()):
            if not exists(join(self._url, name)):
                raise UsageError(f"--sources {self._dataset}: expected {name} in {self._url}, found no such file")
        if not is_dir(self._folder()):
            raise UsageError(
                f"--sources {self._dataset}: expected the videos in {self._folder()}, found no such folder; "
                "see the option videos"
            )
        count = 1 + size_bytes(join(self._url, self._annotation_file())) // BYTES_PER_PART
        return [f"{number:03d}-of-{count:03d}" for number in range(count)]

    def list_part(self, part: str) -> Iterator[Episode | LeftOut]:
        """Lists the part's videos that the metadata or the annotations name, in the order of the annotations."""
        number, count = map(int, part.split("-of-"))
        try:
            yield from self._list(lambda uid: crc32(uid.encode("utf-8", "surrogatepass")) % count == number)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            if number == 0:  # each part meets the fault, one tells it
                detail = f"expected JSON, found {error} in {self._url}; what stands behind it is not listed"
                yield LeftOut("rejected", "bad_json", " ".join(detail.split()), source_url=self._url)

    def frames(self, episode: Episode, camera: str, indices: Sequence[int]) -> Iterator[NumberedFrame]:
        """Reads frames of the video."""
        return read_frames(episode.source_url, indices)

    def trajectory(self, episode: Episode, start: int, end: int) -> Trajectory | None:
        """Ego4D has no actions."""
        return None

    def latents(self, episode: Episode, camera: str) -> np.ndarray | None:
        """Ego4D brings none."""
        return None

    def _list(self, is_ours: Callable[[str], bool]) -> Iterator[Episode | LeftOut]:
        videos: dict[str, Footage] = {}
        faulty: set[str] = set()
        for entry in self._items(_METADATA, "videos.item"):
            uid = _uid(entry, "video_uid")
            if not is_ours(uid):
                continue
            try:
                if uid in videos:
                    raise DataError("duplicate_video", f"{_METADATA} names the video twice")
                videos[uid] = video_footage(_object(entry), self._folder())
            except DataError as error:
                faulty.add(uid)
                yield self._left_out("rejected", error.reason, error.detail, uid)
        clips: dict[str, list[Footage]] = {uid: [] for uid in videos}
        if self._videos == "clips":
            yield from self._read_clips(videos, clips, is_ours)
        on_disk = set(list_names(self._folder()))
        annotated: set[str] = set()
        for uid, annotation in self._annotated_videos():
            if not is_ours(uid):
                continue
            try:
                if plain_uid(uid) in annotated:
                    raise DataError("duplicate_video", f"{self._annotation_file()} names the video twice")
                annotated.add(uid)
                if uid in videos or uid not in faulty:
                    yield from self._episodes(uid, _object(annotation), videos.get(uid), clips.get(uid, []), on_disk)
            except DataError as error:
                yield self._left_out("rejected", error.reason, error.detail, uid)
        for uid in videos:
            if uid not in annotated:
                detail = f"{self._annotation_file()} does not name the video"
                yield self._left_out("filtered", "no_narration", detail, uid, videos[uid].url)

    def _episodes(
        self,
        uid: str,
        annotation: dict[str, Any],
        video: Footage | None,
        clips: list[Footage],
        on_disk: set[str],
    ) -> Iterator[Episode | LeftOut]:
        status = annotation.get("status", "complete")
        if status == "redacted":
            yield self._left_out("filtered", "redacted", "the video's annotations are redacted", uid)
        elif status != "complete":
            detail = f"expected narrations of status complete, found {status!r:.100}"
            yield self._left_out("filtered", "no_narration", detail, uid)
        elif video is None:
            yield self._left_out("rejected", "unknown_video", f"{_METADATA} does not name the video", uid)
        elif self._videos == "clips" and not clips:
            yield self._left_out("filtered", "no_clip", f"{_METADATA} names no clip of the video", uid)
        else:
            told = list(TELLERS[self._annotations](annotation, video, self._reading))
            if not told:
                yield self._left_out("filtered", "no_narration", f"no {self._annotations} of the video", uid)
                return
            present = []
            for footage in clips if self._videos == "clips" else [video]:
                if f"{footage.uid}.mp4" in on_disk:
                    present.append(footage)
                else:
                    detail = f"expected a video, found no file at {footage.url}"
                    yield self._left_out("rejected", "missing_file", detail, footage.uid, footage.url)
            for footage, segments, left_out in segments_of(present, told, self._reading) if present else ():
                if not segments and not left_out:
                    detail = f"no {self._annotations} of the clip that another clip does not have"
                    yield self._left_out("filtered", "no_narration", detail, footage.uid, footage.url)
                    continue
                yield Episode(
                    episode_id=footage.uid,
                    split=footage.split,
                    source_url=footage.url,
                    num_frames=footage.num_frames,
                    fps=footage.fps,
                    cameras=(CAMERA,),
                    segments=segments,
                    left_out=left_out,
                    redacted=footage.redacted,
                )

    def _read_clips(
        self, videos: dict[str, Footage], clips: dict[str, list[Footage]], is_ours: Callable[[str], bool]
    ) -> Iterator[LeftOut]:
        """Fills `clips` with the clips of each video, in order of start."""
        seen: set[str] = set()
        for entry in self._items(_METADATA, "clips.item"):
            video_uid = _uid(entry, "video_uid")
            if not is_ours(video_uid):
                continue
            try:
                if video_uid not in videos:
                    raise DataError("unknown_video", f"{_METADATA} does not name the clip's video {video_uid!r}")
                clip = clip_footage(_object(entry), videos[video_uid], self._folder())
                if clip.uid not in seen:  # one clip may serve several benchmarks
                    seen.add(clip.uid)
                    clips[video_uid].append(clip)
            except DataError as error:
                yield self._left_out("rejected", error.reason, error.detail, _uid(entry, "clip_uid"))
        for of_video in clips.values():
            of_video.sort(key=lambda clip: (clip.start_s, clip.uid))

    def _annotation_file(self) -> str:
        return "annotations/fho_main.json" if self._annotations == "fho" else "annotations/narration.json"

    def _folder(self) -> str:
        return join(self._url, self._videos)

    def _items(self, name: str, prefix: str) -> Iterator[Any]:
        with open_read(join(self._url, name)) as handle:
            yield from ijson.items(ShallowJson(handle), prefix, use_float=True)

    def _annotated_videos(self) -> Iterator[tuple[str, Any]]:
        if self._annotations == "fho":
            for video in self._items(self._annotation_file(), "videos.item"):
                yield _uid(video, "video_uid"), video
        else:
            with open_read(join(self._url, self._annotation_file())) as handle:
                yield from ijson.kvitems(ShallowJson(handle), "", use_float=True)

    def _left_out(
        self, status: Literal["rejected", "filtered"], reason: str, detail: str, uid: str, url: str = ""
    ) -> LeftOut:
        return LeftOut(status, reason, detail, uid[:100], source_url=url or self._folder())


def _uid(entry: Any, name: str) -> str:
    return str(entry.get(name, "")) if isinstance(entry, dict) else ""


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError("bad_annotation", f"expected a JSON object, found {value!r:.100}")
    return value


def _seconds(text: str, expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UsageError(f"{expected}, found {text!r}")
    return value
