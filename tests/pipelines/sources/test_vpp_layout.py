"""The VPP authors' layout: what an annotation names is found, checked and aligned, or told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layouts import write_vpp_layout
from videos import read_number, write_video

import pipelines.sources.vpp_layout as vpp_layout_module
from pipelines.sources.vpp_layout import VPPLayout
from pipelines.video_file import count_frames, probe
from schemas.episode import Episode, LeftOut
from schemas.errors import DataError, UsageError


def listed(source: VPPLayout) -> list[Episode | LeftOut]:
    return [entry for part in source.parts() for entry in source.list_part(part)]


def first_of(source: VPPLayout) -> Episode:
    (entry, *_) = listed(source)
    assert isinstance(entry, Episode), entry
    return entry


def reason_of_first(source: VPPLayout) -> str:
    (entry, *_) = listed(source)
    assert isinstance(entry, LeftOut), entry
    return entry.reason


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
    assert (episode.num_frames, episode.fps, episode.action_dim) == (21, 0.0, 3)
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


def test_latents_cannot_leave_the_dataset_either(root: Path) -> None:
    annotate(root, "0", latent_videos=[{"latent_video_path": "latent_videos/../../outside.pt"}])
    assert reason_of_first(VPPLayout("v", str(root))) == "path_outside_root"


def test_listing_opens_no_video_whose_length_is_told(root: Path, monkeypatch) -> None:
    for name in ("probe", "count_frames"):
        monkeypatch.setattr(vpp_layout_module, name, None)
    assert [e.num_frames for e in listed(VPPLayout("v", str(root))) if isinstance(e, Episode)] == [20, 21, 22]
    annotate(root, "0", video_length=None)  # then the states tell
    assert first_of(VPPLayout("v", str(root))).num_frames == 20
    annotate(root, "0", state=None, states=[[0.0]] * 20)
    assert first_of(VPPLayout("v", str(root))).num_frames == 20


@pytest.mark.parametrize("length", [None, 0, -3, True, "20", 20.0])
def test_a_length_that_is_not_told_is_counted(root: Path, length: object) -> None:
    annotate(root, "0", video_length=length, state=None)
    episode = first_of(VPPLayout("v", str(root)))
    assert (episode.num_frames, episode.fps) == (20, 30.0)


def test_frames_per_second_come_from_the_option_or_the_header(root: Path) -> None:
    assert first_of(VPPLayout("v", str(root), fps="12.5")).fps == 12.5
    assert first_of(VPPLayout("v", str(root), fps="header")).fps == 30.0
    for wrong in ("fast", "0", "-1", "inf", "nan"):
        with pytest.raises(UsageError, match="fps"):
            VPPLayout("v", str(root), fps=wrong)


@pytest.mark.parametrize(
    ("texts", "caption"),
    [
        ([" "], ""), ([], ""), (None, ""), (["", "second"], "second"), ("one string", "one string"), ([" a\n b \ud800"], "a b"),
    ],
)  # fmt: skip
def test_the_first_text_is_the_caption_or_there_is_a_row(root: Path, texts: object, caption: str) -> None:
    annotate(root, "0", texts=texts)
    episode = first_of(VPPLayout("v", str(root)))
    assert [(s.start, s.end, s.caption) for s in episode.segments] == ([(0, 20, caption)] if caption else [])
    assert [left_out.reason for left_out in episode.left_out] == ([] if caption else ["no_caption"])
    assert Episode.from_json(episode.to_json().encode().decode()) == episode


@pytest.mark.parametrize(
    "changes",
    [
        {"texts": [3]},
        {"texts": {"a": 1}},
        {"videos": None},
        {"videos": []},
        {"videos": {"video_path": "x"}},
        {"videos": ["x"]},
        {"videos": [{"video_path": 3}]},
        {"videos": [{"video_path": "\ud800.mp4"}]},
        {"latent_videos": "x"},
        {"latent_videos": [{"latent_video_path": None}]},
        {"action": 5},
        {"action": {"0": [1]}},
        {"state": "x", "video_length": None},
        {"video_length": 10**12},
    ],
    ids=repr,
)
def test_annotations_of_another_shape_are_rows(root: Path, changes: dict) -> None:
    annotate(root, "0", **changes)
    assert reason_of_first(VPPLayout("v", str(root))) == "bad_annotation"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"video_length": 1' + b"0" * 5000 + b"}"]
)
def test_what_is_no_json_is_a_row(root: Path, content: bytes) -> None:
    (root / "annotation" / "train" / "0.json").write_bytes(content)
    assert reason_of_first(VPPLayout("v", str(root))) == "bad_json"


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["video_path", "latent_video_path", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    key=st.sampled_from(["texts", "videos", "latent_videos", "video_length", "state", "states", "action", "actions"]),
    value=VALUES,
)
def test_any_json_lists_and_reads_without_another_fault_than_the_datas(root: Path, key: str, value: object) -> None:
    path = root / "annotation" / "train" / "0.json"
    before = path.read_text()
    try:
        annotate(root, "0", **{key: value})
        source = VPPLayout("v", str(root))
        entry, *others = listed(source)
        assert len(others) == 2
        if isinstance(entry, LeftOut):
            assert entry.reason in ("bad_annotation", "missing_file", "path_outside_root")
        else:
            try:
                source.trajectory(entry, 0, 1)
            except DataError as error:
                assert error.reason in ("bad_annotation", "bad_numbers", "inconsistent_lengths")  # noqa: PT017
    finally:
        path.write_text(before)


def test_cameras_are_named_after_their_files_or_their_position_and_can_be_chosen(root: Path) -> None:
    for name in ("left", "right"):
        write_video(root / "videos" / f"{name}.mp4", 20)
    paths = ["videos/left.mp4", "videos/right.mp4"]
    annotate(
        root,
        "0",
        videos=[{"video_path": path} for path in paths],
        latent_videos=[{"latent_video_path": "a/0.pt"}, {"latent_video_path": "a/1.pt"}],
    )
    (root / "a").mkdir()
    torch.save(torch.full((20, 4, 32, 32), 0.5), root / "a" / "1.pt")
    source = VPPLayout("v", str(root))
    episode = first_of(source)
    assert episode.cameras == ("left", "right")
    assert [source.latents(episode, camera) is None for camera in episode.cameras] == [True, False]
    chosen, *others = listed(VPPLayout("v", str(root), cameras="right"))
    assert isinstance(chosen, Episode)
    assert chosen.cameras == ("right",)
    assert source.latents(chosen, "right") is not None
    assert len(list(source.frames(chosen, "right", [0, 19]))) == 2
    assert [other.reason for other in others if isinstance(other, LeftOut)] == ["missing_camera"] * 2
    annotate(root, "0", videos=[{"video_path": paths[0]}, {"video_path": paths[0]}])
    assert first_of(source).cameras == ("0", "1")


def test_a_missing_video_of_a_camera_that_is_not_wanted_does_not_matter(root: Path) -> None:
    annotate(root, "0", videos=[{"video_path": "videos/train/0/rgb.mp4"}, {"video_path": "videos/none.mp4"}])
    assert reason_of_first(VPPLayout("v", str(root))) == "missing_file"
    assert first_of(VPPLayout("v", str(root), cameras="rgb")).cameras == ("rgb",)


def test_many_annotations_are_listed_in_parts(root: Path, monkeypatch) -> None:
    whole = listed(VPPLayout("v", str(root)))
    monkeypatch.setattr(vpp_layout_module, "_FILES_PER_PART", 2)
    source = VPPLayout("v", str(root))
    assert [part.split("/")[0] for part in source.parts()] == ["train", "train"]
    assert listed(source) == whole


def test_the_id_follows_from_the_file_whatever_the_annotation_calls_itself(root: Path) -> None:
    for name in ("0", "1", "2"):
        annotate(root, name, episode_id="the same")
    assert [e.episode_id for e in listed(VPPLayout("v", str(root))) if isinstance(e, Episode)] == [
        "train/0",
        "train/1",
        "train/2",
    ]


def test_splits_are_found_or_named(root: Path) -> None:
    (root / "annotation" / "README.txt").write_text("not a split")
    (root / "annotation" / "empty").mkdir()
    shutil.copytree(root / "annotation" / "train", root / "annotation" / "val")
    assert [entry.split for entry in listed(VPPLayout("v", str(root)))] == ["train"] * 3 + ["val"] * 3
    assert [entry.split for entry in listed(VPPLayout("v", str(root), split="val"))] == ["val"] * 3
    with pytest.raises(UsageError, match=r"split.*test"):
        VPPLayout("v", str(root), split="val,test").parts()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"action": [[1.0, 2.0], [3.0]] * 10}, "bad_numbers"),
        ({"action": [["x"]] * 20}, "bad_numbers"),
        ({"state": [[0.0]] * 19}, "inconsistent_lengths"),
        ({"state": [[0.0], {}] * 10}, "bad_numbers"),
    ],
)
def test_numbers_that_do_not_fit_have_a_reason(root: Path, changes: dict, reason: str) -> None:
    annotate(root, "0", **changes)
    source = VPPLayout("v", str(root))
    with pytest.raises(DataError, match=reason):
        source.trajectory(first_of(source), 0, 5)


def test_other_spellings_of_actions_and_states_are_read(root: Path) -> None:
    annotate(
        root, "0", action=None, actions=[float(frame) for frame in range(20)], state=None, states=[[1.0, 2.0]] * 20
    )
    source = VPPLayout("v", str(root))
    episode = first_of(source)
    trajectory = source.trajectory(episode, 18, 20)
    assert trajectory is not None
    assert (episode.action_dim, trajectory.actions.tolist()) == (1, [[18.0], [19.0]])
    assert trajectory.proprio is not None
    assert trajectory.proprio.dtype == np.float32
    annotate(root, "0", states=None)
    trajectory = source.trajectory(episode, 0, 2)
    assert trajectory is not None
    assert trajectory.proprio is None
    annotate(root, "0", actions=None)
    assert source.trajectory(first_of(VPPLayout("v", str(root))), 0, 2) is None


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
        (torch.zeros(20, 4, 32, 32, dtype=torch.int32), "latents_not_aligned"),
        (torch.zeros(20, 4, 32, 32).to_sparse(), "unsafe_pickle"),  # its numbers can stand for any size
        (Path("/x"), "unsafe_pickle"),
        (b"hello world", "decode_error"),
        (b"", "decode_error"),
        (None, "decode_error"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_latents_that_are_unusable_have_a_reason(root: Path, content: object, reason: str) -> None:
    annotate(root, "0", latent_videos=[{"latent_video_path": "latent_videos/0.pt"}])
    (root / "latent_videos").mkdir()
    path = root / "latent_videos" / "0.pt"
    if content is None:
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    source = VPPLayout("v", str(root))
    (episode, *_) = listed(source)
    assert isinstance(episode, Episode)
    with pytest.raises(DataError) as error:
        source.latents(episode, "0")
    assert error.value.reason == reason


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_latents_of_another_precision_or_as_a_parameter_load_as_float32(root: Path, dtype: torch.dtype) -> None:
    annotate(root, "0", latent_videos=[{"latent_video_path": "0.pt"}])
    torch.save(torch.nn.Parameter(torch.full((20, 4, 32, 32), 0.5, dtype=dtype)), root / "0.pt")
    source = VPPLayout("v", str(root))
    latents = source.latents(first_of(source), "0")
    assert latents is not None
    assert (latents.dtype, latents.mean()) == (np.float32, 0.5)


def test_half_a_file_of_latents_is_a_fault_of_the_data(root: Path) -> None:
    annotate(root, "0", latent_videos=[{"latent_video_path": "0.pt"}])
    torch.save(torch.zeros(20, 4, 32, 32), root / "0.pt")
    (root / "0.pt").write_bytes((root / "0.pt").read_bytes()[:100_000])
    source = VPPLayout("v", str(root))
    with pytest.raises(DataError, match="decode_error"):
        source.latents(first_of(source), "0")


def test_a_folder_of_another_kind_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="annotation"):
        VPPLayout("v", str(tmp_path)).parts()


def test_real_samples(shared_data: Path) -> None:
    for name, lengths in (("bridge", [24, 40, 43]), ("sthv2", [47, 39, 55])):
        source = VPPLayout("v", str(shared_data / "vpp_layout" / name))
        episodes = [entry for entry in listed(source) if isinstance(entry, Episode)]
        assert [episode.num_frames for episode in episodes] == lengths
        for episode in episodes:
            video = shared_data / "vpp_layout" / name / episode.locator["videos"]["0"]
            assert count_frames(str(video)) == episode.num_frames
            latents, trajectory = source.latents(episode, "0"), source.trajectory(episode, 0, episode.num_frames)
            if name == "bridge":
                assert latents is not None
                assert latents.shape == (episode.num_frames, 4, 32, 32)
                assert trajectory is not None
                assert trajectory.proprio is not None
                assert (trajectory.actions.shape, trajectory.proprio.shape) == (
                    (episode.num_frames - 1, 7),
                    (episode.num_frames, 7),
                )
            else:
                assert latents is None
                assert trajectory is None


def test_a_real_video_of_odd_width_and_untold_length_is_read_to_its_end(shared_data: Path) -> None:
    source = VPPLayout("v", str(shared_data / "vpp_layout" / "sthv2"), fps="header")
    episode = first_of(source)
    assert (episode.episode_id, episode.fps) == ("val/1023", 12.0)
    assert probe(str(shared_data / "vpp_layout/sthv2/videos/1023.webm")).num_frames == 0
    frames = list(source.frames(episode, "0", range(episode.num_frames)))
    assert [index for index, _ in frames] == list(range(47))
    assert {(frame.width, frame.height) for _, frame in frames} == {(361, 240)}
    with pytest.raises(DataError, match="frame_out_of_range"):
        list(source.frames(episode, "0", [47]))


def test_broken_samples(shared_data: Path, root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    broken = shared_data / "broken"
    for number, name in enumerate(("truncated.mp4", "zero_bytes.mp4", "not_a_video.mp4")):
        shutil.copy(broken / name, root / "videos" / "train" / str(number) / "rgb.mp4")
    shutil.copy(broken / "annotation_missing_video.json", root / "annotation" / "train" / "3.json")
    shutil.copy(broken / "bad_json.json", root / "annotation" / "train" / "4.json")
    expected = ["not_a_video", "empty_file", "not_a_video"]
    source = VPPLayout("v", str(root))
    entries = listed(source)
    assert [entry.reason for entry in entries if isinstance(entry, LeftOut)] == ["missing_file", "bad_json"]
    for episode, reason in zip(entries[:3], expected, strict=True):
        assert isinstance(episode, Episode)
        with pytest.raises(DataError, match=reason):
            list(source.frames(episode, "0", [0]))
    asked = listed(VPPLayout("v", str(root), fps="header"))
    assert [entry.reason for entry in asked if isinstance(entry, LeftOut)] == [*expected, "missing_file", "bad_json"]


def test_the_hostile_latents_run_nothing(shared_data: Path, root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    annotate(root, "0", latent_videos=[{"latent_video_path": "latents_evil.pt"}])
    shutil.copy(shared_data / "broken" / "latents_evil.pt", root / "latents_evil.pt")
    source = VPPLayout("v", str(root))
    with pytest.raises(DataError, match="unsafe_pickle"):
        source.latents(first_of(source), "0")
    assert not (tmp_path / "PWNED").exists()
