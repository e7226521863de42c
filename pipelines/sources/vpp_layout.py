"""The layout of the VPP authors for Something-Something v2, Bridge, RT-1 and their own robots.

`annotation/<split>/<id>.json` names texts, one video a camera, and optionally latents, states and actions;
`videos/...` (MP4, WebM) and `latent_videos[_svd]/<split>/<id>/<camera>.pt` (float32 `[T, 4, 32, 32]` SVD latents,
scaled) lie beside it.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from pipelines.captions import clean_caption
from pipelines.sources.source import NumberedFrame, Trajectory
from pipelines.video_file import count_frames, probe, read_frames
from schemas.encoder import LATENT_SHAPE
from schemas.episode import MAX_FRAMES, Episode, LeftOut, Segment
from schemas.errors import DataError, UsageError
from schemas.plain_json import parse_json
from schemas.shard import camera_name
from schemas.storage import exists, join, join_inside, list_names, read_bytes, size_bytes
from schemas.torch_file import check_torch_file

_FILES_PER_PART = 1000
_LATENT_FOLDERS = ("latent_videos_svd/", "latent_videos/")  # the annotations name one, the disk often has the other


class VPPLayout:
    """Implements `pipelines.sources.source.Source`.

    Args:
        dataset: The dataset's name.
        url: The folder with `annotation/`.
        split: Splits to take, separated by commas; all by default.
        cameras: Cameras to take, separated by commas; all by default. A camera's name is the stem of its video's file
            where an episode has several that differ, else its position in the annotation: `0`, `1`, ...
        fps: Frames per second of every video, or `header` to ask each video's header, which opens all of them. By
            default unknown, except for videos that are opened anyway because the annotation does not tell their length.
    """

    kind: ClassVar[str] = "vpp-layout"

    def __init__(self, dataset: str, url: str, split: str = "", cameras: str = "", fps: str = "") -> None:
        self._dataset, self._url = dataset, url
        self._splits = [name for name in split.split(",") if name]
        self._cameras = [name for name in cameras.split(",") if name]
        self._asks_header = fps == "header"
        try:
            self._fps = float(fps) if fps and not self._asks_header else None
        except ValueError as error:
            raise UsageError(f"--sources {dataset}: fps: expected a number or header, found {fps!r}") from error
        if self._fps is not None and not 0 < self._fps < float("inf"):
            raise UsageError(f"--sources {dataset}: fps: expected a number above 0, found {fps!r}")

    def parts(self) -> list[str]:
        """`<split>/<first name>/<last name>` for each thousand annotation files; one added later shifts none."""
        parts: list[str] = []
        for split in self._splits or list_names(join(self._url, "annotation")):
            names = self._annotations(split)
            if not names and self._splits:
                folder = join(self._url, "annotation", split)
                raise UsageError(f"--sources {self._dataset}: split: expected {folder}/*.json, found none")
            chunks = (names[first : first + _FILES_PER_PART] for first in range(0, len(names), _FILES_PER_PART))
            parts += [f"{split}/{chunk[0]}/{chunk[-1]}" for chunk in chunks]
        if not parts:
            expected = "expected a folder with annotation/<split>/*.json"
            raise UsageError(f"--sources {self._dataset}: {expected}, found none in {self._url}")
        return parts

    def list_part(self, part: str) -> Iterator[Episode | LeftOut]:
        """Lists the episodes of some annotation files, opening a video only for what they do not tell."""
        split, first, last = part.rsplit("/", 2)
        for name in self._annotations(split):
            if not first <= name <= last:
                continue
            url = join(self._url, "annotation", split, name)
            episode_id = f"{split}/{name.removesuffix('.json')}"
            try:
                yield self._episode(split, episode_id, url)
            except DataError as error:
                yield LeftOut("rejected", error.reason, error.detail, episode_id, split=split, source_url=url)

    def frames(self, episode: Episode, camera: str, indices: Sequence[int]) -> Iterator[NumberedFrame]:
        """Reads frames of one camera's video."""
        return read_frames(join_inside(self._url, episode.locator["videos"][camera]), indices)

    def trajectory(self, episode: Episode, start: int, end: int) -> Trajectory | None:
        """Reads actions and states from the annotation."""
        if not episode.action_dim:
            return None
        url = join(self._url, "annotation", f"{episode.episode_id}.json")
        annotation = _read_json(url)
        actions = _table(_listed(annotation, ("action", "actions"), url), "actions", url)
        if len(actions) not in (episode.num_frames, episode.num_frames - 1):
            expected = f"expected {episode.num_frames} actions, or one fewer, as frames"
            raise DataError("inconsistent_lengths", f"{expected}, found {len(actions)} in {url}")
        states = _listed(annotation, ("state", "states"), url)
        if not states:
            return Trajectory(actions[start:end], None)
        proprio = _table(states, "states", url)
        if len(proprio) != episode.num_frames:
            expected = f"expected {episode.num_frames} states as frames"
            raise DataError("inconsistent_lengths", f"{expected}, found {len(proprio)} in {url}")
        return Trajectory(actions[start:end], proprio[start:end])

    def latents(self, episode: Episode, camera: str) -> np.ndarray | None:
        """Reads the camera's latents where they are on the disk, whichever of the two folder names it has."""
        named = episode.locator["latents"].get(camera)
        if not named:
            return None
        tail = next((named.removeprefix(folder) for folder in _LATENT_FOLDERS if named.startswith(folder)), None)
        spellings = [named] if tail is None else [named, *(folder + tail for folder in _LATENT_FOLDERS)]
        for spelling in dict.fromkeys(spellings):
            url = join_inside(self._url, spelling)
            if exists(url):
                most_bytes = 8 * episode.num_frames * math.prod(LATENT_SHAPE) + (1 << 20)
                if size_bytes(url) > most_bytes:
                    expected = f"expected at most {most_bytes} bytes for {episode.num_frames} frames"
                    raise DataError("latents_not_aligned", f"{expected}, found {size_bytes(url)} in {url}")
                return _read_latents(url, episode.num_frames)
        return None

    @lru_cache(maxsize=2)  # noqa: B019 - a source lives as long as its task
    def _annotations(self, split: str) -> list[str]:
        return [name for name in list_names(join(self._url, "annotation", split)) if name.endswith(".json")]

    def _episode(self, split: str, episode_id: str, url: str) -> Episode:
        annotation = _read_json(join_inside(self._url, f"annotation/{episode_id}.json"))
        videos = [_path(entry, "video_path", url) for entry in _listed(annotation, ("videos",), url)]
        latents = [_path(entry, "latent_video_path", url) for entry in _listed(annotation, ("latent_videos",), url)]
        if not videos:
            raise DataError("bad_annotation", f"expected at least one of videos[].video_path, found none in {url}")
        for video in [*videos, *latents]:
            join_inside(self._url, video)
        names = _camera_names(videos)
        cameras = tuple(name for name in names if not self._cameras or name in self._cameras)
        unknown = [name for name in self._cameras if name not in names]
        if unknown:
            expected = f"expected the cameras {', '.join(unknown)}"
            raise DataError("missing_camera", f"{expected}, found {', '.join(names)} in {url}")
        video_of = {name: video for name, video in zip(names, videos, strict=True) if name in cameras}
        for video in video_of.values():
            if not exists(join_inside(self._url, video)):
                raise DataError("missing_file", f"expected {video}, which {url} names, found no such file")
        num_frames, fps = self._length_and_fps(annotation, join_inside(self._url, video_of[cameras[0]]), url)
        caption = _caption(annotation, url)
        without = LeftOut("filtered", "no_caption", f"no text in {url}", episode_id, split=split, source_url=url)
        actions = _listed(annotation, ("action", "actions"), url)
        return Episode(
            episode_id=episode_id,
            split=split,
            source_url=url,
            num_frames=num_frames,
            fps=fps,
            cameras=cameras,
            segments=(Segment(0, num_frames, caption),) if caption else (),
            action_dim=(len(actions[0]) if isinstance(actions[0], list) else 1) if actions else 0,
            left_out=() if caption else (without,),
            locator={
                "videos": video_of,
                "latents": {name: path for name, path in zip(names, latents, strict=False) if name in cameras},
            },
        )

    def _length_and_fps(self, annotation: dict[str, Any], video: str, url: str) -> tuple[int, float]:
        """Number of frames and frames per second, 0.0 where unknown; asks the video for what is not told."""
        length = annotation.get("video_length")
        if type(length) is not int or length <= 0:
            length = len(_listed(annotation, ("state", "states"), url))
        fps = self._fps
        if fps is None:
            fps = probe(video).fps if self._asks_header or not length else 0.0
        num_frames = length or count_frames(video)
        if num_frames > MAX_FRAMES:
            raise DataError("bad_annotation", f"expected at most {MAX_FRAMES} frames, found more in {url}")
        if not num_frames:
            raise DataError("decode_error", f"expected frames, found none in {video}")
        return num_frames, fps


def _read_json(url: str) -> dict[str, Any]:
    try:
        content = parse_json(read_bytes(url))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError("missing_file", f"expected an annotation, found no file at {url}") from error
    except ValueError as error:
        raise DataError("bad_json", f"expected JSON, found {error} in {url}") from error
    if not isinstance(content, dict):
        raise DataError("bad_annotation", f"expected a JSON object, found {type(content).__name__} in {url}")
    return content


def _listed(annotation: dict[str, Any], names: tuple[str, ...], url: str) -> list[Any]:
    """The first of these lists that is there and not empty."""
    for name in names:
        value = annotation.get(name)
        if value is not None and not isinstance(value, list):
            raise DataError("bad_annotation", f"expected a list as {name}, found {type(value).__name__} in {url}")
        if value:
            return value
    return []


def _path(entry: Any, name: str, url: str) -> str:
    path = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(path, str) or any("\ud800" <= letter <= "\udfff" for letter in path):  # no file has such a name
        raise DataError("bad_annotation", f"expected a path as {name}, found {path!r:.100} in {url}")
    return path


def _caption(annotation: dict[str, Any], url: str) -> str:
    """The first text that says something, or empty."""
    texts = annotation.get("texts") or []
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError("bad_annotation", f"expected a list of strings as texts, found something else in {url}")
    return next(filter(None, map(clean_caption, texts)), "")


def _camera_names(videos: list[str]) -> list[str]:
    """The file's stem if the stems differ, or the position."""
    stems = [camera_name(path.rsplit("/", 1)[-1].rsplit(".", 1)[0]) for path in videos]
    return stems if len(videos) > 1 and len(set(stems)) == len(stems) else list(map(str, range(len(videos))))


def _table(rows: Any, name: str, url: str) -> np.ndarray:
    """A table of numbers as float32 `[N, D]`."""
    try:
        values = np.asarray(rows, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError("bad_numbers", f"expected a table of numbers as {name}, {error} in {url}") from error
    return values[:, None] if values.ndim == 1 else values


def _read_latents(url: str, num_frames: int) -> np.ndarray:
    import torch

    try:
        content = read_bytes(url)
    except IsADirectoryError as error:
        raise DataError("decode_error", f"expected a torch file, found a folder at {url}") from error
    handle = io.BytesIO(content)
    check_torch_file(handle, url)
    try:
        latents = torch.load(handle, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            "unsafe_pickle", f"expected a plain tensor, found what torch will not unpickle in {url}"
        ) from error
    except Exception as error:  # whatever a damaged file led to; its bytes are here, so no connection can fail
        found = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError("decode_error", f"expected a torch file, found {found:.200} in {url}") from error
    expected = (num_frames, *LATENT_SHAPE)
    is_plain = isinstance(latents, torch.Tensor) and latents.layout == torch.strided and latents.is_floating_point()
    is_plain = is_plain and latents.nbytes <= latents.untyped_storage().nbytes()  # or one number may stand for millions
    if not is_plain or tuple(latents.shape) != expected or not torch.isfinite(latents).all():
        found = f"{latents.dtype} {tuple(latents.shape)}" if is_plain else type(latents).__name__
        raise DataError("latents_not_aligned", f"expected finite latents of shape {expected}, found {found} in {url}")
    result: np.ndarray = latents.detach().float().numpy()
    return result
