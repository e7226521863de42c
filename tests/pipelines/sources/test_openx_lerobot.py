"""LeRobot v2.1 and v3.0: frames, actions and captions of the right episode, whatever the copy lacks or gets wrong."""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from examples import picture
from lerobot_example import LENGTHS, write_lerobot_v3
from videos import read_number, write_video

from pipelines.sources import lerobot_meta, lerobot_tables, open_source, parse_source
from pipelines.sources.openx_lerobot import OpenXLeRobot
from schemas.episode import Episode, LeftOut
from schemas.errors import DataError, UsageError
from vpp.sim import lerobot_writer

FRONT = "observation.images.front"


def listed(source: OpenXLeRobot) -> list[Episode | LeftOut]:
    return [entry for part in source.parts() for entry in source.list_part(part)]


def episodes_of(source: OpenXLeRobot) -> list[Episode]:
    entries = listed(source)
    assert all(isinstance(entry, Episode) for entry in entries), entries
    return [entry for entry in entries if isinstance(entry, Episode)]


def shown(source: OpenXLeRobot, episode: Episode, camera: str, indices: Any) -> list[int]:
    pairs = list(source.frames(episode, camera, indices))
    assert [index for index, _ in pairs] == list(indices)
    return [read_number(frame.to_ndarray(format="rgb24")) for _, frame in pairs]


def rows(number: int, length: int) -> pa.Table:
    steps = np.arange(length, dtype=np.float32)
    return pa.table(
        {
            "action": pa.array([[step, -step] for step in steps], pa.list_(pa.float32())),
            "observation.state": pa.array([[step] * 3 for step in steps], pa.list_(pa.float32())),
            "episode_index": pa.array(np.full(length, number)),
        }
    )


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def v21(tmp_path: Path) -> Path:
    """Three episodes, a file each; the path and the codec that `info.json` names are not those on the disk."""
    info = {
        "codebase_version": "v2.1",
        "fps": 30,
        "chunks_size": 1000,
        "splits": {"train": "0:2", "test": "2:3"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            "action": {"dtype": "float32", "shape": [2]},
            "observation.state": {"dtype": "float32", "shape": [3]},
            FRONT: {"dtype": "video", "shape": [48, 64, 3], "info": {"video.codec": "av1"}},
        },
    }
    for folder in ("meta", "data/chunk-000"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    lines = [{"episode_index": n, "tasks": [f"task {n}"], "length": length} for n, length in enumerate(LENGTHS)]
    (tmp_path / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    tasks = [{"task_index": n, "task": f"task {n}"} for n in range(3)]
    (tmp_path / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    for number, length in enumerate(LENGTHS):
        write_video(tmp_path / f"videos/chunk-000/{FRONT}/episode_{number:06d}.mp4", length)
        pq.write_table(rows(number, length), tmp_path / f"data/chunk-000/episode_{number:06d}.parquet")
    return tmp_path


@pytest.fixture
def v30(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three episodes, two of them in one file."""
    monkeypatch.setattr(lerobot_writer, "EPISODES_PER_FILE", 2)
    write_lerobot_v3(str(tmp_path))
    return tmp_path


# --- v2.1 ------------------------------------------------------------------------------------------


def test_v21_takes_files_from_where_they_are(v21: Path) -> None:
    source = OpenXLeRobot("l", str(v21))
    for number, episode in enumerate(episodes_of(source)):
        assert (episode.episode_id, episode.num_frames, episode.fps) == (f"{number:06d}", LENGTHS[number], 30.0)
        assert (episode.cameras, episode.action_dim) == (("front",), 2)
        assert [(s.start, s.end, s.caption) for s in episode.segments] == [(0, LENGTHS[number], f"task {number}")]
        assert shown(source, episode, "front", range(LENGTHS[number])) == list(range(LENGTHS[number]))
        trajectory = source.trajectory(episode, 2, 5)
        assert trajectory is not None
        assert (trajectory.actions.dtype, trajectory.actions.tolist()) == (np.float32, [[2, -2], [3, -3], [4, -4]])
        assert trajectory.proprio is not None
        assert trajectory.proprio.tolist() == [[2] * 3, [3] * 3, [4] * 3]
        assert source.latents(episode, "front") is None


def test_v21_a_file_is_an_episode_whatever_number_stands_in_it(v21: Path) -> None:
    pq.write_table(rows(77, LENGTHS[1]), v21 / "data/chunk-000/episode_000001.parquet")
    source = OpenXLeRobot("l", str(v21))
    trajectory = source.trajectory(episodes_of(source)[1], 0, LENGTHS[1])
    assert trajectory is not None
    assert len(trajectory.actions) == LENGTHS[1]


def test_what_was_not_downloaded_is_one_row_for_each_episode(v21: Path) -> None:
    (v21 / f"videos/chunk-000/{FRONT}/episode_000001.mp4").unlink()
    (v21 / "data/chunk-000/episode_000002.parquet").unlink()
    entries = listed(OpenXLeRobot("l", str(v21)))
    assert [type(entry) for entry in entries] == [Episode, LeftOut, LeftOut]
    missing = [entry for entry in entries if isinstance(entry, LeftOut)]
    assert [(row.status, row.reason, row.episode_id, row.split) for row in missing] == [
        ("rejected", "missing_file", "000001", "train"),
        ("rejected", "missing_file", "000002", "test"),
    ]
    assert "episode_000001.mp4" in missing[0].detail
    assert "episode_000002.parquet" in missing[1].detail


def test_a_camera_that_was_not_downloaded_is_a_row_and_the_others_are_kept(v21: Path) -> None:
    def add_camera(info: dict[str, Any]) -> None:
        info["features"]["observation.images.wrist"] = info["features"][FRONT]

    change(v21 / "meta/info.json", add_camera)
    write_video(v21 / "videos/chunk-000/observation.images.wrist/episode_000002.mp4", LENGTHS[2])
    first, _, last = episodes_of(OpenXLeRobot("l", str(v21)))
    assert (first.cameras, last.cameras, last.left_out) == (("front",), ("front", "wrist"), ())
    assert [(row.reason, "wrist" in row.detail) for row in first.left_out] == [("missing_file", True)]


def test_keys_that_end_alike_are_different_cameras(v21: Path) -> None:
    def two_cameras(info: dict[str, Any]) -> None:
        feature = info["features"].pop(FRONT)
        info["features"] |= {f"observation.images.{side}.rgb": feature for side in ("left", "right")}

    change(v21 / "meta/info.json", two_cameras)
    for number, length in enumerate(LENGTHS):
        for side in ("left", "right"):
            path = v21 / f"videos/chunk-000/observation.images.{side}.rgb/episode_{number:06d}.mp4"
            write_video(path, length if side == "left" else length + 50)
    source = OpenXLeRobot("l", str(v21))
    episode = episodes_of(source)[1]
    assert episode.cameras == ("left_rgb", "right_rgb")
    paths = [episode.locator["videos"][camera]["path"] for camera in episode.cameras]
    assert [path.split("/")[2] for path in paths] == ["observation.images.left.rgb", "observation.images.right.rgb"]


def test_rows_that_disagree_with_meta_or_are_no_numbers_are_faults(v21: Path) -> None:
    source = OpenXLeRobot("l", str(v21))
    episode, path = episodes_of(source)[0], v21 / "data/chunk-000/episode_000000.parquet"

    def reason_for(table: pa.Table | bytes) -> str:
        if isinstance(table, bytes):
            path.write_bytes(table)
        else:
            pq.write_table(table, path)
        with pytest.raises(DataError) as caught:
            source.trajectory(episode, 0, 12)
        assert str(path) in caught.value.detail
        return caught.value.reason

    good = rows(0, 12)
    ragged = pa.array([[0.0, 1.0]] * 11 + [[0.0]], pa.list_(pa.float32()))
    unknown = pa.array([[0.0, float("nan")]] * 12, pa.list_(pa.float32()))
    wide = pa.array([[0.0] * 3] * 12, pa.list_(pa.float32()))
    assert reason_for(rows(0, 9)) == "inconsistent_lengths"
    assert reason_for(rows(0, 13)) == "inconsistent_lengths"
    for values in (ragged, unknown, wide):
        assert reason_for(good.set_column(0, "action", values)) == "bad_numbers"
    assert reason_for(good.drop_columns(["action"])) == "missing_key"
    pq.write_table(good, path)
    content = path.read_bytes()
    assert reason_for(b"no parquet") == "decode_error"
    assert reason_for(content[: len(content) // 2]) == "decode_error"
    assert reason_for(content[:20] + b"\xff" * 400 + content[420:]) == "decode_error"


@pytest.mark.parametrize("fault", [ConnectionResetError("gone"), OSError(errno.EIO, "disk"), PermissionError("no")])
def test_a_fault_of_the_store_is_not_a_fault_of_the_data(
    v21: Path, monkeypatch: pytest.MonkeyPatch, fault: OSError
) -> None:
    source = OpenXLeRobot("l", str(v21))
    episode = episodes_of(source)[0]

    class Failing:
        closed = False

        def __init__(self, handle: Any) -> None:
            self._handle = handle

        def read(self, *arguments: Any) -> bytes:
            raise fault

        def __getattr__(self, name: str) -> Any:
            return getattr(self._handle, name)

    original = lerobot_tables.open_read

    class Opened:
        def __init__(self, url: str) -> None:
            self._opened = original(url)

        def __enter__(self) -> Failing:
            return Failing(self._opened.__enter__())

        def __exit__(self, *error: Any) -> None:
            self._opened.__exit__(None, None, None)

    monkeypatch.setattr(lerobot_tables, "open_read", Opened)
    with pytest.raises(type(fault)):
        source.trajectory(episode, 0, 12)


def test_lines_that_are_no_episodes_are_rows(v21: Path) -> None:
    path = v21 / "meta/episodes.jsonl"
    path.write_text(
        path.read_text()
        + "\n{broken\n[1]\n\n"
        + '{"length": 4}\n{"episode_index": 9}\n{"episode_index": 8, "length": 0}\n'
        + '{"episode_index": 0, "length": 12, "tasks": ["again"]}\n'
    )
    entries = listed(OpenXLeRobot("l", str(v21)))
    assert sum(isinstance(entry, Episode) for entry in entries) == 3
    left_out = [(entry.reason, entry.episode_id) for entry in entries if isinstance(entry, LeftOut)]
    assert left_out == [
        ("bad_json", ""),
        ("bad_json", ""),
        ("bad_annotation", ""),
        ("bad_annotation", "000009"),
        ("bad_annotation", "000008"),
        ("duplicate_episode", "000000"),
    ]


def test_parts_cover_every_line_once(v21: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = listed(OpenXLeRobot("l", str(v21)))
    monkeypatch.setattr(lerobot_meta, "EPISODES_PER_PART", 2)
    source = OpenXLeRobot("l", str(v21))
    assert len(source.parts()) == 2
    assert listed(source) == whole


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("../{video_key}/episode_{episode_index:06d}.mp4", "path_outside_root"),
        ("/etc/{video_key}/episode_{episode_index:06d}.mp4", "path_outside_root"),
        ("videos/{video_key.__class__}/{episode_index}.mp4", "bad_annotation"),
        ("videos/{episode_index:0999999999d}/x.mp4", "bad_annotation"),
        (None, "bad_annotation"),
    ],
)
def test_a_hostile_or_broken_path_template_is_a_row(v21: Path, template: str | None, reason: str) -> None:
    change(v21 / "meta/info.json", lambda info: info.update(video_path=template))
    entries = listed(OpenXLeRobot("l", str(v21)))
    assert [entry.reason for entry in entries if isinstance(entry, LeftOut)] == [reason] * 3


def test_pictures_may_stand_in_the_table_or_beside_it(v21: Path) -> None:
    change(v21 / "meta/info.json", lambda info: info["features"][FRONT].update(dtype="image"))
    cells: list[dict[str, Any] | None] = [{"bytes": picture(10 * n + 1), "path": None} for n in range(40)]
    (v21 / "images").mkdir()
    (v21 / "images/5.png").write_bytes(picture(99))
    cells[5] = {"bytes": None, "path": "images/5.png"}
    cells[6] = {"bytes": None, "path": "images/6.png"}
    cells[7] = {"bytes": None, "path": "../outside.png"}
    cells[8] = None
    cells[9] = {"bytes": b"no picture", "path": None}
    change_lines = [json.dumps({"episode_index": 0, "tasks": ["look"], "length": 40})]
    (v21 / "meta/episodes.jsonl").write_text("\n".join(change_lines))
    path = v21 / "data/chunk-000/episode_000000.parquet"
    pq.write_table(rows(0, 40).append_column(FRONT, pa.array(cells)), path, row_group_size=17)
    source = OpenXLeRobot("l", str(v21))
    (episode,) = episodes_of(source)
    pairs = [
        (index, int(frame.to_ndarray()[-1, 0, 0]))
        for index, frame in source.frames(episode, "front", [0, 4, 5, 17, 25])
    ]
    assert pairs == [(0, 1), (4, 41), (5, 99), (17, 171), (25, 251)]
    reasons = []
    for _, fault in source.frames(episode, "front", [6, 7, 8, 9]):
        assert isinstance(fault, DataError)
        reasons.append(fault.reason)
    assert reasons == ["missing_file", "path_outside_root", "decode_error", "decode_error"]
    with pytest.raises(DataError, match="frame_out_of_range"):
        list(source.frames(episode, "front", [40]))


def test_depth_maps_are_no_cameras_and_are_told_once(v21: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def add_depth(info: dict[str, Any]) -> None:
        marks = ({"info": {"is_depth_map": True}}, {"video_info": {"video.is_depth_map": True}})
        for number, mark in enumerate(marks):
            info["features"][f"observation.images.depth{number}"] = {"dtype": "video", "shape": [48, 64, 1]} | mark

    change(v21 / "meta/info.json", add_depth)
    monkeypatch.setattr(lerobot_meta, "EPISODES_PER_PART", 1)
    entries = listed(OpenXLeRobot("l", str(v21)))
    assert [entry.cameras for entry in entries if isinstance(entry, Episode)] == [("front",)] * 3
    left_out = [entry for entry in entries if isinstance(entry, LeftOut)]
    assert [(row.status, row.reason, row.episode_id) for row in left_out] == [("filtered", "depth_camera", "")] * 2


def test_captions_come_from_the_column_that_is_named(v21: Path) -> None:
    lines = [
        {"episode_index": 0, "length": 12, "tasks": ["coarse"], "subtasks": ["fine", "finer"]},
        {"episode_index": 1, "length": 7, "tasks": [], "subtasks": [" ", 2]},
        {"episode_index": 2, "length": 20},
    ]
    (v21 / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))

    def captions(**options: str) -> list[list[str]]:
        found = episodes_of(OpenXLeRobot("l", str(v21), **options))
        for episode in found:
            assert bool(episode.segments) == (not episode.left_out)
            assert all(row.reason == "no_caption" for row in episode.left_out)
        return [[segment.caption for segment in episode.segments] for episode in found]

    assert captions() == [["coarse"], [], []]
    assert captions(task_key="subtasks") == [["fine"], ["task 2"], []]


def test_a_set_without_actions_has_no_trajectories(v21: Path) -> None:
    change(v21 / "meta/info.json", lambda info: info["features"].pop("action"))
    source = OpenXLeRobot("l", str(v21))
    episode = episodes_of(source)[0]
    assert episode.action_dim == 0
    assert source.trajectory(episode, 0, 12) is None


# --- v3.0 ------------------------------------------------------------------------------------------


def test_v30_cuts_each_episode_out_of_its_file_frame_by_frame(v30: Path) -> None:
    source, first = OpenXLeRobot("l", str(v30)), 0
    assert source.parts() == [f"meta/episodes/chunk-000/file-00{n}.parquet" for n in (0, 1)]
    for number, episode in enumerate(episodes_of(source)):
        length = LENGTHS[number]
        assert (episode.num_frames, episode.fps, episode.cameras) == (length, 80.0, ("front", "wrist"))
        assert episode.segments[0].caption == f"task {number % 2}"
        for camera in episode.cameras:
            assert shown(source, episode, camera, range(length)) == list(range(first, first + length))
            assert shown(source, episode, camera, [1, length - 1]) == [first + 1, first + length - 1]
        trajectory = source.trajectory(episode, 2, 5)
        assert trajectory is not None
        assert trajectory.actions.tolist() == [[first + step, -first - step] for step in (2, 3, 4)]
        assert trajectory.proprio is not None
        assert trajectory.proprio.shape == (3, 3)
        first += length


def test_v30_never_shows_frames_of_the_next_episode(v30: Path) -> None:
    source = OpenXLeRobot("l", str(v30))
    with pytest.raises(DataError, match="frame_out_of_range"):
        list(source.frames(episodes_of(source)[0], "front", [LENGTHS[0]]))
    path = v30 / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    for camera in ("front", "wrist"):
        name = f"videos/observation.images.{camera}/to_timestamp"
        column = pa.array([(LENGTHS[0] - 1) / 80, (LENGTHS[0] + LENGTHS[1]) / 80])
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, path)
    entries = listed(OpenXLeRobot("l", str(v30)))
    assert [type(entry) for entry in entries] == [LeftOut, Episode, Episode]
    assert isinstance(entries[0], LeftOut)
    assert (entries[0].reason, entries[0].episode_id) == ("inconsistent_lengths", "000000")


@pytest.mark.parametrize("row_group_size", [1_000_000, 5])
def test_v30_rows_are_found_in_any_row_groups(v30: Path, row_group_size: int) -> None:
    path = v30 / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=row_group_size)
    source = OpenXLeRobot("l", str(v30))
    trajectory = source.trajectory(episodes_of(source)[1], 0, LENGTHS[1])
    assert trajectory is not None
    assert trajectory.actions[:, 0].tolist() == list(range(12, 19))


def test_v30_the_task_may_stand_in_an_index_column(v30: Path) -> None:
    for name in ("__index_level_0__", "task", "instruction"):
        pq.write_table(pa.table({"task_index": [0, 1], name: ["zero", "one"]}), v30 / "meta/tasks.parquet")
        for path in (v30 / "meta/episodes/chunk-000").glob("*.parquet"):
            table = pq.read_table(path)
            tasks = pa.array([[number % 2] for number in table["episode_index"].to_pylist()], pa.list_(pa.int64()))
            pq.write_table(table.set_column(table.column_names.index("tasks"), "tasks", tasks), path)
        captions = [episode.segments[0].caption for episode in episodes_of(OpenXLeRobot("l", str(v30)))]
        assert captions == ["zero", "one", "zero"]


def test_v30_takes_files_from_where_they_are(v30: Path) -> None:
    change(v30 / "meta/info.json", lambda info: info.update(data_path="data/{chunk_index}/{file_index}.parquet"))
    change(v30 / "meta/info.json", lambda info: info.update(video_path="videos/{video_key}/{file_index}.mp4"))
    source = OpenXLeRobot("l", str(v30))
    assert shown(source, episodes_of(source)[2], "wrist", [0]) == [LENGTHS[0] + LENGTHS[1]]


def test_v30_a_damaged_or_missing_file_is_a_row(v30: Path) -> None:
    (v30 / "meta/episodes/chunk-000/file-000.parquet").write_bytes(b"PAR1 no more")
    (v30 / "data/chunk-000/file-001.parquet").unlink()
    entries = listed(OpenXLeRobot("l", str(v30)))
    assert [(e.reason, e.episode_id) for e in entries if isinstance(e, LeftOut)] == [
        ("decode_error", ""),
        ("missing_file", "000002"),
    ]


def test_v30_is_read_from_a_store_as_from_the_disk(v30: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(v30), "/lerobot", recursive=True)
    try:
        source, local = OpenXLeRobot("l", "memory://lerobot"), OpenXLeRobot("l", str(v30))
        for episode, other in zip(episodes_of(source), episodes_of(local), strict=True):
            assert episode.locator == other.locator
            assert shown(source, episode, "front", [3]) == shown(local, other, "front", [3])
            there, here = source.trajectory(episode, 0, 5), local.trajectory(other, 0, 5)
            assert there is not None
            assert here is not None
            np.testing.assert_array_equal(there.actions, here.actions)
    finally:
        memory.rm("/lerobot", recursive=True)


# --- settings, real data ---------------------------------------------------------------------------


def test_cameras_splits_and_columns_can_be_chosen(v30: Path) -> None:
    text = f"l=openx-lerobot:{v30}#cameras=observation.images.wrist&state=action&split=train"
    source = open_source(parse_source(text))
    episode = next(entry for entry in source.list_part(source.parts()[0]) if isinstance(entry, Episode))
    assert (episode.cameras, episode.split) == (("wrist",), "train")
    trajectory = source.trajectory(episode, 0, 3)
    assert trajectory is not None
    assert trajectory.proprio is not None
    assert trajectory.proprio.shape == (3, 2)


def test_a_split_takes_its_episodes_alone(v21: Path) -> None:
    splits = [(episode.episode_id, episode.split) for episode in episodes_of(OpenXLeRobot("l", str(v21), split="test"))]
    assert splits == [("000002", "test")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cameras": "nose"}, "nose"),
        ({"split": "train,holidays"}, "holidays"),
        ({"action": "deed"}, "deed"),
        ({"state": "mind"}, "mind"),
    ],
)
def test_a_wrong_option_is_the_users_mistake(v21: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OpenXLeRobot("l", str(v21), **options).parts()


def test_what_is_no_lerobot_dataset_is_the_users_mistake(v21: Path) -> None:
    info = v21 / "meta/info.json"
    good = info.read_text()
    with pytest.raises(UsageError, match=r"data/meta/info\.json"):
        OpenXLeRobot("l", str(v21 / "data")).parts()
    for content in ("{", "[]", "{}", good.replace("v2.1", "v1.6"), good.replace('"fps": 30', '"fps": 0')):
        info.write_text(content)
        with pytest.raises(UsageError, match=r"info\.json"):
            OpenXLeRobot("l", str(v21)).parts()
    info.write_text(good)
    (v21 / "meta/episodes.jsonl").write_text("")
    with pytest.raises(UsageError, match="episodes"):
        OpenXLeRobot("l", str(v21)).parts()
    (v21 / "meta/episodes.jsonl").unlink()
    with pytest.raises(UsageError, match="episodes"):
        OpenXLeRobot("l", str(v21)).parts()


def test_the_real_sample_accounts_for_every_episode_that_meta_lists(shared_data: Path) -> None:
    source = OpenXLeRobot("g1", str(shared_data / "openx_lerobot" / "g1_v21"))
    entries = listed(source)
    episodes = [entry for entry in entries if isinstance(entry, Episode)]
    assert len({entry.episode_id for entry in entries}) == len(entries) == 100
    assert Counter(entry.reason for entry in entries if isinstance(entry, LeftOut)) == {"missing_file": 98}
    assert [(e.episode_id, e.num_frames, e.fps, e.cameras) for e in episodes] == [
        ("000029", 221, 30.0, ("cam_high",)),
        ("000030", 277, 30.0, ("cam_high",)),
    ]
    assert {e.segments[0].caption for e in episodes} == {"Pick up the yellow bottle on the table."}
    for episode in episodes:
        trajectory = source.trajectory(episode, 0, episode.num_frames)
        assert trajectory is not None
        assert trajectory.proprio is not None
        assert trajectory.actions.shape == trajectory.proprio.shape == (episode.num_frames, 26)
        wanted = [0, 5, episode.num_frames - 1]
        pairs = list(source.frames(episode, "cam_high", wanted))
        assert [index for index, _ in pairs] == wanted
        assert {(frame.width, frame.height) for _, frame in pairs} == {(640, 480)}
