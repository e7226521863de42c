"""The layout of the VPP authors for Something-Something v2, Bridge, RT-1 and their own robots.

`annotation/<split>/<id>.json` names texts, one video a camera, and optionally latents, states and actions;
`videos/...` (MP4, WebM) and `latent_videos[_svd]/<split>/<id>/<camera>.pt` (float32 `[T, 4, 32, 32]` SVD latents,
scaled) lie beside it.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from pipelines.sources.source import NumberedFrame, Trajectory
from pipelines.video_file import count_frames, probe, read_frames
from schemas.encoder import LATENT_SHAPE
from schemas.episode import Episode, LeftOut, Segment
from schemas.errors import DataError, UsageError
from schemas.shard import camera_name
from schemas.storage import exists, join, join_inside, list_names, read_bytes

_FILES_PER_PART = 1000
_LATENT_FOLDERS = ("latent_videos_svd/", "latent_videos/")  # the annotations name one, the disk often has the other


class VPPLayout:
    """Implements `pipelines.sources.source.Source`.

    Args:
        dataset: The dataset's name.
        url: The folder with `annotation/`.
        split: Splits to take, separated by commas; all by default.
        fps: Frames per second of every video; by default the video's header is asked, which opens each video once.
    """

    kind: ClassVar[str] = "vpp-layout"

    def __init__(self, dataset: str, url: str, split: str = "", fps: str = "") -> None:
        self._dataset, self._url = dataset, url
        self._splits = split.split(",") if split else []
        try:
            self._fps = float(fps) if fps else None
        except ValueError as error:
            raise UsageError(f"--sources {dataset}: fps: expected a number, found {fps!r}") from error

    def parts(self) -> list[str]:
        """`<split>:<first>:<end>` for each thousand annotation files."""
        splits = self._splits or list_names(join(self._url, "annotation"))
        parts = []
        for split in splits:
            names = self._annotations(split)
            if not names:
                raise UsageError(
                    f"--sources {self._dataset}: expected {join(self._url, 'annotation', split)}/*.json, found none"
                )
            parts += [f"{split}:{first}:{first + _FILES_PER_PART}" for first in range(0, len(names), _FILES_PER_PART)]
        if not parts:
            raise UsageError(
                f"--sources {self._dataset}: expected a folder with annotation/<split>/*.json, found {self._url}"
            )
        return parts

    def list_part(self, part: str) -> Iterator[Episode | LeftOut]:
        """Lists the episodes of some annotation files, asking a video's header only for what they do not tell."""
        split, first, end = part.split(":")
        for name in self._annotations(split)[int(first) : int(end)]:
            url = join(self._url, "annotation", split, name)
            episode_id = f"{split}/{name.removesuffix('.json')}"
            try:
                yield self._episode(split, episode_id, url)
            except DataError as error:
                yield LeftOut("rejected", error.reason, error.detail, episode_id, split=split, source_url=url)

    def frames(self, episode: Episode, camera: str, indices: Sequence[int]) -> Iterator[NumberedFrame]:
        """Reads frames of one camera's video."""
        return read_frames(join_inside(self._url, self._of_camera(episode, camera, "videos")), indices)

    def trajectory(self, episode: Episode, start: int, end: int) -> Trajectory | None:
        """Reads actions and states from the annotation."""
        if not episode.action_dim:
            return None
        annotation = _read_json(join(self._url, "annotation", f"{episode.episode_id}.json"))
        actions = _numbers(annotation, ("action", "actions"), episode)
        if actions is None or len(actions) not in (episode.num_frames, episode.num_frames - 1):
            found = "none" if actions is None else str(len(actions))
            expected = f"expected {episode.num_frames} actions, or one fewer, as frames"
            raise DataError("inconsistent_lengths", f"{expected}, found {found} in {episode.source_url}")
        proprio = _numbers(annotation, ("state", "states"), episode)
        if proprio is not None and len(proprio) != episode.num_frames:
            expected = f"expected {episode.num_frames} states as frames"
            raise DataError("inconsistent_lengths", f"{expected}, found {len(proprio)} in {episode.source_url}")
        return Trajectory(actions[start:end], None if proprio is None else proprio[start:end])

    def latents(self, episode: Episode, camera: str) -> np.ndarray | None:
        """Reads the camera's latents where they are on the disk, whichever of the two folder names it has."""
        named = self._of_camera(episode, camera, "latents")
        if not named:
            return None
        tail = next((named.removeprefix(folder) for folder in _LATENT_FOLDERS if named.startswith(folder)), None)
        spellings = [named] if tail is None else [named, *(folder + tail for folder in _LATENT_FOLDERS)]
        for spelling in spellings:
            url = join_inside(self._url, spelling)
            if exists(url):
                return _read_latents(url, episode.num_frames)
        return None

    def _annotations(self, split: str) -> list[str]:
        return [name for name in list_names(join(self._url, "annotation", split)) if name.endswith(".json")]

    def _episode(self, split: str, episode_id: str, url: str) -> Episode:
        annotation = _read_json(url)
        try:
            videos = [str(video["video_path"]) for video in annotation["videos"]]
            latents = [str(entry["latent_video_path"]) for entry in annotation.get("latent_videos") or []]
            texts = [str(text) for text in annotation.get("texts") or []]
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                "bad_annotation", f"expected videos[].video_path and texts, found {error!r} in {url}"
            ) from error
        if not videos:
            raise DataError("bad_annotation", f"expected at least one video, found none in {url}")
        for video in videos:
            if not exists(join_inside(self._url, video)):
                raise DataError("missing_file", f"expected {video}, which {url} names, found no such file")
        first = join_inside(self._url, videos[0])
        num_frames = _length(annotation) or count_frames(first)
        actions = annotation.get("action") or annotation.get("actions") or []
        caption = next((text for text in texts if text.strip()), "")
        without_caption = LeftOut(
            "filtered", "no_caption", f"no text in {url}", episode_id, split=split, source_url=url
        )
        return Episode(
            episode_id=episode_id,
            split=split,
            source_url=url,
            num_frames=num_frames,
            fps=probe(first).fps if self._fps is None else self._fps,
            cameras=_camera_names(videos),
            segments=(Segment(0, num_frames, caption),) if caption else (),
            action_dim=len(actions[0]) if actions and isinstance(actions[0], list) else 0,
            left_out=() if caption else (without_caption,),
            locator={"videos": videos, "latents": latents},
        )

    @staticmethod
    def _of_camera(episode: Episode, camera: str, what: str) -> str:
        paths: list[str] = episode.locator[what]
        number = episode.cameras.index(camera)
        return paths[number] if number < len(paths) else ""


def _read_json(url: str) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(url))
    except ValueError as error:
        raise DataError("bad_json", f"expected JSON, found {error} in {url}") from error
    if not isinstance(content, dict):
        raise DataError("bad_annotation", f"expected a JSON object, found {type(content).__name__} in {url}")
    return content


def _length(annotation: dict[str, Any]) -> int:
    """The number of frames that an annotation tells, or 0."""
    length = annotation.get("video_length")
    if isinstance(length, int) and length > 0:
        return length
    states = annotation.get("state") or annotation.get("states")
    return len(states) if isinstance(states, list) else 0


def _camera_names(videos: list[str]) -> tuple[str, ...]:
    """The file's stem if the stems differ, or the position."""
    stems = [camera_name(path.rsplit("/", 1)[-1].rsplit(".", 1)[0]) for path in videos]
    return tuple(stems) if len(videos) > 1 and len(set(stems)) == len(stems) else tuple(map(str, range(len(videos))))


def _numbers(annotation: dict[str, Any], names: tuple[str, ...], episode: Episode) -> np.ndarray | None:
    for name in names:
        if annotation.get(name):
            try:
                values = np.asarray(annotation[name], np.float32)
            except (TypeError, ValueError) as error:
                raise DataError(
                    "bad_numbers", f"expected a table of numbers as {name}, {error} in {episode.source_url}"
                ) from error
            return values[:, None] if values.ndim == 1 else values
    return None


def _read_latents(url: str, num_frames: int) -> np.ndarray:
    import torch

    try:
        latents = torch.load(io.BytesIO(read_bytes(url)), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            "unsafe_pickle", f"expected a plain tensor, found something that would run code in {url}"
        ) from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise DataError("decode_error", f"expected a torch file, {str(error).splitlines()[0]} in {url}") from error
    expected = (num_frames, *LATENT_SHAPE)
    if not isinstance(latents, torch.Tensor) or tuple(latents.shape) != expected or not torch.isfinite(latents).all():
        found = tuple(latents.shape) if isinstance(latents, torch.Tensor) else type(latents).__name__
        raise DataError("latents_not_aligned", f"expected finite latents of shape {expected}, found {found} in {url}")
    result: np.ndarray = latents.float().numpy()
    return result
