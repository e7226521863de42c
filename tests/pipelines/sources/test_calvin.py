"""CALVIN: inclusive ranges become half-open ones, every segment is placed or told, every broken frame has its reason."""

from __future__ import annotations

import io
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import write_calvin
from videos import read_number

import pipelines.sources.calvin as calvin_module
from pipelines.sources.calvin import Calvin, _read_arrays
from schemas.episode import Episode, LeftOut
from schemas.errors import DataError, UsageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    labels = [(115, 119, "b"), (100, 109, "a"), (108, 112, "c"), (118, 131, "crosses"), (500, 510, "nowhere")]
    return write_calvin(tmp_path, [(100, 119), (130, 139)], labels)


def listed(source: Calvin) -> list[Episode | LeftOut]:
    return [entry for part in source.parts() for entry in source.list_part(part)]


def test_segments_lie_in_their_episode_half_open_and_sorted(root: Path) -> None:
    entries = listed(Calvin("c", str(root)))
    first, second = (entry for entry in entries if isinstance(entry, Episode))
    assert (first.episode_id, first.num_frames) == ("training/0000100-0000119", 20)
    assert [(s.start, s.end, s.caption) for s in first.segments] == [(0, 10, "a"), (8, 13, "c"), (15, 20, "b")]
    assert [left_out.reason for left_out in second.left_out] == ["no_caption"]


def episodes_of(source: Calvin) -> list[Episode]:
    return [entry for entry in listed(source) if isinstance(entry, Episode)]


def reasons_of(source: Calvin) -> list[str]:
    return [entry.reason for entry in listed(source) if isinstance(entry, LeftOut)]


def write_labels(root: Path, content: object, folder: str = "lang_annotations") -> None:
    (root / "training" / folder).mkdir(exist_ok=True)
    np.save(root / "training" / folder / "auto_lang_ann.npy", content, allow_pickle=True)  # type: ignore[arg-type]


def labels(*entries: tuple[object, object, object]) -> dict:
    ann, indx = [text for _, _, text in entries], [(first, last) for first, last, _ in entries]
    return {"language": {"ann": ann}, "info": {"indx": indx}}


def test_a_segment_outside_every_episode_is_a_row(root: Path) -> None:
    strays = [entry for entry in listed(Calvin("c", str(root))) if isinstance(entry, LeftOut)]
    assert [(s.reason, s.start, s.end, s.caption) for s in strays] == [
        ("segment_outside_episode", 118, 132, "crosses"),
        ("segment_outside_episode", 500, 511, "nowhere"),
    ]


def test_frames_and_actions_belong_together(root: Path) -> None:
    source = Calvin("c", str(root))
    episode = next(entry for entry in listed(source) if isinstance(entry, Episode))
    for camera in episode.cameras:
        shown = [(i, read_number(f.to_ndarray(format="rgb24"))) for i, f in source.frames(episode, camera, [0, 7, 19])]
        assert shown == [(0, 100), (7, 107), (19, 119)]
    trajectory = source.trajectory(episode, 3, 6)
    assert trajectory is not None
    np.testing.assert_allclose(trajectory.actions[:, 0], [0.103, 0.104, 0.105])
    assert trajectory.proprio is not None
    assert trajectory.proprio.shape == (3, 15)
    absolute = Calvin("c", str(root), actions="actions").trajectory(episode, 3, 4)
    assert absolute is not None
    assert absolute.actions[0, 0] == 103


def test_a_stretch_of_a_trajectory_reads_its_own_frames_only(root: Path) -> None:
    source = Calvin("c", str(root))
    episode = episodes_of(source)[0]
    for number in (102, 106):
        (root / "training" / f"episode_0000{number}.npz").unlink()
    trajectory = source.trajectory(episode, 3, 6)
    assert trajectory is not None
    assert (trajectory.actions.shape, trajectory.actions.dtype) == ((3, 7), np.float32)
    with pytest.raises(DataError, match="missing_file"):
        source.trajectory(episode, 3, 7)
    assert source.latents(episode, "rgb_static") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rel_actions", np.zeros(6)),
        ("rel_actions", np.zeros((7, 1))),
        ("rel_actions", np.array(["1"] * 7)),
        ("robot_obs", np.zeros(14)),
    ],
)
def test_numbers_of_another_shape_are_a_fault(root: Path, key: str, value: np.ndarray) -> None:
    source = Calvin("c", str(root))
    episode = episodes_of(source)[0]
    frame = {"rel_actions": np.zeros(7), "robot_obs": np.zeros(15), key: value}
    np.savez(root / "training" / "episode_0000104.npz", **frame)
    with pytest.raises(DataError, match=f"bad_numbers.*{key}.*0000104"):
        source.trajectory(episode, 3, 6)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_a_picture_of_another_kind_is_a_fault(root: Path, image: np.ndarray) -> None:
    source = Calvin("c", str(root))
    np.savez(root / "training" / "episode_0000100.npz", rgb_static=image)
    ((_, fault),) = source.frames(episodes_of(source)[0], "rgb_static", [0])
    assert isinstance(fault, DataError)
    assert fault.reason == "bad_image"


def test_the_folder_of_frames_is_never_listed(root: Path, monkeypatch) -> None:
    from fsspec.implementations.local import LocalFileSystem

    for name in ("ls", "find", "glob", "walk"):
        monkeypatch.setattr(LocalFileSystem, name, None)
    assert len(episodes_of(Calvin("c", str(root)))) == 2


def test_many_episodes_are_listed_in_parts_and_each_stray_once(tmp_path: Path, monkeypatch) -> None:
    ranges = [(number * 2, number * 2 + 1) for number in range(5)]
    root = write_calvin(tmp_path, ranges, [(2, 3, "a"), (8, 9, "b"), (3, 4, "stray")])
    monkeypatch.setattr(calvin_module, "_EPISODES_PER_PART", 2)
    source = Calvin("c", str(root))
    assert source.parts() == ["training:0:2", "training:2:4", "training:4:6"]
    entries = listed(source)
    assert [entry.episode_id for entry in entries if isinstance(entry, Episode)] == [
        f"training/{first:07d}-{last:07d}" for first, last in ranges
    ]
    assert [entry.caption for entry in entries if isinstance(entry, LeftOut)] == ["stray"]
    assert [[s.caption for s in e.segments] for e in entries if isinstance(e, Episode)] == [[], ["a"], [], [], ["b"]]


def test_frame_numbers_of_another_width_are_found(root: Path) -> None:
    for path in (root / "training").glob("episode_0*.npz"):
        path.rename(path.with_name(path.name.replace("_0", "_")))
    source = Calvin("c", str(root))
    first = episodes_of(source)[0]
    assert first.source_url.endswith("/episode_000100.npz")
    assert [index for index, _ in source.frames(first, "rgb_static", [0, 19])] == [0, 19]


def test_another_language_folder_is_found_or_named(root: Path) -> None:
    (root / "training" / "lang_annotations").rename(root / "training" / "lang_all-mpnet-base-v2")
    assert len(episodes_of(Calvin("c", str(root)))[0].segments) == 3
    write_labels(root, labels((100, 101, "mine")), "lang_mine")
    (first, _) = episodes_of(Calvin("c", str(root), language_folder="lang_mine"))
    assert [segment.caption for segment in first.segments] == ["mine"]
    (missing,) = [
        entry for entry in listed(Calvin("c", str(root), language_folder="lang_no")) if isinstance(entry, LeftOut)
    ]
    assert (missing.status, missing.reason) == ("rejected", "missing_file")
    assert "lang_no" in missing.detail


def test_each_label_ends_as_a_segment_or_as_a_row(root: Path) -> None:
    write_labels(
        root,
        labels(
            (100, 101, " \t"),
            (102, 103, " lift\n it \ud800"),
            (-5, 3, "before"),
            (105, 104, "backwards"),
            (2**63, 2**63, "far"),
        ),
    )
    entries = listed(Calvin("c", str(root)))
    rows = [(e.reason, e.caption, e.start, e.end) for e in entries if isinstance(e, LeftOut)]
    assert rows == [
        ("no_caption", "", 100, 102),
        ("segment_outside_episode", "before", None, None),
        ("segment_outside_episode", "backwards", 105, 105),
        ("segment_outside_episode", "far", None, None),
    ]
    assert [s.caption for e in entries if isinstance(e, Episode) for s in e.segments] == ["lift it"]


@pytest.mark.parametrize(
    "content",
    [
        {"language": {"ann": ["a"]}, "info": {"indx": []}},
        {"language": {}, "info": {"indx": []}},
        ["a"],
        labels((1.5, 2.5, "a")),
        labels((1, 2, 3)),
        labels((1, 10**5000, "a")),
        {"language": {"ann": ["a"]}, "info": {"indx": [(1, 2, 3)]}},
    ],
)
def test_annotations_of_another_shape_are_one_row(root: Path, content: object) -> None:
    write_labels(root, content)
    entries = listed(Calvin("c", str(root)))
    assert [entry.reason for entry in entries if isinstance(entry, LeftOut)] == ["bad_annotation"]
    assert [len(entry.left_out) for entry in entries if isinstance(entry, Episode)] == [1, 1]


def test_an_impossible_range_is_a_row(root: Path) -> None:
    np.save(root / "training" / "ep_start_end_ids.npy", np.array([(100, 119), (139, 130), (-3, 4), (0, 2**62)]))
    source = Calvin("c", str(root))
    assert len(episodes_of(source)) == 1
    assert reasons_of(source).count("bad_range") == 3


@pytest.mark.parametrize("content", [np.zeros((2, 3), np.int64), np.zeros((2, 2)), np.array([{}]), b"garbage", b""])
def test_an_index_of_another_shape_is_the_users_mistake(root: Path, content: np.ndarray | bytes) -> None:
    path = root / "training" / "ep_start_end_ids.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(UsageError, match="ep_start_end_ids"):
        Calvin("c", str(root)).parts()


def test_the_scene_is_told_where_it_is_known(root: Path) -> None:
    assert [episode.locator["scene"] for episode in episodes_of(Calvin("c", str(root)))] == ["", ""]
    scenes = {"calvin_scene_A": [np.int64(0), 119], "calvin_scene_B": [120, 138]}
    np.save(root / "training" / "scene_info.npy", scenes, allow_pickle=True)  # type: ignore[arg-type]
    assert [episode.locator["scene"] for episode in episodes_of(Calvin("c", str(root)))] == ["A", ""]
    (root / "training" / "scene_info.npy").write_bytes(b"cos\nsystem\n(S'touch PWNED'\ntR.")
    assert "unsafe_pickle" in reasons_of(Calvin("c", str(root)))
    np.save(root / "training" / "scene_info.npy", {"calvin_scene_A": 3}, allow_pickle=True)  # type: ignore[arg-type]
    assert "bad_annotation" in reasons_of(Calvin("c", str(root)))


def zipped(names_and_contents: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in names_and_contents:
            archive.writestr(name, content)
    return buffer.getvalue()


def frame_bytes() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, rgb_static=np.arange(300, dtype=np.uint8).reshape(10, 10, 3), actions=np.zeros(7))
    return buffer.getvalue()


def test_a_frame_that_claims_any_size_takes_no_memory() -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**5, 10**5, 3)})
    with pytest.raises(DataError, match="decode_error"):
        _read_arrays(zipped([("rgb_static.npy", header.getvalue())]), ("rgb_static",), "x")
    content = bytearray(zipped([("rgb_static.npy", bytes(1000))], zipfile.ZIP_STORED))
    position = content.rindex(b"PK\x01\x02")
    struct.pack_into("<II", content, position + 20, 2**32 - 2, 2**32 - 2)
    with pytest.raises(DataError, match=r"decode_error.*at most"):
        _read_arrays(bytes(content), ("rgb_static",), "x")


def test_a_pickle_in_a_frame_runs_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickled = b"\x93NUMPY\x01\x00" + struct.pack("<H", 52) + b"{'descr':'|O','fortran_order':False,'shape':(1,)}  \n"
    with pytest.raises(DataError, match="unsafe_pickle"):
        _read_arrays(zipped([("rgb_static.npy", pickled + b"cos\nsystem\n(S'touch PWNED'\ntR.")]), ("rgb_static",), "x")
    assert list(tmp_path.iterdir()) == []


@given(data=st.data())
def test_a_damaged_frame_is_at_worst_a_fault_of_the_data(data: st.DataObject) -> None:
    content = bytearray(frame_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        (image,) = _read_arrays(bytes(content[: data.draw(st.integers(1, len(content)))]), ("rgb_static",), "x")
    except DataError:
        return
    assert isinstance(image, np.ndarray)


def test_a_single_split_can_be_named_by_its_own_folder(root: Path) -> None:
    assert len(listed(Calvin("c", str(root / "training")))) == len(listed(Calvin("c", str(root), split="training")))
    with pytest.raises(UsageError, match="validation"):
        Calvin("c", str(root), split="validation").parts()
    with pytest.raises(UsageError, match="testing"):
        Calvin("c", str(root), split="training,testing").parts()
    with pytest.raises(UsageError, match="cameras"):
        Calvin("c", str(root), cameras=",")
    with pytest.raises(UsageError, match="actions"):
        Calvin("c", str(root), actions="joints")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [("calvin_missing_key.npz", "missing_key"), ("calvin_truncated.npz", "decode_error"), (None, "missing_file")],
)
def test_a_broken_frame_has_its_reason(root: Path, shared_data: Path, broken: str | None, reason: str) -> None:
    source = Calvin("c", str(root))
    episode = next(entry for entry in listed(source) if isinstance(entry, Episode))
    frame = root / "training" / "episode_0000105.npz"
    frame.unlink()
    if broken:
        shutil.copy(shared_data / "broken" / broken, frame)
    pairs = list(source.frames(episode, "rgb_static", range(20)))
    faults = {index: frame for index, frame in pairs if isinstance(frame, DataError)}
    assert {index: fault.reason for index, fault in faults.items()} == {5: reason}
    assert "0000105" in faults[5].detail


def test_hostile_annotations_are_a_row_and_run_nothing(
    root: Path, shared_data: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(
        shared_data / "broken" / "evil_lang_ann.npy", root / "training" / "lang_annotations" / "auto_lang_ann.npy"
    )
    entries = listed(Calvin("c", str(root)))
    assert [entry.reason for entry in entries if isinstance(entry, LeftOut)] == ["unsafe_pickle"]
    assert not (tmp_path / "PWNED").exists()


def test_the_real_sample(shared_data: Path) -> None:
    source = Calvin("c", str(shared_data / "calvin_sim" / "task_sample"))
    episodes = [entry for entry in listed(source) if isinstance(entry, Episode)]
    assert [episode.num_frames for episode in episodes] == [72, 72, 64]
    captions = [segment.caption for episode in episodes for segment in episode.segments]
    assert len(captions) == 6
    assert captions[0] == "push the handle of the drawer"
    assert (episodes[0].segments[0].start, episodes[0].segments[0].end) == (0, 37)
    (frame,) = [f for _, f in source.frames(episodes[0], "rgb_gripper", [71])]
    assert (frame.height, frame.width) == (84, 84)
    assert [episode.locator["scene"] for episode in episodes] == ["D", "D", "D"]
    trajectory = source.trajectory(episodes[2], 60, 64)
    assert trajectory is not None
    assert trajectory.proprio is not None
    assert (trajectory.actions.shape, trajectory.proprio.shape) == ((4, 7), (4, 15))
    with np.load(shared_data / "calvin_sim/task_sample/validation/episode_0553627.npz") as last:
        np.testing.assert_array_equal(trajectory.actions[0], last["rel_actions"].astype(np.float32))
        np.testing.assert_array_equal(trajectory.proprio[0], last["robot_obs"].astype(np.float32))
