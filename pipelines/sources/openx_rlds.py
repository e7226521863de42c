"""Open X-Embodiment in RLDS: TFDS folders whose TFRecords hold one episode a record, its steps flattened.

Listing reads each file once, front to back, checks both checksums of each record and looks at lengths and texts; no
picture is decoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import ClassVar

import numpy as np

from pipelines.sources.openx_mappings import REGISTRY, Column, Mapping, find_mapping, override
from pipelines.sources.pictures import decode_image
from pipelines.sources.source import NumberedFrame, Trajectory
from pipelines.sources.tf_example import Value, parse_example
from pipelines.sources.tfrecord import read_record, read_records
from schemas.episode import Episode, LeftOut, Segment
from schemas.errors import DataError, UsageError
from schemas.shard import camera_name
from schemas.storage import exists, join, list_files, read_bytes

_FILE_NAME = re.compile(r"(?P<name>.+?)(?:-(?P<split>[A-Za-z]+))?\.tfrecord(?:-(?P<shard>\d+)-of-\d+)?$")


class OpenXRLDS:
    """Implements `pipelines.sources.source.Source`.

    Args:
        dataset: The user's name for it.
        url: The TFDS folder, one of its versions, or any folder with TFRecords and a `features.json`.
        split: Splits to take, separated by commas; all by default.
        name: The TFDS name, where the files do not carry it; chooses the mapping.
        images: Image features, separated by commas, relative to `steps/`; also the choice of cameras.
        instruction: Text feature.
        action: Action features, joined in this order.
        state: State features, joined in this order.
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
        fps: str = "0",
    ) -> None:
        self._dataset, self._url, self._name = dataset, url, name
        self._splits = set(split.split(",")) if split else None
        try:
            self._overrides = (images, instruction, action, state, float(fps))
        except ValueError as error:
            raise UsageError(f"--sources {dataset}: fps: expected a number, found {fps!r}") from error

    def parts(self) -> list[str]:
        """The TFRecord files."""
        files = [name for name in list_files(self._url) if _FILE_NAME.fullmatch(name.rsplit("/", 1)[-1])]
        files = [name for name in files if self._splits is None or _parse_name(name)["split"] in self._splits]
        if not files:
            wanted = f" of split {', '.join(sorted(self._splits))}" if self._splits else ""
            raise UsageError(
                f"--sources {self._dataset}: expected TFRecord files{wanted} below {self._url}, found none"
            )
        folders = sorted({name.rpartition("/")[0] for name in files})
        if len(folders) > 1:
            expected = f"expected one version of one dataset below {self._url}"
            raise UsageError(f"--sources {self._dataset}: {expected}, found {', '.join(folders)}; name one in the URL")
        self._mapping(files[0])
        return files

    def list_part(self, part: str) -> Iterator[Episode | LeftOut]:
        """Lists the episodes of one file."""
        url, mapping, stem = join(self._url, part), self._mapping(part), _parse_name(part)
        split, shard = stem["split"], int(stem["shard"] or 0)
        for number, record in enumerate(read_records(url)):
            episode_id = f"{split}/{shard:05d}-{number:06d}" if split else f"{stem['name']}-{number:06d}"
            try:
                if isinstance(record, DataError):
                    raise record
                features = parse_example(record.payload)
                locator = {"file": part, "offset": record.offset, "num_bytes": record.num_bytes}
                yield _episode(episode_id, split, url, features, mapping, locator)
            except DataError as error:
                detail = error.detail if url in error.detail else f"{error.detail} in record {number} of {url}"
                yield LeftOut("rejected", error.reason, detail, episode_id, split=split, source_url=url)

    def frames(self, episode: Episode, camera: str, indices: Sequence[int]) -> Iterator[NumberedFrame]:
        """Decodes the JPEG or PNG of each step."""
        features = self._features(episode)
        key = self._mapping(episode.locator["file"]).images[episode.cameras.index(camera)]
        images = features[key]
        for index in indices:
            if index >= len(images):
                found = f"found {len(images)} in {episode.source_url}"
                raise DataError("frame_out_of_range", f"expected step {index}, {found}")
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

    def _features(self, episode: Episode) -> dict[str, Value]:
        locator = episode.locator
        return _read_features(join(self._url, locator["file"]), locator["offset"], locator["num_bytes"])

    @lru_cache(maxsize=16)  # noqa: B019 - a source lives as long as its task
    def _mapping(self, part: str) -> Mapping:
        folder = join(self._url, part.rsplit("/", 1)[0]) if "/" in part else self._url
        name = self._name or _parse_name(part)["name"]
        if name in REGISTRY:
            mapping = REGISTRY[name]
        elif exists(join(folder, "features.json")):
            try:
                mapping = find_mapping(json.loads(read_bytes(join(folder, "features.json"))))
            except ValueError as error:
                raise UsageError(f"--sources {self._dataset}: {folder}/features.json: {error}") from error
        elif self._overrides[0]:
            mapping = Mapping()
        else:
            known = ", ".join(sorted(REGISTRY))
            raise UsageError(
                f"--sources {self._dataset}: expected features.json in {folder}, or #name= one of {known}, "
                "or #images=KEY,...; found none of them"
            )
        return override(mapping, *self._overrides)


@lru_cache(maxsize=1)  # the cameras of one episode follow one another
def _read_features(url: str, offset: int, num_bytes: int) -> dict[str, Value]:
    try:
        return parse_example(read_record(url, offset, num_bytes))
    except FileNotFoundError as error:
        raise DataError("missing_file", f"expected {url}, found no such file") from error


def _episode(
    episode_id: str, split: str, url: str, features: dict[str, Value], mapping: Mapping, locator: dict[str, object]
) -> Episode:
    missing = [key for key in mapping.images if key not in features]
    if missing:
        raise DataError("missing_key", f"expected {', '.join(missing)}, found {', '.join(sorted(features))} in {url}")
    lengths = {key: len(features[key]) for key in mapping.images}
    num_steps = min(lengths.values())
    if len(set(lengths.values())) > 1 or not num_steps:
        raise DataError("inconsistent_lengths", f"expected as many pictures of every camera, found {lengths}")
    texts = [bytes(text).decode(errors="replace") for text in features.get(mapping.instruction, [])]
    segments = _segments(texts, num_steps)
    no_caption = LeftOut("filtered", "no_caption", "no instruction", episode_id, split=split, source_url=url)
    return Episode(
        episode_id=episode_id,
        split=split,
        source_url=url,
        num_frames=num_steps,
        fps=mapping.fps,
        cameras=tuple(camera_name(key) for key in mapping.images),
        segments=segments,
        action_dim=_table(features, mapping.action, num_steps).shape[1] if mapping.action else 0,
        left_out=() if segments else (no_caption,),
        locator=dict(locator),
    )


def _segments(texts: list[str], num_steps: int) -> tuple[Segment, ...]:
    """One segment for each run of steps with the same instruction; a single text counts for all steps."""
    if len(texts) == 1:
        texts = texts * num_steps
    segments, start = [], 0
    for text, run in groupby(texts[:num_steps]):
        end = start + len(list(run))
        if text.strip():
            segments.append(Segment(start, end, text))
        start = end
    return tuple(segments)


def _table(features: dict[str, Value], columns: tuple[Column, ...], num_steps: int) -> np.ndarray:
    """Joins numeric features to float32 `[num_steps, D]`."""
    tables = []
    for column in columns:
        values = features.get(column.key)
        if not isinstance(values, np.ndarray) or not len(values) or len(values) % num_steps:
            found = "none" if values is None else f"{len(values)} values"
            raise DataError("inconsistent_lengths", f"expected {column.key} for {num_steps} steps, found {found}")
        table = values.astype(np.float32).reshape(num_steps, -1)
        tables.append(table[:, : column.width] if column.width else table)
    return np.concatenate(tables, axis=1)


def _parse_name(part: str) -> dict[str, str]:
    """Dataset, split and shard number of a file name; empty where it lacks them."""
    match = _FILE_NAME.fullmatch(part.rsplit("/", 1)[-1])
    return (
        {name: text or "" for name, text in match.groupdict().items()}
        if match
        else dict.fromkeys(("name", "split", "shard"), "")
    )
