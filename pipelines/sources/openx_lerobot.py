"""LeRobot datasets, v2.1 (one file an episode) and v3.0 (many episodes a file), listed from `meta/` alone.

Real copies deviate: `meta` lists episodes that were not downloaded, paths differ from those in `info.json`, codecs
differ, the task's text stands in an index column. What is missing becomes a row; what can be found under another
path is taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from pipelines.sources.pictures import decode_image
from pipelines.sources.source import NumberedFrame, Trajectory
from pipelines.video_file import read_frames
from schemas.episode import Episode, LeftOut, Segment
from schemas.errors import DataError, UsageError
from schemas.shard import camera_name
from schemas.storage import exists, join, join_inside, list_files, read_bytes

_EPISODES_PER_PART = 1000
_ROWS_AT_ONCE = 1024


class OpenXLeRobot:
    """Implements `pipelines.sources.source.Source`.

    Args:
        dataset: The user's name for it.
        url: The folder with `meta/`, `data/` and `videos/`.
        cameras: Image keys (or their last component) to take, separated by commas; all by default.
        action: Column of the actions.
        state: Column of the proprioception; none if the set has no such column.
    """

    kind: ClassVar[str] = "openx-lerobot"

    def __init__(
        self, dataset: str, url: str, cameras: str = "", action: str = "action", state: str = "observation.state"
    ) -> None:
        self._dataset, self._url = dataset, url
        self._action, self._state = action, state
        self._wanted = [camera_name(name) for name in cameras.split(",")] if cameras else []

    def parts(self) -> list[str]:
        """v2.1: `<first>:<end>` for each thousand episodes; v3.0: the files of `meta/episodes`."""
        if self._is_v3():
            parts = [f"meta/episodes/{name}" for name in list_files(join(self._url, "meta", "episodes"), ".parquet")]
        else:
            count = len(self._read_lines("meta/episodes.jsonl"))
            parts = [f"{first}:{first + _EPISODES_PER_PART}" for first in range(0, count, _EPISODES_PER_PART)]
        if not parts:
            raise UsageError(f"--sources {self._dataset}: {self._url}/meta lists no episode")
        self._cameras()
        return parts

    def list_part(self, part: str) -> Iterator[Episode | LeftOut]:
        """Lists some episodes."""
        if self._is_v3():
            rows = pq.read_table(pa.BufferReader(read_bytes(join(self._url, part)))).to_pylist()
        else:
            first, end = (int(number) for number in part.split(":"))
            rows = self._read_lines("meta/episodes.jsonl")[first:end]
        on_disk = {name for folder in ("data", "videos") for name in self._files(folder)}
        for row in rows:
            number = int(row["episode_index"])
            try:
                yield self._episode(row, number, on_disk)
            except DataError as error:
                source_url = join(self._url, "meta")
                yield LeftOut("rejected", error.reason, error.detail, f"{number:06d}", source_url=source_url)

    def frames(self, episode: Episode, camera: str, indices: Sequence[int]) -> Iterator[NumberedFrame]:
        """Reads frames from the episode's stretch of its video, or from images in the table."""
        video = episode.locator["videos"].get(camera)
        if video is None:
            yield from self._images(episode, camera, indices)
            return
        first = int(video["first_frame"])
        for index, frame in read_frames(join_inside(self._url, video["path"]), [first + index for index in indices]):
            yield index - first, frame

    def trajectory(self, episode: Episode, start: int, end: int) -> Trajectory | None:
        """Reads the episode's rows of the action and state columns."""
        if not episode.action_dim:
            return None
        columns = [self._action] + ([self._state] if self._state in self._info()["features"] else [])
        table = self._rows(episode, columns)
        tables = [_matrix(table[name], name, episode) for name in columns]
        return Trajectory(tables[0][start:end], tables[1][start:end] if len(tables) > 1 else None)

    def latents(self, episode: Episode, camera: str) -> np.ndarray | None:
        """LeRobot datasets bring none."""
        return None

    # --- metadata ----------------------------------------------------------------------------------

    @lru_cache(maxsize=1)  # noqa: B019 - a source lives as long as its task
    def _info(self) -> dict[str, Any]:
        url = join(self._url, "meta", "info.json")
        try:
            info: dict[str, Any] = json.loads(read_bytes(url))
            if not isinstance(info["features"], dict):
                raise TypeError("features is no object")
        except FileNotFoundError as error:
            raise UsageError(
                f"--sources {self._dataset}: expected a LeRobot dataset with meta/info.json, found none in {self._url}"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"--sources {self._dataset}: expected a LeRobot description, {error!r} in {url}"
            ) from error
        return info

    def _is_v3(self) -> bool:
        return str(self._info().get("codebase_version", "")).startswith("v3")

    def _cameras(self) -> dict[str, str]:
        """Image keys by camera name."""
        keys = [key for key, feature in self._info()["features"].items() if feature["dtype"] in ("video", "image")]
        keys = [key for key in keys if not (self._info()["features"][key].get("info") or {}).get("video.is_depth_map")]
        cameras = {camera_name(key): key for key in sorted(keys)}
        unknown = [name for name in self._wanted if name not in cameras]
        if unknown or not cameras:
            found = ", ".join(cameras) or "none"
            raise UsageError(
                f"--sources {self._dataset}: expected the cameras {', '.join(unknown) or 'of images'}, found {found}"
            )
        return {name: cameras[name] for name in self._wanted or cameras}

    @lru_cache(maxsize=4)  # noqa: B019
    def _read_lines(self, name: str) -> list[dict[str, Any]]:
        try:
            return [json.loads(line) for line in read_bytes(join(self._url, name)).splitlines() if line.strip()]
        except (FileNotFoundError, ValueError) as error:
            raise UsageError(f"--sources {self._dataset}: expected {name} in {self._url}, {error!r}") from error

    @lru_cache(maxsize=1)  # noqa: B019
    def _tasks(self) -> dict[int, str]:
        if exists(join(self._url, "meta", "tasks.jsonl")):
            return {int(row["task_index"]): str(row["task"]) for row in self._read_lines("meta/tasks.jsonl")}
        rows = pq.read_table(pa.BufferReader(read_bytes(join(self._url, "meta", "tasks.parquet")))).to_pylist()
        return {int(row["task_index"]): str(row.get("task") or row.get("__index_level_0__") or "") for row in rows}

    @lru_cache(maxsize=2)  # noqa: B019
    def _files(self, folder: str) -> tuple[str, ...]:
        return tuple(f"{folder}/{name}" for name in list_files(join(self._url, folder)))

    def _episode(self, row: dict[str, Any], number: int, on_disk: set[str]) -> Episode:
        info, fps = self._info(), float(self._info()["fps"])
        data = self._find(_data_path(info, row, number), number, on_disk)
        videos: dict[str, dict[str, Any]] = {}
        for camera, key in self._cameras().items():
            if info["features"][key]["dtype"] == "video":
                path = self._find(_video_path(info, row, number, key), number, on_disk, key)
                from_s = float(row.get(f"videos/{key}/from_timestamp") or 0.0)
                videos[camera] = {"path": path, "first_frame": round(from_s * fps)}
        num_frames, caption = int(row["length"]), self._caption(row)
        episode_id = f"{number:06d}"
        no_caption = LeftOut("filtered", "no_caption", "no task", episode_id, source_url=join(self._url, data))
        action = info["features"].get(self._action)
        return Episode(
            episode_id=episode_id,
            split=_split(info, number),
            source_url=join(self._url, next(iter(videos.values()))["path"] if videos else data),
            num_frames=num_frames,
            fps=fps,
            cameras=tuple(self._cameras()),
            segments=(Segment(0, num_frames, caption),) if caption else (),
            action_dim=int(np.prod(action["shape"])) if action else 0,
            left_out=() if caption else (no_caption,),
            locator={"data": data, "number": number, "videos": videos},
        )

    def _caption(self, row: dict[str, Any]) -> str:
        tasks = row.get("tasks")
        if isinstance(tasks, list) and tasks:
            first = tasks[0]
            return str(first) if isinstance(first, str) else self._tasks().get(int(first), "")
        return self._tasks().get(int(row.get("task_index") or 0), "")

    @staticmethod
    def _find(path: str, number: int, on_disk: set[str], key: str = "") -> str:
        """Returns the path, or a file of the same name for the same key elsewhere below the dataset."""
        if path in on_disk:
            return path
        name = path.rsplit("/", 1)[-1]
        if (
            name == f"episode_{number:06d}.{name.rsplit('.', 1)[-1]}"
        ):  # the name of a v3.0 file does not tell its content
            found = sorted(other for other in on_disk if other.endswith(f"/{name}") and key in other)
            if found:
                return found[0]
        raise DataError("missing_file", f"expected {path}, which meta names for episode {number}, found no such file")

    # --- tables ------------------------------------------------------------------------------------

    def _rows(self, episode: Episode, columns: list[str]) -> pa.Table:
        """The episode's rows of a data file, row groups that cannot hold it left unread."""
        number, url = episode.locator["number"], join_inside(self._url, episode.locator["data"])
        try:
            file = pq.ParquetFile(pa.BufferReader(read_bytes(url)))
            groups = [group for group in range(file.num_row_groups) if _may_hold(file, group, number)]
            batches = file.iter_batches(_ROWS_AT_ONCE, row_groups=groups, columns=[*columns, "episode_index"])
            pieces = [pa.table(batch).filter(pa.compute.equal(batch["episode_index"], number)) for batch in batches]
        except FileNotFoundError as error:
            raise DataError("missing_file", f"expected {url}, found no such file") from error
        except (pa.ArrowException, KeyError) as error:
            raise DataError("decode_error", f"expected Parquet with {', '.join(columns)}, {error} in {url}") from error
        num_rows = sum(piece.num_rows for piece in pieces)
        if num_rows != episode.num_frames:
            expected = f"expected {episode.num_frames} rows of episode {number} as meta says"
            raise DataError("inconsistent_lengths", f"{expected}, found {num_rows} in {url}")
        return pa.concat_tables(pieces)

    def _images(self, episode: Episode, camera: str, indices: Sequence[int]) -> Iterator[NumberedFrame]:
        key = self._cameras()[camera]
        images = self._rows(episode, [key])[key]
        for index in indices:
            if index >= len(images):
                found = f"found {len(images)} in {episode.source_url}"
                raise DataError("frame_out_of_range", f"expected frame {index}, {found}")
            content = (images[index].as_py() or {}).get("bytes") or b""
            try:
                yield index, decode_image(content, f"{key}, row {index}, {episode.source_url}")
            except DataError as error:
                yield index, error


def _data_path(info: dict[str, Any], row: dict[str, Any], number: int) -> str:
    return _format(info, "data_path", number, row.get("data/chunk_index"), row.get("data/file_index"))


def _video_path(info: dict[str, Any], row: dict[str, Any], number: int, key: str) -> str:
    return _format(
        info, "video_path", number, row.get(f"videos/{key}/chunk_index"), row.get(f"videos/{key}/file_index"), key
    )


def _format(info: dict[str, Any], name: str, number: int, chunk: Any, file: Any, key: str = "") -> str:
    try:
        return str(info[name]).format(
            episode_chunk=number // int(info.get("chunks_size") or 1000),
            episode_index=number,
            video_key=key,
            chunk_index=int(chunk or 0),
            file_index=int(file or 0),
        )
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise DataError(
            "bad_annotation", f"expected a path template as {name} in info.json, found {info.get(name)!r}"
        ) from error


def _split(info: dict[str, Any], number: int) -> str:
    for name, ranges in (info.get("splits") or {}).items():
        first, _, end = str(ranges).partition(":")
        if first.isdigit() and end.isdigit() and int(first) <= number < int(end):
            return str(name)
    return ""


def _may_hold(file: pq.ParquetFile, group: int, number: int) -> bool:
    metadata = file.metadata.row_group(group)
    for column in range(metadata.num_columns):
        if metadata.column(column).path_in_schema == "episode_index":
            statistics = metadata.column(column).statistics
            return statistics is None or not statistics.has_min_max or statistics.min <= number <= statistics.max
    return True


def _matrix(column: pa.ChunkedArray, name: str, episode: Episode) -> np.ndarray:
    values = column.to_pylist()
    try:
        table = np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(
            "bad_numbers", f"expected rows of one length as {name}, {error} in {episode.source_url}"
        ) from error
    return table.reshape(len(values), -1)
