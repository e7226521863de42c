"""Writes demonstrations as a LeRobot v3.0 dataset: episodes concatenated in few files, `meta/` saying where each
begins.

Format: huggingface/lerobot, `CODEBASE_VERSION = "v3.0"`. `meta/info.json` is written last: with it the dataset is
complete.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.storage import exists, join, write_bytes, write_file

EPISODES_PER_FILE = 200
_GOP = 10


@dataclass(frozen=True)
class RecordedEpisode:
    """An episode on its way into the dataset.

    Attributes:
        task: The instruction.
        videos: MP4 of each camera.
        actions: float32 `[T, A]`.
        states: float32 `[T, P]`.
        picture_statistics: By camera, `min`, `max`, `mean`, `std` of each colour `[3]` in [0, 1].
    """

    task: str
    videos: dict[str, bytes]
    actions: np.ndarray
    states: np.ndarray
    picture_statistics: dict[str, dict[str, list[float]]]


def encode_pictures(pictures: np.ndarray, fps: float) -> bytes:
    """Encodes uint8 `[T, H, W, 3]` as H.264 in MP4 with a keyframe every 10 frames."""
    buffer, rate = io.BytesIO(), Fraction(fps).limit_denominator(1000)
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18", "preset": "superfast", "threads": "1", "g": str(_GOP), "bf": "0"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def picture_statistics(pictures: np.ndarray) -> dict[str, list[float]]:
    """Minimum, maximum, mean and deviation of each colour in [0, 1], of every 10th picture and every 4th pixel."""
    pixels = pictures[::10, ::4, ::4].reshape(-1, 3) / 255.0
    return {name: getattr(pixels, name)(0).tolist() for name in ("min", "max", "mean", "std")}


def is_complete(url: str) -> bool:
    """Whether a dataset was written to its end."""
    return exists(join(url, "meta", "info.json"))


def write_dataset(url: str, episodes: Iterable[RecordedEpisode], fps: float, robot_type: str) -> int:
    """Writes the dataset, file by file.

    Args:
        url: Where to.
        episodes: At least one; all with the same cameras and sizes. Consumed one at a time.
        fps: Pictures a second.
        robot_type: The robot's name, for `info.json`.

    Returns:
        Number of episodes.
    """
    writer = _Writer(url, fps)
    for episode in episodes:
        writer.add(episode)
    writer.finish(robot_type)
    return len(writer.rows)


class _Writer:
    def __init__(self, url: str, fps: float) -> None:
        self._url, self._fps = url, fps
        self._tasks: dict[str, int] = {}
        self._open: list[tuple[RecordedEpisode, dict[str, Any]]] = []
        self._num_files = self._num_frames = 0
        self._statistics: dict[str, list[dict[str, Any]]] = {}
        self._features: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []

    def add(self, episode: RecordedEpisode) -> None:
        length = len(episode.actions)
        self._tasks.setdefault(episode.task, len(self._tasks))
        self._describe(episode)
        row = {
            "episode_index": len(self.rows),
            "tasks": [episode.task],
            "length": length,
            "data/chunk_index": 0,
            "data/file_index": self._num_files,
            "dataset_from_index": self._num_frames,
            "dataset_to_index": self._num_frames + length,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        offset = sum(len(other.actions) for other, _ in self._open)
        for camera in episode.videos:
            key = f"videos/{_key(camera)}"
            row |= {f"{key}/chunk_index": 0, f"{key}/file_index": self._num_files}
            row |= {f"{key}/from_timestamp": offset / self._fps, f"{key}/to_timestamp": (offset + length) / self._fps}
        self._num_frames += length
        self._open.append((episode, row))
        self.rows.append(row)
        if len(self._open) == EPISODES_PER_FILE:
            self._write_files()

    def finish(self, robot_type: str) -> None:
        if self._open:
            self._write_files()
        episodes = join(self._url, "meta", "episodes", "chunk-000", "file-000.parquet")
        _write_parquet(episodes, pa.Table.from_pylist(self.rows))
        tasks = pd.DataFrame({"task_index": list(self._tasks.values())}, index=pd.Index(list(self._tasks), name="task"))
        _write_parquet(join(self._url, "meta", "tasks.parquet"), pa.Table.from_pandas(tasks))
        statistics = {name: _merge(parts) for name, parts in self._statistics.items()}
        write_bytes(join(self._url, "meta", "stats.json"), json.dumps(statistics, indent=1).encode())
        info = {
            "codebase_version": "v3.0",
            "robot_type": robot_type,
            "total_episodes": len(self.rows),
            "total_frames": self._num_frames,
            "total_tasks": len(self._tasks),
            "chunks_size": 1000,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": int(self._fps) if self._fps == int(self._fps) else self._fps,
            "splits": {"train": f"0:{len(self.rows)}"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
            "features": self._features,
        }
        write_bytes(join(self._url, "meta", "info.json"), json.dumps(info, indent=1).encode())

    def _describe(self, episode: RecordedEpisode) -> None:
        length = len(episode.actions)
        if not self._features:
            self._features = _features(episode, self._fps)
        for name, values in (("observation.state", episode.states), ("action", episode.actions)):
            part = {key: getattr(values.astype(np.float64), key)(0).tolist() for key in ("min", "max", "mean", "std")}
            self._statistics.setdefault(name, []).append(part | {"count": length})
        for camera, statistics in episode.picture_statistics.items():
            part = {key: np.reshape(value, (3, 1, 1)).tolist() for key, value in statistics.items()}
            self._statistics.setdefault(_key(camera), []).append(part | {"count": length})

    def _write_files(self) -> None:
        name = f"chunk-000/file-{self._num_files:03d}"
        tables = [self._table(episode, row) for episode, row in self._open]
        _write_parquet(join(self._url, "data", f"{name}.parquet"), pa.concat_tables(tables))
        for camera in self._open[0][0].videos:
            with write_file(join(self._url, "videos", _key(camera), f"{name}.mp4")) as handle:
                handle.write(_concatenate([episode.videos[camera] for episode, _ in self._open], self._fps))
        self._open = []
        self._num_files += 1

    def _table(self, episode: RecordedEpisode, row: dict[str, Any]) -> pa.Table:
        length = row["length"]
        frames = np.arange(length)
        columns = {
            "observation.state": pa.array(list(episode.states), pa.list_(pa.float32())),
            "action": pa.array(list(episode.actions), pa.list_(pa.float32())),
            "timestamp": pa.array((frames / self._fps).astype(np.float32)),
            "frame_index": pa.array(frames),
            "episode_index": pa.array(np.full(length, row["episode_index"])),
            "index": pa.array(row["dataset_from_index"] + frames),
            "task_index": pa.array(np.full(length, self._tasks[episode.task])),
        }
        return pa.table(columns)


def _key(camera: str) -> str:
    return f"observation.images.{camera}"


def _features(episode: RecordedEpisode, fps: float) -> dict[str, Any]:
    features: dict[str, Any] = {}
    for camera, video in episode.videos.items():
        with av.open(io.BytesIO(video), "r") as container:
            height, width = container.streams.video[0].height, container.streams.video[0].width
        info = {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
        }
        names = ["height", "width", "channels"]
        features[_key(camera)] = {"dtype": "video", "shape": [height, width, 3], "names": names, "info": info}
    for name, values in (("observation.state", episode.states), ("action", episode.actions)):
        features[name] = {"dtype": "float32", "shape": [values.shape[1]], "names": None}
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        features[name] = {"dtype": "int64", "shape": [1], "names": None}
    return features


def _concatenate(videos: list[bytes], fps: float) -> bytes:
    """Puts the packets of several videos of the same encoder one behind another, without decoding them."""
    buffer, rate = io.BytesIO(), Fraction(fps).limit_denominator(1000)
    with av.open(buffer, "w", format="mp4") as target:
        stream, number = None, 0
        for video in videos:
            with av.open(io.BytesIO(video), "r") as source:
                if stream is None:
                    stream = target.add_stream_from_template(source.streams.video[0])
                    stream.time_base = 1 / rate
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.pts = packet.dts = number
                        packet.time_base, packet.duration, packet.stream = 1 / rate, 1, stream
                        target.mux(packet)
                        number += 1
    return buffer.getvalue()


def _merge(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Statistics of several stretches as those of all of them."""
    counts = np.array([part["count"] for part in parts], np.float64)
    weights = counts / counts.sum()
    means, deviations = (np.array([part[name] for part in parts]) for name in ("mean", "std"))
    weights = weights.reshape(-1, *([1] * (means.ndim - 1)))
    mean = (weights * means).sum(0)
    variance = (weights * (deviations**2 + (means - mean) ** 2)).sum(0)
    return {
        "min": np.min([part["min"] for part in parts], axis=0).tolist(),
        "max": np.max([part["max"] for part in parts], axis=0).tolist(),
        "mean": mean.tolist(),
        "std": np.sqrt(variance).tolist(),
        "count": [int(counts.sum())],
    }


def _write_parquet(url: str, table: pa.Table) -> None:
    with write_file(url) as handle:
        pq.write_table(table, handle, compression="zstd")
