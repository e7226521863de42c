"""CALVIN: one `.npz` a frame, episodes as inclusive ranges of frame numbers, language segments in a pickled dict.

`<url>/{training,validation}/` hold `episode_XXXXXXX.npz`, `ep_start_end_ids.npy` and
`lang_annotations/auto_lang_ann.npy`. The official annotator writes segments as (first, last) with both frames
existing, so a segment here is `[first, last + 1)`.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import av
import numpy as np

from pipelines.sources.safe_pickle import load_pickled_npy
from pipelines.sources.source import NumberedFrame, Trajectory
from schemas.episode import Episode, LeftOut, Segment
from schemas.errors import DataError, UsageError
from schemas.storage import exists, join, read_bytes

FPS = 30.0
_SPLITS = ("training", "validation")
_EPISODES_PER_PART = 100


class Calvin:
    """Implements `pipelines.sources.source.Source`.

    Args:
        dataset: The dataset's name.
        url: The folder with `training/` and `validation/`, or one of them.
        split: `training` or `validation`; both by default, where present.
        cameras: Image keys of the frames, separated by commas.
        actions: `rel_actions` (scaled to [-1, 1]) or `actions` (absolute).
        language_folder: Folder of the language annotations.
    """

    kind: ClassVar[str] = "calvin"

    def __init__(
        self,
        dataset: str,
        url: str,
        split: str = "",
        cameras: str = "rgb_static,rgb_gripper",
        actions: Literal["rel_actions", "actions"] = "rel_actions",
        language_folder: str = "lang_annotations",
    ) -> None:
        if actions not in ("rel_actions", "actions"):
            raise UsageError(f"--sources {dataset}: actions: expected rel_actions or actions, found {actions!r}")
        self._dataset, self._url = dataset, url.rstrip("/")
        self._cameras, self._actions = tuple(cameras.split(",")), actions
        self._language_folder = language_folder
        self._wanted = split.split(",") if split else list(_SPLITS)
        self._labels: dict[str, list[tuple[int, int, str]]] = {}

    def parts(self) -> list[str]:
        """`<split>:<first>:<end>` for each hundred episodes."""
        parts = []
        for split in self._wanted:
            if exists(join(self._folder(split), "ep_start_end_ids.npy")):
                count = len(self._ranges(split))
                parts += [f"{split}:{n}:{n + _EPISODES_PER_PART}" for n in range(0, count, _EPISODES_PER_PART)]
        if not parts:
            expected = f"expected {' or '.join(self._wanted)} with ep_start_end_ids.npy"
            raise UsageError(f"--sources {self._dataset}: {expected} in {self._url}, found neither")
        return parts

    def list_part(self, part: str) -> Iterator[Episode | LeftOut]:
        """Lists some episodes of a split from the index files alone."""
        split, first_episode, end_episode = part.split(":")
        ranges = self._ranges(split)
        language_url = join(self._folder(split), self._language_folder, "auto_lang_ann.npy")
        if int(first_episode) == 0:
            yield from self._stray_segments(split, ranges, language_url)
        labels = self._language(split, language_url)
        digits = self._digits(split)
        for first, last in ranges[int(first_episode) : int(end_episode)]:
            episode_id = f"{split}/{first:0{digits}d}-{last:0{digits}d}"
            url = self._frame_url(split, first, digits)
            segments = tuple(
                Segment(start - first, min(end, last) + 1 - first, text)
                for start, end, text in labels
                if first <= start <= end <= last
            )
            detail = f"no language segment in frames {first} to {last}"
            yield Episode(
                episode_id=episode_id,
                split=split,
                source_url=url,
                num_frames=last - first + 1,
                fps=FPS,
                cameras=self._cameras,
                segments=segments,
                action_dim=7,
                left_out=()
                if segments
                else (LeftOut("filtered", "no_caption", detail, episode_id, split=split, source_url=url),),
                locator={"first": first, "digits": digits},
            )

    def frames(self, episode: Episode, camera: str, indices: Sequence[int]) -> Iterator[NumberedFrame]:
        """Reads one image of each frame's file."""
        for index in indices:
            try:
                yield index, self._picture(episode, camera, index)
            except DataError as error:
                yield index, error

    def trajectory(self, episode: Episode, start: int, end: int) -> Trajectory | None:
        """Reads actions `[N, 7]` and robot_obs `[N, 15]`, float64 on disk."""
        rows = [self._read(episode, index, (self._actions, "robot_obs")) for index in range(start, end)]
        actions, proprio = (np.stack([row[column] for row in rows]).astype(np.float32) for column in (0, 1))
        return Trajectory(actions, proprio)

    def latents(self, episode: Episode, camera: str) -> np.ndarray | None:
        """CALVIN brings none."""
        return None

    def _picture(self, episode: Episode, camera: str, index: int) -> av.VideoFrame:
        image = self._read(episode, index, (camera,))[0]
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            found = f"found {image.dtype} {image.shape} in {self._url_of(episode, index)}"
            raise DataError("bad_image", f"expected uint8 [H, W, 3] as {camera}, {found}")
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")

    def _folder(self, split: str) -> str:
        return self._url if self._url.endswith(f"/{split}") else join(self._url, split)

    def _frame_url(self, split: str, number: int, digits: int) -> str:
        return join(self._folder(split), f"episode_{number:0{digits}d}.npz")

    def _url_of(self, episode: Episode, index: int) -> str:
        return self._frame_url(episode.split, episode.locator["first"] + index, episode.locator["digits"])

    def _ranges(self, split: str) -> list[tuple[int, int]]:
        url = join(self._folder(split), "ep_start_end_ids.npy")
        try:
            ranges = np.load(io.BytesIO(read_bytes(url)), allow_pickle=False)
        except ValueError as error:
            raise UsageError(f"--sources {self._dataset}: expected an array of numbers, {error} in {url}") from error
        return [(int(first), int(last)) for first, last in ranges.reshape(-1, 2)]

    def _digits(self, split: str) -> int:
        """Width of the frame number in file names: 7, unless the first frame's file has another."""
        ranges = self._ranges(split)
        for digits in (7, 6, 8):
            if ranges and exists(self._frame_url(split, ranges[0][0], digits)):
                return digits
        return 7

    def _language(self, split: str, url: str) -> list[tuple[int, int, str]]:
        if split not in self._labels:
            try:
                labels = _read_labels(url)
            except DataError:
                labels = []  # told once, by `_stray_segments`
            self._labels[split] = sorted(labels)
        return self._labels[split]

    def _stray_segments(self, split: str, ranges: list[tuple[int, int]], url: str) -> Iterator[LeftOut]:
        """What is wrong with the language annotations of a split."""
        try:
            labels = _read_labels(url)
        except DataError as error:
            yield LeftOut("rejected", error.reason, error.detail, split=split, source_url=url)
            return
        for first, last, text in labels:
            if not any(start <= first <= last <= end for start, end in ranges):
                detail = f"expected a segment inside one episode, found frames {first} to {last}"
                name = f"{split}/{first}-{last}"
                yield LeftOut("rejected", "segment_outside_episode", detail, name, text, first, last + 1, split, url)

    def _read(self, episode: Episode, index: int, keys: tuple[str, ...]) -> list[np.ndarray]:
        url = self._url_of(episode, index)
        try:
            with np.load(io.BytesIO(read_bytes(url)), allow_pickle=False) as frame:
                return [frame[key] for key in keys]
        except FileNotFoundError as error:
            raise DataError("missing_file", f"expected the frame {url}, found no such file") from error
        except KeyError as error:
            raise DataError("missing_key", f"expected {', '.join(keys)}, found {error} in {url}") from error
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError("decode_error", f"expected an .npz file, {error} in {url}") from error


def _read_labels(url: str) -> list[tuple[int, int, str]]:
    """Language segments as (first frame, last frame, text)."""
    try:
        content = load_pickled_npy(read_bytes(url), url)
    except FileNotFoundError as error:
        raise DataError("missing_file", f"expected language annotations, found no file at {url}") from error
    try:
        texts: list[Any] = list(content["language"]["ann"])
        indices: list[Any] = list(content["info"]["indx"])
        return [(int(first), int(last), str(text)) for (first, last), text in zip(indices, texts, strict=True)]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        expected = "expected language.ann and info.indx of one length"
        raise DataError("bad_annotation", f"{expected}, {type(error).__name__}: {error} in {url}") from error
