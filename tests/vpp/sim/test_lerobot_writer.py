"""What is written is LeRobot v3.0, complete or absent, and says of each frame where it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot_example import LENGTHS, recorded, write_lerobot_v3
from videos import read_number

from pipelines.video_file import count_frames, read_frames
from vpp.sim import lerobot_writer
from vpp.sim.lerobot_writer import LeRobotWriter, is_complete

CAMERAS = ("observation.images.front", "observation.images.wrist")


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three episodes in two files."""
    monkeypatch.setattr(lerobot_writer, "EPISODES_PER_FILE", 2)
    write_lerobot_v3(str(tmp_path))
    return tmp_path


def read_all(folder: Path) -> list[dict]:
    return [row for path in sorted(folder.glob("*/*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_the_info_names_files_that_exist_and_counts_what_is_in_them(dataset: Path) -> None:
    info = json.loads((dataset / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["splits"]) == ("v3.0", 80, {"train": "0:3"})
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, sum(LENGTHS), 2)
    assert info["features"]["action"] == {"dtype": "float32", "shape": [2], "names": ["a", "b"]}
    video = info["features"][CAMERAS[0]]
    assert (video["dtype"], video["shape"]) == ("video", [48, 64, 3])
    assert (video["info"]["video.codec"], video["info"]["video.pix_fmt"]) == ("h264", "yuv420p")
    for row in read_all(dataset / "meta/episodes"):
        place = {name: row[f"data/{name}"] for name in ("chunk_index", "file_index")}
        assert (dataset / info["data_path"].format(**place)).is_file()
        for key in CAMERAS:
            place = {name: row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
            path = dataset / info["video_path"].format(video_key=key, **place)
            first = round(row[f"videos/{key}/from_timestamp"] * 80)
            end = round(row[f"videos/{key}/to_timestamp"] * 80)
            assert end - first == row["length"] <= count_frames(str(path))
            shown = [read_number(f.to_ndarray(format="rgb24")) for _, f in read_frames(str(path), range(first, end))]
            assert shown == list(range(row["dataset_from_index"], row["dataset_to_index"]))


def test_rows_of_the_data_are_numbered_through_the_dataset_and_each_episode(dataset: Path) -> None:
    rows = read_all(dataset / "data")
    info = json.loads((dataset / "meta/info.json").read_text())
    assert set(rows[0]) == {name for name, feature in info["features"].items() if feature["dtype"] != "video"}
    assert [row["index"] for row in rows] == list(range(sum(LENGTHS)))
    assert [row["episode_index"] for row in rows] == [n for n, length in enumerate(LENGTHS) for _ in range(length)]
    assert [row["frame_index"] for row in rows] == [step for length in LENGTHS for step in range(length)]
    assert [row["action"] for row in rows] == [[step, -step] for step in range(sum(LENGTHS))]
    assert rows[14]["timestamp"] == pytest.approx(2 / 80)
    assert {(row["episode_index"], row["task_index"]) for row in rows} == {(0, 0), (1, 1), (2, 0)}
    assert pq.ParquetFile(dataset / "data/chunk-000/file-000.parquet").num_row_groups == 2  # one an episode


def test_tasks_are_the_index_of_a_pandas_table(dataset: Path) -> None:
    pytest.importorskip("pandas")
    frame = pq.read_table(dataset / "meta/tasks.parquet").to_pandas()
    assert (frame.index.name, list(frame.index)) == ("task", ["task 0", "task 1"])
    assert (list(frame.columns), frame["task_index"].tolist()) == (["task_index"], [0, 1])


def test_statistics_of_the_dataset_and_of_each_episode(dataset: Path) -> None:
    statistics = json.loads((dataset / "meta/stats.json").read_text())
    steps = np.arange(sum(LENGTHS), dtype=np.float64)
    assert statistics["action"]["mean"] == pytest.approx([steps.mean(), -steps.mean()])
    assert statistics["action"]["std"] == pytest.approx([steps.std()] * 2)
    assert statistics["observation.state"]["max"] == [38.0] * 3
    assert statistics["action"]["count"] == [sum(LENGTHS)]
    for name in ("min", "max", "mean", "std"):
        values = np.array(statistics[CAMERAS[0]][name])
        assert values.shape == (3, 1, 1)
        assert 0 <= values.min() <= values.max() <= 1
    second = read_all(dataset / "meta/episodes")[1]
    assert second["stats/action/mean"] == [15.0, -15.0]
    assert second["stats/action/count"] == [7]
    assert np.shape(second[f"stats/{CAMERAS[0]}/mean"]) == (3, 1, 1)


def test_files_are_closed_when_they_hold_enough_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot_writer, "FILE_BYTES", 1)
    monkeypatch.setattr(lerobot_writer, "_FILES_PER_CHUNK", 2)
    write_lerobot_v3(str(tmp_path))
    files = sorted(str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*.parquet"))
    assert files == ["chunk-000/file-000.parquet", "chunk-000/file-001.parquet", "chunk-001/file-000.parquet"]


def test_without_its_last_step_a_dataset_is_absent(tmp_path: Path) -> None:
    writer = LeRobotWriter(str(tmp_path), 80.0, "test", ("a", "b"), ("x", "y", "z"))
    with pytest.raises(ValueError, match="at least one episode"):
        writer.finish()
    writer.add(recorded(0, 0, 5))
    assert not is_complete(str(tmp_path))
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/stats.json").mkdir()  # the file before the last cannot be written
    with pytest.raises(OSError, match=r"stats\.json"):
        writer.finish()
    assert not is_complete(str(tmp_path))


def test_the_same_episodes_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_lerobot_v3(str(tmp_path / name))
    one, other = (
        {
            str(path.relative_to(tmp_path / name)): path.read_bytes()
            for path in (tmp_path / name).rglob("*.*")
            if path.is_file()
        }
        for name in ("one", "other")
    )
    assert one == other
