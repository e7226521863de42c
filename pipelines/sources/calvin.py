"""CALVIN: one `.npz` a frame, episodes as inclusive ranges of frame numbers, language segments in a pickled dict.

`<url>/{training,validation}/` hold `episode_XXXXXXX.npz`, `ep_start_end_ids.npy`, `scene_info.npy` and
`lang_annotations/auto_lang_ann.npy`. The official annotator writes segments as (first, last) with both frames
existing, so a segment here is `[first, last + 1)`.

A split has up to 2.4 million frame files in one folder, which is never listed: every file's name follows from a number.
"""

from __future__ import annotations

import io
import zipfile
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from operator import index as as_integer
from typing import Any, ClassVar, Literal

import av
import numpy as np

from pipelines.captions import clean_caption
from pipelines.sources.safe_pickle import load_pickled_npy
from pipelines.sources.source import NumberedFrame, Trajectory
from schemas.episode import Episode, LeftOut, Segment
from schemas.errors import DataError, UsageError
from schemas.storage import exists, join, join_inside, read_bytes

FPS = 30.0
ACTION_DIM = 7
_SPLITS = ("training", "validation")
_EPISODES_PER_PART = 100
_FRAME_NUMBERS = range(10**9)  # names have 7 digits; what is beyond comes from damage, and is too long for a manifest
_MAX_ARRAY_BYTES = 64 << 20  # a 200x200 picture has 120 kB; compressed zeros can claim any size
_LANGUAGE_FILE = "auto_lang_ann.npy"
_LANGUAGE_FOLDERS = (  # the official ones, which differ only in the encoder of their embeddings
    "lang_annotations",
    "lang_paraphrase-MiniLM-L3-v2",
    "lang_all-MiniLM-L6-v2",
    "lang_all-mpnet-base-v2",
    "lang_all-distilroberta-v1",
    "lang_huggingface_distilroberta",
    "lang_huggingface_mpnet",
    "lang_msmarco-bert-base-dot-v5",
    "lang_BERT",
    "lang_clip_resnet50",
    "lang_clip_ViTB32",
)


class Calvin:
    """Implements `pipelines.sources.source.Source`.

    Args:
        dataset: The dataset's name.
        url: The folder with `training/` and `validation/`, or one of them.
        split: `training` or `validation`; both by default, where present.
        cameras: Image keys of the frames, separated by commas.
        actions: `rel_actions` (scaled to [-1, 1]) or `actions` (absolute).
        language_folder: Folder of the language annotations; `lang_annotations` by default, or else one of the other
            official ones.
    """

    kind: ClassVar[str] = "calvin"

    def __init__(
        self,
        dataset: str,
        url: str,
        split: str = "",
        cameras: str = "rgb_static,rgb_gripper",
        actions: Literal["rel_actions", "actions"] = "rel_actions",
        language_folder: str = "",
    ) -> None:
        if actions not in ("rel_actions", "actions"):
            raise UsageError(f"--sources {dataset}: actions: expected rel_actions or actions, found {actions!r}")
        self._dataset, self._url = dataset, url.rstrip("/")
        self._cameras, self._actions = tuple(name for name in cameras.split(",") if name), actions
        if not self._cameras:
            raise UsageError(f"--sources {dataset}: cameras: expected image keys, found {cameras!r}")
        self._language_folders = (language_folder,) if language_folder else _LANGUAGE_FOLDERS
        self._wanted = tuple(name for name in split.split(",") if name)

    def parts(self) -> list[str]:
        """`<split>:<first>:<end>` for each hundred episodes."""
        parts: list[str] = []
        for split in self._wanted or _SPLITS:
            url = self._index_url(split)
            if exists(url):
                count = len(self._ranges(split))
                parts += [f"{split}:{n}:{n + _EPISODES_PER_PART}" for n in range(0, count, _EPISODES_PER_PART)]
            elif self._wanted:
                raise UsageError(f"--sources {self._dataset}: split: expected {url}, found no such file")
        if not parts:
            expected = f"expected episodes in {' or '.join(self._wanted or _SPLITS)}/ep_start_end_ids.npy"
            raise UsageError(f"--sources {self._dataset}: {expected} below {self._url}, found none")
        return parts

    def list_part(self, part: str) -> Iterator[Episode | LeftOut]:
        """Lists some episodes of a split from the index files alone."""
        split, first_episode, end_episode = part.split(":")
        ranges = self._ranges(split)
        language_url, labels, faults = self._labels(split)
        scenes, scene_faults = self._scenes(split)
        if int(first_episode) == 0:
            yield from [*faults, *scene_faults, *_stray_segments(split, ranges, labels, language_url)]
        for first, last in ranges[int(first_episode) : int(end_episode)]:
            digits = self._digits(split)
            url = self._frame_url(split, first, digits)
            episode_id = f"{split}/{first:0{digits}d}-{last:0{digits}d}"
            if first > last or first not in _FRAME_NUMBERS or last not in _FRAME_NUMBERS:
                detail = f"expected the first and the last frame of an episode, found {first} and {last}"
                source_url = self._index_url(split)
                yield LeftOut("rejected", "bad_range", detail, episode_id, split=split, source_url=source_url)
                continue
            segments = tuple(
                Segment(start - first, end + 1 - first, text)
                for start, end, text in labels[bisect_left(labels, (first,)) : bisect_left(labels, (last + 1,))]
                if start <= end <= last
            )
            detail = f"no language segment in frames {first} to {last}"
            without = LeftOut("filtered", "no_caption", detail, episode_id, split=split, source_url=url)
            yield Episode(
                episode_id=episode_id,
                split=split,
                source_url=url,
                num_frames=last - first + 1,
                fps=FPS,
                cameras=self._cameras,
                segments=segments,
                action_dim=ACTION_DIM,
                left_out=() if segments else (without,),
                locator={"first": first, "digits": digits, "scene": _scene_of(first, last, scenes)},
            )

    def frames(self, episode: Episode, camera: str, indices: Sequence[int]) -> Iterator[NumberedFrame]:
        """Reads one image of each frame's file."""
        for index in indices:
            try:
                yield index, self._picture(episode, camera, index)
            except DataError as error:
                yield index, error

    def trajectory(self, episode: Episode, start: int, end: int) -> Trajectory | None:
        """Reads actions `[N, 7]` and robot_obs `[N, 15]`, float64 on disk, from the files of these frames only."""
        keys = (self._actions, "robot_obs")
        rows: list[list[np.ndarray]] = []
        for index in range(start, end):
            row = self._read(episode, index, keys)
            for key, values, expected in zip(keys, row, rows[0] if rows else row, strict=True):
                if values.dtype.kind not in "fiu" or values.ndim != 1 or values.shape != expected.shape:
                    found = f"found {values.dtype} {values.shape} in {self._url_of(episode, index)}"
                    raise DataError("bad_numbers", f"expected a row of numbers as {key}, of one length, {found}")
            if len(row[0]) != ACTION_DIM:
                found = f"found {len(row[0])} in {self._url_of(episode, index)}"
                raise DataError("bad_numbers", f"expected {ACTION_DIM} numbers as {self._actions}, {found}")
            rows.append(row)
        if not rows:
            return Trajectory(np.empty((0, ACTION_DIM), np.float32), None)
        actions, proprio = (np.stack([row[column] for row in rows]).astype(np.float32) for column in (0, 1))
        return Trajectory(actions, proprio)

    def latents(self, episode: Episode, camera: str) -> np.ndarray | None:
        """CALVIN brings none."""
        return None

    def _picture(self, episode: Episode, camera: str, index: int) -> av.VideoFrame:
        (image,) = self._read(episode, index, (camera,))
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            expected = f"expected uint8 [H, W, 3] as {camera}, found {image.dtype} {image.shape}"
            raise DataError("bad_image", f"{expected} in {self._url_of(episode, index)}")
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")

    # --- index files -------------------------------------------------------------------------------

    def _folder(self, split: str) -> str:
        return self._url if self._url.rsplit("/", 1)[-1] == split else join(self._url, split)

    def _index_url(self, split: str) -> str:
        return join(self._folder(split), "ep_start_end_ids.npy")

    @lru_cache(maxsize=2)  # noqa: B019 - a source lives as long as its task
    def _ranges(self, split: str) -> list[tuple[int, int]]:
        url = self._index_url(split)
        try:
            ranges = load_pickled_npy(read_bytes(url), url)
            if not isinstance(ranges, np.ndarray) or ranges.dtype.kind not in "iu" or ranges.shape[1:] != (2,):
                raise DataError("bad_annotation", f"expected integers [N, 2], found something else in {url}")
        except DataError as error:  # without it there is nothing to list
            raise UsageError(f"--sources {self._dataset}: {error.detail}") from error
        return [(int(first), int(last)) for first, last in ranges]

    @lru_cache(maxsize=2)  # noqa: B019
    def _digits(self, split: str) -> int:
        """Width of the frame number in file names: 7, unless the first frame's file has another."""
        first = self._ranges(split)[0][0]
        return next((digits for digits in (7, 6, 8, 5, 9, 1) if exists(self._frame_url(split, first, digits))), 7)

    @lru_cache(maxsize=2)  # noqa: B019
    def _labels(self, split: str) -> tuple[str, list[tuple[int, int, str]], list[LeftOut]]:
        """Where the language segments stand, the segments (first frame, last frame, text) sorted, and what is wrong."""
        urls = [join(self._folder(split), folder, _LANGUAGE_FILE) for folder in self._language_folders]
        url = next(filter(exists, urls), urls[0])
        labels, faults = [], []
        try:
            for first, last, text in _read_labels(url):
                if text:
                    labels.append((first, last, text))
                else:
                    detail = f"expected a text for frames {first} to {last}, found none"
                    faults.append(_left_out("filtered", "no_caption", detail, split, (first, last, text), url))
        except FileNotFoundError:
            detail = f"expected language annotations, found no file at {url}; see the option language_folder"
            faults.append(LeftOut("rejected", "missing_file", detail, split=split, source_url=url))
        except DataError as error:
            faults.append(LeftOut("rejected", error.reason, error.detail, split=split, source_url=url))
        return url, sorted(labels), faults

    @lru_cache(maxsize=2)  # noqa: B019
    def _scenes(self, split: str) -> tuple[dict[str, tuple[int, int]], list[LeftOut]]:
        """First and last frame of each scene (`A` to `D`), where the split tells, and what is wrong with that."""
        url = join(self._folder(split), "scene_info.npy")
        try:
            content = load_pickled_npy(read_bytes(url), url)
            pairs = ((str(name).rsplit("_", 1)[-1], ends) for name, ends in content.items())
            return {scene: (as_integer(first), as_integer(last)) for scene, (first, last) in pairs}, []
        except FileNotFoundError:
            return {}, []
        except DataError as error:
            reason, detail = error.reason, error.detail
        except (AttributeError, TypeError, ValueError) as error:
            reason, detail = "bad_annotation", f"expected {{scene: [first, last]}}, found {error!r:.200} in {url}"
        return {}, [LeftOut("rejected", reason, detail, split=split, source_url=url)]

    # --- frames ------------------------------------------------------------------------------------

    def _frame_url(self, split: str, number: int, digits: int) -> str:
        return join(self._folder(split), f"episode_{number:0{digits}d}.npz")

    def _url_of(self, episode: Episode, index: int) -> str:
        return self._frame_url(episode.split, episode.locator["first"] + index, episode.locator["digits"])

    def _read(self, episode: Episode, index: int, keys: tuple[str, ...]) -> list[np.ndarray]:
        url = self._url_of(episode, index)
        url = join_inside(self._folder(episode.split), url.rsplit("/", 1)[-1])
        try:
            content = read_bytes(url)
        except FileNotFoundError as error:
            raise DataError("missing_file", f"expected the frame {url}, found no such file") from error
        return _read_arrays(content, keys, url)


def _read_arrays(content: bytes, keys: tuple[str, ...], url: str) -> list[np.ndarray]:
    """Some arrays of an `.npz` file."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            sizes = {member.filename.removesuffix(".npy"): member.file_size for member in archive.infolist()}
            for key in keys:
                if key not in sizes:
                    raise DataError("missing_key", f"expected {key}, found {', '.join(sizes)} in {url}")
                if sizes[key] > _MAX_ARRAY_BYTES:
                    expected = f"expected at most {_MAX_ARRAY_BYTES} bytes as {key}"
                    raise DataError("decode_error", f"{expected}, found {sizes[key]} in {url}")
            arrays = [load_pickled_npy(archive.read(f"{key}.npy"), f"{key} of {url}") for key in keys]
    except DataError:
        raise
    except Exception as error:  # whatever a damaged archive led to; its bytes are here, so no connection can fail
        raise DataError("decode_error", f"expected an .npz file, {type(error).__name__}: {error} in {url}") from error
    for key, array in zip(keys, arrays, strict=True):
        if not isinstance(array, np.ndarray):
            raise DataError("decode_error", f"expected an array as {key}, found {type(array).__name__} in {url}")
    return arrays


def _read_labels(url: str) -> list[tuple[int, int, str]]:
    """Language segments as (first frame, last frame, text), in the file's order."""
    content = load_pickled_npy(read_bytes(url), url)
    try:
        texts: list[Any] = list(content["language"]["ann"])
        indices: list[Any] = list(content["info"]["indx"])
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a text that is no string")
        pairs = zip(indices, texts, strict=True)
        labels = [(as_integer(first), as_integer(last), clean_caption(text)) for (first, last), text in pairs]
        if any(max(first, last).bit_length() > 64 or min(first, last).bit_length() > 64 for first, last, _ in labels):
            raise ValueError("a frame number of more than 64 bits")
        return labels
    except (KeyError, TypeError, ValueError, IndexError) as error:
        expected = "expected language.ann and info.indx of one length"
        raise DataError("bad_annotation", f"{expected}, {type(error).__name__}: {error} in {url}") from error


def _stray_segments(
    split: str, ranges: list[tuple[int, int]], labels: list[tuple[int, int, str]], url: str
) -> Iterator[LeftOut]:
    """Segments that lie in no episode."""
    starts = [first for first, _ in sorted(ranges)]
    latest_ends = list(accumulate((last for _, last in sorted(ranges)), max))
    for label in labels:
        first, last, _ = label
        num_before = bisect_right(starts, first)
        if first > last or not num_before or latest_ends[num_before - 1] < last:
            detail = f"expected a segment inside one episode, found frames {first} to {last}"
            yield _left_out("rejected", "segment_outside_episode", detail, split, label, url)


def _left_out(
    status: Literal["rejected", "filtered"], reason: str, detail: str, split: str, label: tuple[int, int, str], url: str
) -> LeftOut:
    first, last, text = label
    known = first in _FRAME_NUMBERS and last in _FRAME_NUMBERS
    start, end = (first, last + 1) if known else (None, None)
    return LeftOut(status, reason, detail, f"{split}/{first}-{last}", text, start, end, split, url)


def _scene_of(first: int, last: int, scenes: dict[str, tuple[int, int]]) -> str:
    """The scene whose frames hold the episode, or empty."""
    return next((scene for scene, (start, end) in scenes.items() if start <= first and last <= end), "")
