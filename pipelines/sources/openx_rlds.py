"""Open X-Embodiment in RLDS: TFDS folders whose TFRecords hold one episode a record, its steps flattened.

Listing reads each file once, front to back, checks both checksums of each record and looks at lengths and texts; no
picture is decoded.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import ClassVar

import numpy as np

from pipelines.sources.openx_registry import (
    OBSERVATION,
    REGISTRY,
    Column,
    Mapping,
    find_mapping,
    guess_mapping,
    keys_of,
    leaves_of,
    override,
    with_sizes,
)
from pipelines.sources.pictures import decode_image
from pipelines.sources.source import NumberedFrame, Trajectory
from pipelines.sources.tf_example import Value, parse_example
from pipelines.sources.tfrecord import read_record, read_records
from schemas.episode import Episode, LeftOut, Segment
from schemas.errors import DataError, UsageError
from schemas.plain_json import parse_json
from schemas.shard import camera_name
from schemas.storage import exists, join, join_inside, list_files, read_bytes

_SHARD_NAME = re.compile(r"(?P<name>.+?)(?:-(?P<split>\w+))?\.tfrecord-(?P<shard>\d+)-of-\d+")
_FILE_NAME = re.compile(r"(?P<name>.+?)(?:-(?P<split>train|val|valid|validation|test))?\.tfrecord")
_FLAGS = ("steps/is_first", "steps/is_last", "steps/is_terminal")


class OpenXRLDS:
    """Implements `pipelines.sources.source.Source`.

    Args:
        dataset: The user's name for it.
        url: The TFDS folder, one of its versions, or any folder with TFRecords. Without a `features.json` beside them
            and with a name not in the registry, the features are guessed from the first good episode.
        split: Splits to take, separated by commas; all by default.
        name: The TFDS name, where the files do not carry it; chooses the mapping.
        images: Image features, separated by commas, relative to `steps/`.
        instruction: Text feature.
        action: Action features, joined in this order.
        state: State features, joined in this order.
        cameras: Names of the cameras to take, separated by commas; all by default.
        fps: Control rate in Hz.
    """

    kind: ClassVar[str] = "openx-rlds"

    def __init__(
        self,
        dataset: str,
        url: str,
        split: str = "",
        name: str = "",
        images: str = "",
        instruction: str = "",
        action: str = "",
        state: str = "",
        cameras: str = "",
        fps: str = "0",
    ) -> None:
        self._dataset, self._url, self._name = dataset, url, name
        self._splits, self._cameras = _names(split), _names(cameras)
        self._keys = (images, instruction, action, state)
        try:
            self._fps = float(fps)
        except ValueError as error:
            raise self._usage_error(f"fps: expected a number, found {fps!r}") from error
        if not 0 <= self._fps < float("inf"):
            raise self._usage_error(f"fps: expected a rate in Hz, found {fps!r}")

    def parts(self) -> list[str]:
        """The TFRecord files."""
        files = self._files()
        folders = sorted({name.rpartition("/")[0] for name in files})
        if len(folders) > 1:
            expected = f"expected one version of one dataset below {self._url}"
            raise self._usage_error(f"{expected}, found {', '.join(folders)}; name one in the URL")
        prefixes: dict[str, str] = {}
        for name in files:  # ids of episodes begin with it
            other = prefixes.setdefault(_id_prefix(name), name)
            if other != name:
                raise self._usage_error(f"expected one file of each shard, found {other} and {name}; keep one of them")
        self._mapping(files[0])
        return files

    def list_part(self, part: str) -> Iterator[Episode | LeftOut]:
        """Lists the episodes of one file."""
        url, mapping, split = join(self._url, part), self._mapping(part), _parse_name(part)["split"]
        cameras, number = self._cameras_of(mapping), -1
        try:
            join_inside(self._url, part)
            for number, record in enumerate(read_records(url)):
                episode_id = f"{_id_prefix(part)}-{number:06d}"
                try:
                    if isinstance(record, DataError):
                        raise record
                    features = parse_example(record.payload)
                    locator = {"file": part, "offset": record.offset, "num_bytes": record.num_bytes}
                    yield _episode(episode_id, split, url, features, mapping, cameras, locator)
                except DataError as error:
                    place = (
                        "" if isinstance(record, DataError) else f" (record {number} at byte {record.offset} of {url})"
                    )
                    yield LeftOut(
                        "rejected", error.reason, error.detail + place, episode_id, split=split, source_url=url
                    )
        except FileNotFoundError:
            detail = f"expected {url}, found no such file"
            yield LeftOut("rejected", "missing_file", detail, split=split, source_url=url)
            return
        except DataError as error:
            yield LeftOut("rejected", error.reason, error.detail, split=split, source_url=url)
            return
        if number < 0:
            yield LeftOut(
                "rejected", "empty_file", f"expected records, found 0 bytes in {url}", split=split, source_url=url
            )

    def frames(self, episode: Episode, camera: str, indices: Sequence[int]) -> Iterator[NumberedFrame]:
        """Decodes the JPEG or PNG of each step."""
        features = self._features(episode)
        key = self._cameras_of(self._mapping(episode.locator["file"]))[camera]
        _num_steps(features, [key])
        images = features[key]
        for index in indices:
            if index >= len(images):
                raise DataError(
                    "frame_out_of_range", f"expected step {index}, found {len(images)} in {episode.source_url}"
                )
            try:
                yield index, decode_image(images[index], f"{key}, step {index}, {episode.source_url}")
            except DataError as error:
                yield index, error

    def trajectory(self, episode: Episode, start: int, end: int) -> Trajectory | None:
        """Joins the action features and the state features."""
        mapping = self._mapping(episode.locator["file"])
        if not episode.action_dim:
            return None
        features = self._features(episode)
        proprio = _table(features, mapping.state, episode.num_frames)[start:end] if mapping.state else None
        return Trajectory(_table(features, mapping.action, episode.num_frames)[start:end], proprio)

    def latents(self, episode: Episode, camera: str) -> np.ndarray | None:
        """Open-X brings none."""
        return None

    def _usage_error(self, message: str) -> UsageError:
        return UsageError(f"--sources {self._dataset}: {message}")

    def _files(self) -> list[str]:
        found = [name for name in list_files(self._url) if _match(name)]
        files = [name for name in found if not self._splits or _parse_name(name)["split"] in self._splits]
        if not files:
            wanted = f" of split {', '.join(self._splits)}" if self._splits else ""
            raise self._usage_error(f"expected TFRecord files{wanted} below {self._url}, found none")
        missing = [split for split in self._splits if split not in {_parse_name(name)["split"] for name in files}]
        if missing:
            known = ", ".join(sorted({_parse_name(name)["split"] or "(none)" for name in found}))
            raise self._usage_error(f"expected files of split {', '.join(missing)}, found splits {known}")
        return files

    def _features(self, episode: Episode) -> dict[str, Value]:
        locator = episode.locator
        return _read_features(join(self._url, locator["file"]), locator["offset"], locator["num_bytes"])

    @lru_cache(maxsize=16)  # noqa: B019 - a source lives as long as its task
    def _mapping(self, part: str) -> Mapping:
        """The mapping of a file: the user's keys over those of features.json, of the registry or of an episode."""
        folder = join(self._url, part.rsplit("/", 1)[0]) if "/" in part else self._url
        name = self._name or _parse_name(part)["name"]
        description = join(folder, "features.json")
        if exists(description):
            try:
                features = parse_json(read_bytes(description))
                found, leaves = find_mapping(features, name), leaves_of(features)
            except ValueError as error:
                raise self._usage_error(f"{description}: {error}") from error
            mapping = with_sizes(override(found, *self._keys, self._fps), features)
            unknown = [key for key in keys_of(override(Mapping(), *self._keys, 0)) if key not in leaves]
            if unknown:
                raise self._usage_error(
                    f"expected features that {description} names, found {', '.join(unknown)}; "
                    f"it names {', '.join(sorted(leaves))}"
                )
        else:
            found = REGISTRY[name] if name in REGISTRY else guess_mapping(self._first_episode())
            mapping = override(found, *self._keys, self._fps)
        if not mapping.images:
            raise self._usage_error(
                f"expected colour images below {OBSERVATION} in {folder}, found none; give #images="
            )
        self._cameras_of(mapping)
        return mapping

    def _first_episode(self) -> dict[str, Value]:
        """The first good episode of the source, so that all files share one guess; empty if there is none."""
        for name in self._files():
            with contextlib.suppress(FileNotFoundError):
                for record in read_records(join(self._url, name)):
                    with contextlib.suppress(DataError):
                        if not isinstance(record, DataError):
                            return parse_example(record.payload)
        return {}

    def _cameras_of(self, mapping: Mapping) -> dict[str, str]:
        """Image features by the name of their camera: the last part of the feature's name, or more where that is not
        unique.
        """
        short = [camera_name(key) for key in mapping.images]
        whole = [camera_name(key.removeprefix(OBSERVATION).replace("/", "_")) for key in mapping.images]
        names = [name if short.count(name) == 1 else long for name, long in zip(short, whole, strict=True)]
        cameras = dict(zip(names, mapping.images, strict=True))
        if len(cameras) < len(names):
            raise self._usage_error(f"expected cameras of different names, found {', '.join(mapping.images)}")
        unknown = [name for name in self._cameras if name not in cameras]
        if unknown:
            raise self._usage_error(f"cameras: expected some of {', '.join(cameras)}, found {', '.join(unknown)}")
        return {name: cameras[name] for name in self._cameras or cameras}


@lru_cache(maxsize=1)  # the cameras of one episode follow one another
def _read_features(url: str, offset: int, num_bytes: int) -> dict[str, Value]:
    try:
        return parse_example(read_record(url, offset, num_bytes))
    except FileNotFoundError as error:
        raise DataError("missing_file", f"expected {url}, found no such file") from error


def _episode(
    episode_id: str,
    split: str,
    url: str,
    features: dict[str, Value],
    mapping: Mapping,
    cameras: dict[str, str],
    locator: dict[str, object],
) -> Episode:
    num_steps = _num_steps(features, list(cameras.values()))
    captions, gaps = _segments(_texts(features, mapping.instruction, num_steps), num_steps)
    _table(features, mapping.state, num_steps)
    return Episode(
        episode_id=episode_id,
        split=split,
        source_url=url,
        num_frames=num_steps,
        fps=mapping.control_hz,
        cameras=tuple(cameras),
        segments=captions,
        action_dim=_table(features, mapping.action, num_steps).shape[1],
        left_out=tuple(
            LeftOut(
                "filtered", "no_caption", "no instruction", episode_id,
                start=start, end=end, split=split, source_url=url,
            )
            for start, end in gaps
        ),
        locator=dict(locator),
    )  # fmt: skip


def _num_steps(features: dict[str, Value], images: list[str]) -> int:
    """The number of steps, on which every camera and the flags of the steps have to agree."""
    missing = [key for key in images if key not in features]
    if missing:
        raise DataError("missing_key", f"expected {', '.join(missing)}, found {', '.join(sorted(features))}")
    for key in images:
        if not isinstance(features[key], list):
            raise DataError("bad_image", f"expected encoded pictures as {key}, found numbers")
    lengths = {key: len(features[key]) for key in (*images, *(flag for flag in _FLAGS if flag in features))}
    if len(set(lengths.values())) > 1 or not lengths[images[0]]:
        raise DataError("inconsistent_lengths", f"expected as many pictures of every camera as steps, found {lengths}")
    return lengths[images[0]]


def _texts(features: dict[str, Value], key: str, num_steps: int) -> list[str]:
    """The instruction of each step, stripped, empty where there is none; a single text counts for all steps."""
    values = features.get(key, [])
    if not isinstance(values, list):
        raise DataError("bad_annotation", f"expected text as {key}, found numbers")
    if len(values) not in (0, 1, num_steps):
        raise DataError("inconsistent_lengths", f"expected {key} for {num_steps} steps, found {len(values)}")
    texts = [bytes(text).decode(errors="replace").strip() for text in values] or [""]
    return texts if len(texts) == num_steps else texts * num_steps


def _segments(texts: list[str], num_steps: int) -> tuple[tuple[Segment, ...], list[tuple[int | None, int | None]]]:
    """The captioned ranges, and those that have no caption.

    One instruction counts for the whole episode, even if some steps lack it; with several, each run of equal ones is
    a segment.
    """
    instructions = sorted(set(texts) - {""})
    if not instructions:
        return (), [(None, None)]
    if len(instructions) == 1:
        return (Segment(0, num_steps, instructions[0]),), []
    segments: list[Segment] = []
    gaps: list[tuple[int | None, int | None]] = []
    start = 0
    for text, run in groupby(texts):
        end = start + len(list(run))
        if text:
            segments.append(Segment(start, end, text))
        else:
            gaps.append((start, end))
        start = end
    return tuple(segments), gaps


def _table(features: dict[str, Value], columns: tuple[Column, ...], num_steps: int) -> np.ndarray:
    """Joins numeric features to float32 `[num_steps, D]`; D is 0 without any."""
    tables = [np.zeros((num_steps, 0), np.float32)]
    for column in columns:
        values = features.get(column.key)
        if values is None:
            raise DataError("missing_key", f"expected {column.key}, found {', '.join(sorted(features))}")
        if isinstance(values, list) and values:  # an empty list may be of any type
            raise DataError("bad_numbers", f"expected numbers as {column.key}, found bytes")
        size = column.size or len(values) // num_steps
        if size < max(column.width, 1) or len(values) != size * num_steps:
            expected = f"expected {column.key} for {num_steps} steps of {column.size or 'equally many'} numbers"
            raise DataError("inconsistent_lengths", f"{expected}, found {len(values)}")
        table = np.asarray(values, np.float32).reshape(num_steps, size)
        tables.append(table[:, : column.width] if column.width else table)
    return np.concatenate(tables, axis=1)


def _names(text: str) -> list[str]:
    """The names in a comma-separated option, each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _match(part: str) -> re.Match[str] | None:
    file = part.rsplit("/", 1)[-1]
    return _SHARD_NAME.fullmatch(file) or _FILE_NAME.fullmatch(file)


def _parse_name(part: str) -> dict[str, str]:
    """Dataset, split and shard number of a file name; empty where it lacks them."""
    match = _match(part)
    found = match.groupdict() if match else {}
    return {name: found.get(name) or "" for name in ("name", "split", "shard")}


def _id_prefix(part: str) -> str:
    """What the ids of a file's episodes begin with: split and shard number, the file's own name where it lacks them."""
    name = _parse_name(part)
    stem = part.rsplit("/", 1)[-1].removesuffix(".tfrecord")
    number = f"{int(name['shard']):05d}" if name["shard"] else ""
    if name["split"]:
        return f"{name['split']}/{number or stem}"
    return f"{name['name']}-{number}" if number else stem
