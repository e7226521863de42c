"""LeRobot v2.1 and v3.0: frames, actions and captions of the right episode, whatever the copy lacks."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from examples import picture
from videos import numbered_frame, read_number, write_video

from pipelines.sources.openx_lerobot import OpenXLeRobot
from schemas.episode import Episode, LeftOut
from schemas.errors import DataError, UsageError
from vpp.sim.lerobot_writer import RecordedEpisode, encode_pictures, picture_statistics, write_dataset

LENGTHS = (12, 7, 20)


def listed(source: OpenXLeRobot) -> list[Episode | LeftOut]:
    return [entry for part in source.parts() for entry in source.list_part(part)]


def rows(number: int, length: int, first: int) -> pa.Table:
    steps = np.arange(first, first + length, dtype=np.float32)
    return pa.table(
        {
            "action": pa.array([[step, -step] for step in steps], pa.list_(pa.float32())),
            "observation.state": pa.array([[step] * 3 for step in steps], pa.list_(pa.float32())),
            "episode_index": pa.array(np.full(length, number)),
            "task_index": pa.array(np.full(length, number % 2)),
        }
    )


@pytest.fixture
def v21(tmp_path: Path) -> Path:
    """Three episodes, a file each; the info's video path is not the one on disk."""
    (tmp_path / "meta").mkdir()
    features = {
        "action": {"dtype": "float32", "shape": [2]},
        "observation.state": {"dtype": "float32", "shape": [3]},
        "observation.images.front": {"dtype": "video", "shape": [48, 64, 3], "info": {"video.codec": "av1"}},
    }
    info = {
        "codebase_version": "v2.1",
        "fps": 30,
        "chunks_size": 1000,
        "splits": {"train": "0:2", "test": "2:3"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }
    (tmp_path / "meta" / "info.json").write_text(json.dumps(info))
    lines = [
        json.dumps({"episode_index": n, "tasks": [f"task {n}"], "length": length}) for n, length in enumerate(LENGTHS)
    ]
    (tmp_path / "meta" / "episodes.jsonl").write_text("\n".join(lines))
    (tmp_path / "meta" / "tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "task 0"}))
    for number, length in enumerate(LENGTHS):
        folder = tmp_path / "videos" / "chunk-000" / "observation.images.front"
        write_video(folder / f"episode_{number:06d}.mp4", length)
        (tmp_path / "data" / "chunk-000").mkdir(parents=True, exist_ok=True)
        pq.write_table(rows(number, length, 0), tmp_path / "data" / "chunk-000" / f"episode_{number:06d}.parquet")
    return tmp_path


@pytest.fixture
def v30(tmp_path: Path) -> Path:
    """The same three episodes, concatenated."""
    episodes, first = [], 0
    for number, length in enumerate(LENGTHS):
        pictures = np.stack([numbered_frame(first + step) for step in range(length)])
        steps = np.arange(first, first + length, dtype=np.float32)[:, None]
        videos = {camera: encode_pictures(pictures, 80.0) for camera in ("front", "wrist")}
        statistics = {camera: picture_statistics(pictures) for camera in videos}
        episodes.append(
            RecordedEpisode(f"task {number % 2}", videos, steps * [[1, -1]], steps * [[1, 1, 1]], statistics)
        )
        first += length
    write_dataset(str(tmp_path), episodes, 80.0, "test")
    return tmp_path


def test_v21_finds_files_where_they_are(v21: Path) -> None:
    source = OpenXLeRobot("l", str(v21))
    episodes = listed(source)
    assert [e.split for e in episodes] == ["train", "train", "test"]
    for number, episode in enumerate(episodes):
        assert isinstance(episode, Episode)
        assert (episode.episode_id, episode.num_frames, episode.action_dim) == (f"{number:06d}", LENGTHS[number], 2)
        assert episode.segments[0].caption == f"task {number}"
        shown = [
            read_number(f.to_ndarray(format="rgb24"))
            for _, f in source.frames(episode, "front", range(LENGTHS[number]))
        ]
        assert shown == list(range(LENGTHS[number]))


def test_v30_cuts_each_episode_out_of_its_file_frame_by_frame(v30: Path) -> None:
    source = OpenXLeRobot("l", str(v30))
    first = 0
    for number, episode in enumerate(listed(source)):
        assert isinstance(episode, Episode)
        assert (episode.num_frames, episode.fps, episode.cameras) == (LENGTHS[number], 80.0, ("front", "wrist"))
        assert episode.segments[0].caption == f"task {number % 2}"
        for camera in episode.cameras:
            pairs = list(source.frames(episode, camera, range(LENGTHS[number])))
            assert [index for index, _ in pairs] == list(range(LENGTHS[number]))
            shown = [read_number(frame.to_ndarray(format="rgb24")) for _, frame in pairs]
            assert shown == list(range(first, first + LENGTHS[number]))
        trajectory = source.trajectory(episode, 2, 5)
        assert trajectory is not None
        assert trajectory.actions.tolist() == [[first + s, -first - s] for s in (2, 3, 4)]
        assert trajectory.proprio is not None
        assert trajectory.proprio.shape == (3, 3)
        first += LENGTHS[number]


def test_the_task_may_stand_in_an_index_column(v30: Path) -> None:
    tasks = v30 / "meta" / "tasks.parquet"
    pq.write_table(pa.table({"task_index": [0, 1], "__index_level_0__": ["zero", "one"]}), tasks)
    episodes = v30 / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(episodes)
    tasks_column = pa.array([[0], [1], [0]], pa.list_(pa.int64()))
    pq.write_table(table.set_column(table.column_names.index("tasks"), "tasks", tasks_column), episodes)
    captions = [e.segments[0].caption for e in listed(OpenXLeRobot("l", str(v30))) if isinstance(e, Episode)]
    assert captions == ["zero", "one", "zero"]


def test_what_was_not_downloaded_is_a_row_for_each_episode(v21: Path) -> None:
    (v21 / "videos" / "chunk-000" / "observation.images.front" / "episode_000001.mp4").unlink()
    (v21 / "data" / "chunk-000" / "episode_000002.parquet").unlink()
    entries = listed(OpenXLeRobot("l", str(v21)))
    assert [type(entry) for entry in entries] == [Episode, LeftOut, LeftOut]
    assert [entry.reason for entry in entries if isinstance(entry, LeftOut)] == ["missing_file"] * 2


def test_rows_that_disagree_with_meta_are_a_fault(v21: Path) -> None:
    pq.write_table(rows(0, 9, 0), v21 / "data" / "chunk-000" / "episode_000000.parquet")
    source = OpenXLeRobot("l", str(v21))
    (episode, *_) = listed(source)
    assert isinstance(episode, Episode)
    with pytest.raises(DataError, match="inconsistent_lengths"):
        source.trajectory(episode, 0, 12)
    (v21 / "data" / "chunk-000" / "episode_000000.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="decode_error"):
        source.trajectory(episode, 0, 12)


def test_pictures_may_stand_in_the_table(v21: Path) -> None:
    info = json.loads((v21 / "meta" / "info.json").read_text())
    info["features"]["observation.images.front"]["dtype"] = "image"
    (v21 / "meta" / "info.json").write_text(json.dumps(info))
    table = rows(0, 12, 0)
    pictures = pa.array([{"bytes": picture(10 * n + 1), "path": None} for n in range(12)])
    path = v21 / "data" / "chunk-000" / "episode_000000.parquet"
    pq.write_table(table.append_column("observation.images.front", pictures), path)
    source = OpenXLeRobot("l", str(v21))
    (episode, *_) = listed(source)
    assert isinstance(episode, Episode)
    shown = [int(frame.to_ndarray()[-1, 0, 0]) for _, frame in source.frames(episode, "front", [0, 5, 11])]
    assert shown == [1, 51, 111]


def test_cameras_can_be_chosen_and_wrong_ones_are_told(v30: Path) -> None:
    (episode, *_) = listed(OpenXLeRobot("l", str(v30), cameras="wrist"))
    assert isinstance(episode, Episode)
    assert episode.cameras == ("wrist",)
    with pytest.raises(UsageError, match="front"):
        OpenXLeRobot("l", str(v30), cameras="nose").parts()
    with pytest.raises(UsageError, match=r"meta/info\.json"):
        OpenXLeRobot("l", str(v30 / "data")).parts()


def test_the_writer_keeps_what_lerobot_needs(v30: Path) -> None:
    info = json.loads((v30 / "meta" / "info.json").read_text())
    assert (info["codebase_version"], info["total_episodes"], info["total_frames"]) == ("v3.0", 3, sum(LENGTHS))
    episodes = pq.read_table(v30 / "meta" / "episodes" / "chunk-000" / "file-000.parquet").to_pylist()
    assert [row["dataset_to_index"] - row["dataset_from_index"] for row in episodes] == list(LENGTHS)
    assert episodes[1]["videos/observation.images.front/from_timestamp"] == pytest.approx(12 / 80)
    statistics = json.loads((v30 / "meta" / "stats.json").read_text())
    everything = np.arange(sum(LENGTHS), dtype=np.float64)
    assert statistics["action"]["mean"] == pytest.approx([everything.mean(), -everything.mean()])
    assert statistics["action"]["std"] == pytest.approx([everything.std()] * 2)
    assert np.shape(statistics["observation.images.front"]["mean"]) == (3, 1, 1)
    frame = pq.read_table(v30 / "meta" / "tasks.parquet").to_pandas()
    assert list(frame.index) == ["task 0", "task 1"]
    assert (
        io.BytesIO((v30 / "videos/observation.images.front/chunk-000/file-000.mp4").read_bytes()).getbuffer().nbytes > 0
    )


def test_the_real_sample(shared_data: Path) -> None:
    source = OpenXLeRobot("g1", str(shared_data / "openx_lerobot" / "g1_v21"))
    entries = listed(source)
    episodes = [entry for entry in entries if isinstance(entry, Episode)]
    assert (len(entries), [e.num_frames for e in episodes]) == (100, [221, 277])
    trajectory = source.trajectory(episodes[0], 0, 221)
    assert trajectory is not None
    assert trajectory.actions.shape == (221, 26)
    assert [index for index, _ in source.frames(episodes[1], "cam_high", [5, 200, 276])] == [5, 200, 276]
