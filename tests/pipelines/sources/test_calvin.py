"""CALVIN: inclusive ranges become half-open ones, every segment is placed or told, every broken frame has its reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from layouts import write_calvin
from videos import read_number

from pipelines.sources.calvin import Calvin
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


def test_a_single_split_can_be_named_by_its_own_folder(root: Path) -> None:
    assert len(listed(Calvin("c", str(root / "training")))) == len(listed(Calvin("c", str(root), split="training")))
    with pytest.raises(UsageError, match="validation"):
        Calvin("c", str(root), split="validation").parts()
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
    faults = {
        index: frame for index, frame in source.frames(episode, "rgb_static", range(20)) if isinstance(frame, DataError)
    }
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
