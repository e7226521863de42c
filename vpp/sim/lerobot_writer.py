"""Writes episodes as a LeRobot v3.0 dataset: many episodes a file, `meta/` saying where each begins.

Format: huggingface/lerobot, `CODEBASE_VERSION = "v3.0"`.

    data/chunk-000/file-000.parquet              states, actions, indices; one row group an episode
    videos/<key>/chunk-000/file-000.mp4          the same episodes' frames
    meta/episodes/chunk-000/file-000.parquet     the same episodes: length, tasks, files, stretches, statistics
    meta/{tasks.parquet, stats.json, info.json}  `info.json` is written last: with it the dataset is complete
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.storage import exists, join, write_bytes, write_file
from vpp.sim.episode_video import concatenate
from vpp.sim.lerobot_statistics import Statistics

EPISODES_PER_FILE = 200
"""A file is closed after this many episodes, or `FILE_BYTES`, which also bound the writer's memory."""

FILE_BYTES = 64 << 20

_FILES_PER_CHUNK = 1000
_INDEX_COLUMNS = ("frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True)
class RecordedEpisode:
    """An episode on its way into a dataset, `T` frames.

    Attributes:
        task: The instruction.
        videos: MP4 for each camera, all of one encoder, size and setting.
        actions: float32 `[T, A]`.
        states: float32 `[T, P]`; P may be 0.
        picture_statistics: Of each camera.
        num_pictures: Of each video; 0 for T. Those behind T stay in the file, and no frame of the episode is theirs.
    """

    task: str
    videos: Mapping[str, bytes]
    actions: np.ndarray
    states: np.ndarray
    picture_statistics: Mapping[str, Statistics]
    num_pictures: int = 0


@dataclass(frozen=True)
class _Pending:
    episode: RecordedEpisode
    columns: dict[str, np.ndarray]
    row: dict[str, Any]


def is_complete(url: str) -> bool:
    """Whether a dataset was written to its end."""
    return exists(join(url, "meta", "info.json"))


class LeRobotWriter:
    """Takes episodes one by one; they are in the dataset once `finish` has returned.

    Args:
        url: Where to.
        fps: Frames a second.
        robot_type: The robot's name.
        action_names: What each number of an action is.
        state_names: What each number of a state is; empty where there is none.
    """

    def __init__(
        self, url: str, fps: float, robot_type: str, action_names: Sequence[str], state_names: Sequence[str]
    ) -> None:
        self._url, self._fps, self._robot_type = url, fps, robot_type
        names = {"observation.state": list(state_names), "action": list(action_names)}
        self._names = {key: of_key for key, of_key in names.items() if of_key}
        self._tasks: dict[str, int] = {}
        self._pending: list[_Pending] = []
        self._pending_bytes = self._num_files = self._num_episodes = self._num_frames = 0
        self._statistics: dict[str, Statistics] = {}
        self._features: dict[str, Any] = {}

    def add(self, episode: RecordedEpisode) -> None:
        """Adds an episode, with the same cameras and sizes as the others; writes files when enough have come."""
        if not self._features:
            self._features = self._describe(episode)
        columns = self._columns(episode)
        row = self._locate(episode) | self._summarise(episode, columns)
        self._pending.append(_Pending(episode, columns, row))
        self._pending_bytes += sum(map(len, episode.videos.values()))
        self._num_episodes += 1
        self._num_frames += len(episode.actions)
        if len(self._pending) == EPISODES_PER_FILE or self._pending_bytes >= FILE_BYTES:
            self._write_files()

    def finish(self) -> None:
        """Writes what is left, and `meta/info.json` last.

        Raises:
            ValueError: If no episode was added.
        """
        if not self._num_episodes:
            raise ValueError("expected at least one episode")
        if self._pending:
            self._write_files()
        self._write_parquet("meta/tasks", _task_table(self._tasks))
        statistics = {name: values.to_json(_is_picture(name)) for name, values in self._statistics.items()}
        self._write_json("stats.json", statistics)
        self._write_json("info.json", self._info())

    def _info(self) -> dict[str, Any]:
        file = "chunk-{chunk_index:03d}/file-{file_index:03d}"
        return {
            "codebase_version": "v3.0",
            "robot_type": self._robot_type,
            "total_episodes": self._num_episodes,
            "total_frames": self._num_frames,
            "total_tasks": len(self._tasks),
            "chunks_size": _FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": int(self._fps) if float(self._fps).is_integer() else self._fps,
            "splits": {"train": f"0:{self._num_episodes}"},
            "data_path": f"data/{file}.parquet",
            "video_path": f"videos/{{video_key}}/{file}.mp4",
            "features": self._features,
        }

    def _describe(self, episode: RecordedEpisode) -> dict[str, Any]:
        features: dict[str, Any] = {}
        for camera, video in episode.videos.items():
            with av.open(io.BytesIO(video), "r") as container:
                stream = container.streams.video[0]
                height, width, codec, layout = stream.height, stream.width, stream.codec_context.name, stream.format
            features[_key(camera)] = {
                "dtype": "video",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
                "info": {
                    "video.height": height,
                    "video.width": width,
                    "video.codec": codec,
                    "video.pix_fmt": layout.name,
                    "video.is_depth_map": False,
                    "video.fps": int(self._fps) if float(self._fps).is_integer() else self._fps,
                    "video.channels": 3,
                    "has_audio": False,
                },
            }
        for name, names in self._names.items():
            features[name] = {"dtype": "float32", "shape": [len(names)], "names": names}
        features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        return features | {name: {"dtype": "int64", "shape": [1], "names": None} for name in _INDEX_COLUMNS}

    def _columns(self, episode: RecordedEpisode) -> dict[str, np.ndarray]:
        frames = np.arange(len(episode.actions), dtype=np.int64)
        task = self._tasks.setdefault(episode.task, len(self._tasks))
        told = {"observation.state": episode.states, "action": episode.actions}
        return {
            **{key: told[key].astype(np.float32) for key in self._names},
            "timestamp": (frames / self._fps).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full_like(frames, self._num_episodes),
            "index": self._num_frames + frames,
            "task_index": np.full_like(frames, task),
        }

    def _locate(self, episode: RecordedEpisode) -> dict[str, Any]:
        length, place = len(episode.actions), divmod(self._num_files, _FILES_PER_CHUNK)
        files = ["data", "meta/episodes", *(f"videos/{_key(camera)}" for camera in episode.videos)]
        offset = sum(pending.episode.num_pictures or pending.row["length"] for pending in self._pending)
        row: dict[str, Any] = {
            "episode_index": self._num_episodes,
            "tasks": [episode.task],
            "length": length,
            "dataset_from_index": self._num_frames,
            "dataset_to_index": self._num_frames + length,
        }
        for file in files:
            row |= {f"{file}/chunk_index": place[0], f"{file}/file_index": place[1]}
            if file.startswith("videos/"):
                row |= {f"{file}/from_timestamp": offset / self._fps}
                row |= {f"{file}/to_timestamp": (offset + length) / self._fps}
        return row

    def _summarise(self, episode: RecordedEpisode, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Statistics of the episode as columns of its row, merged into those of the dataset."""
        found = {name: Statistics.of_rows(values.reshape(len(values), -1)) for name, values in columns.items()}
        found |= {_key(camera): values for camera, values in episode.picture_statistics.items()}
        row: dict[str, Any] = {}
        for key, values in found.items():
            self._statistics[key] = self._statistics[key].merged(values) if key in self._statistics else values
            row |= {f"stats/{key}/{name}": value for name, value in values.to_json(_is_picture(key)).items()}
        return row

    def _write_files(self) -> None:
        chunk, file = divmod(self._num_files, _FILES_PER_CHUNK)
        name = f"chunk-{chunk:03d}/file-{file:03d}"
        self._write_parquet(f"data/{name}", *(_table(pending.columns) for pending in self._pending))
        for camera in self._pending[0].episode.videos:
            with write_file(join(self._url, "videos", _key(camera), f"{name}.mp4")) as handle:
                concatenate((pending.episode.videos[camera] for pending in self._pending), self._fps, handle)
        self._write_parquet(f"meta/episodes/{name}", pa.Table.from_pylist([pending.row for pending in self._pending]))
        self._pending, self._pending_bytes = [], 0
        self._num_files += 1

    def _write_parquet(self, name: str, *tables: pa.Table) -> None:
        with (
            write_file(join(self._url, f"{name}.parquet")) as handle,
            pq.ParquetWriter(handle, tables[0].schema) as writer,
        ):
            for table in tables:  # each a row group
                writer.write_table(table)

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        write_bytes(join(self._url, "meta", name), json.dumps(content, indent=4).encode())


def _table(columns: Mapping[str, np.ndarray]) -> pa.Table:
    arrays = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        if values.ndim == 2
        else pa.array(values)
        for name, values in columns.items()
    }
    return pa.table(arrays)


def _task_table(tasks: Mapping[str, int]) -> pa.Table:
    """The texts as the index of a pandas table, as LeRobot wants them."""
    columns = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
        {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object"},
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    table = pa.table({"task_index": pa.array(tasks.values(), pa.int64()), "task": pa.array(tasks.keys(), pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _key(camera: str) -> str:
    return f"observation.images.{camera}"


def _is_picture(key: str) -> bool:
    return key.startswith("observation.images.")
