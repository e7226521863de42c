"""The VPP authors' layout: what an annotation names is found, checked and aligned, or told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import write_vpp_layout
from videos import read_number

from pipelines.sources.vpp_layout import VPPLayout
from pipelines.video_file import count_frames
from schemas.episode import Episode, LeftOut
from schemas.errors import DataError, UsageError


def listed(source: VPPLayout) -> list[Episode | LeftOut]:
    return [entry for part in source.parts() for entry in source.list_part(part)]


def annotate(root: Path, name: str, **changes: object) -> None:
    path = root / "annotation" / "train" / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_vpp_layout(tmp_path / "set", num_episodes=3, num_frames=20)


def test_episodes_videos_and_actions_belong_together(root: Path) -> None:
    source = VPPLayout("v", str(root))
    episodes = listed(source)
    assert [e.episode_id for e in episodes] == ["train/0", "train/1", "train/2"]
    episode = episodes[1]
    assert isinstance(episode, Episode)
    assert (episode.num_frames, episode.fps, episode.action_dim) == (21, 30.0, 3)
    shown = [(i, read_number(f.to_ndarray(format="rgb24"))) for i, f in source.frames(episode, "0", [0, 20])]
    assert shown == [(0, 0), (20, 20)]
    trajectory = source.trajectory(episode, 10, 21)
    assert trajectory is not None
    assert trajectory.actions[:, 0].tolist() == list(range(10, 20))  # no action at the last frame
    assert trajectory.proprio is not None
    assert trajectory.proprio.shape == (11, 2)


def test_faulty_annotations_are_rows(root: Path) -> None:
    (root / "annotation" / "train" / "0.json").write_text('{"texts": [,')
    annotate(root, "1", videos=[{"video_path": "videos/train/none.mp4"}])
    annotate(root, "2", videos=[{"path": "x"}])
    reasons = [entry.reason for entry in listed(VPPLayout("v", str(root))) if isinstance(entry, LeftOut)]
    assert reasons == ["bad_json", "missing_file", "bad_annotation"]


@pytest.mark.parametrize("path", ["../outside.mp4", "/etc/hostname", "a/../../outside.mp4", "s3://bucket/x"])
def test_a_path_cannot_leave_the_dataset(root: Path, path: str) -> None:
    (root.parent / "outside.mp4").write_bytes(b"secret")
    annotate(root, "0", videos=[{"video_path": path}])
    (entry, *_) = listed(VPPLayout("v", str(root)))
    assert isinstance(entry, LeftOut)
    assert entry.reason == "path_outside_root"


def test_a_missing_text_is_a_row_and_a_missing_length_is_counted(root: Path) -> None:
    annotate(root, "0", texts=[" "])
    annotate(root, "1", video_length=None, state=None)
    first, second, _ = listed(VPPLayout("v", str(root)))
    assert isinstance(first, Episode)
    assert [left_out.reason for left_out in first.left_out] == ["no_caption"]
    assert isinstance(second, Episode)
    assert second.num_frames == 21


def test_actions_that_do_not_fit_the_frames_are_a_fault(root: Path) -> None:
    annotate(root, "0", action=[[1.0, 2.0, 3.0]] * 7)
    source = VPPLayout("v", str(root))
    (episode, *_) = listed(source)
    assert isinstance(episode, Episode)
    with pytest.raises(DataError, match="inconsistent_lengths"):
        source.trajectory(episode, 0, 20)


@pytest.mark.parametrize("folder", ["latent_videos", "latent_videos_svd"])
def test_latents_are_found_under_either_folder_name(root: Path, folder: str) -> None:
    annotate(root, "0", latent_videos=[{"latent_video_path": "latent_videos/train/0/0.pt"}])
    (root / folder / "train" / "0").mkdir(parents=True)
    torch.save(torch.full((20, 4, 32, 32), 0.5), root / folder / "train" / "0" / "0.pt")
    source = VPPLayout("v", str(root))
    first, second, _ = listed(source)
    assert isinstance(first, Episode)
    assert isinstance(second, Episode)
    latents = source.latents(first, "0")
    assert latents is not None
    assert (latents.shape, latents.dtype) == ((20, 4, 32, 32), np.float32)
    assert source.latents(second, "0") is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (torch.zeros(19, 4, 32, 32), "latents_not_aligned"),
        (torch.full((20, 4, 32, 32), torch.nan), "latents_not_aligned"),
        ({"latents": torch.zeros(20, 4, 32, 32)}, "latents_not_aligned"),
        (Path("/x"), "unsafe_pickle"),
    ],
)
def test_latents_that_are_unusable_have_a_reason(root: Path, content: object, reason: str) -> None:
    annotate(root, "0", latent_videos=[{"latent_video_path": "latent_videos/0.pt"}])
    (root / "latent_videos").mkdir()
    torch.save(content, root / "latent_videos" / "0.pt")
    source = VPPLayout("v", str(root))
    (episode, *_) = listed(source)
    assert isinstance(episode, Episode)
    with pytest.raises(DataError) as error:
        source.latents(episode, "0")
    assert error.value.reason == reason


def test_a_folder_of_another_kind_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="annotation"):
        VPPLayout("v", str(tmp_path)).parts()


def test_real_samples(shared_data: Path) -> None:
    for name, lengths in (("bridge", [24, 40, 43]), ("sthv2", [47, 39, 55])):
        source = VPPLayout("v", str(shared_data / "vpp_layout" / name))
        episodes = [entry for entry in listed(source) if isinstance(entry, Episode)]
        assert [episode.num_frames for episode in episodes] == lengths
        for episode in episodes:
            video = shared_data / "vpp_layout" / name / episode.locator["videos"][0]
            assert count_frames(str(video)) == episode.num_frames
            latents = source.latents(episode, "0")
            if name == "bridge":
                assert latents is not None
                assert latents.shape == (episode.num_frames, 4, 32, 32)
            else:
                assert latents is None


def test_broken_samples(shared_data: Path, root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    broken = shared_data / "broken"
    for number, name in enumerate(("truncated.mp4", "zero_bytes.mp4", "not_a_video.mp4")):
        shutil.copy(broken / name, root / "videos" / "train" / str(number) / "rgb.mp4")
    shutil.copy(broken / "annotation_missing_video.json", root / "annotation" / "train" / "3.json")
    shutil.copy(broken / "bad_json.json", root / "annotation" / "train" / "4.json")
    reasons = [entry.reason for entry in listed(VPPLayout("v", str(root))) if isinstance(entry, LeftOut)]
    assert reasons == ["not_a_video", "empty_file", "not_a_video", "missing_file", "bad_json"]
    from pipelines.sources.vpp_layout import _read_latents

    with pytest.raises(DataError, match="unsafe_pickle"):
        _read_latents(str(broken / "latents_evil.pt"), 24)
    assert not (tmp_path / "PWNED").exists()
