"""A shard's samples: right frames, each video opened once, faults as rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from videos import read_number, write_video

from pipelines import frames as frames_module
from pipelines.decode import decode_shard
from pipelines.encode_video import VideoSettings, decode_video
from pipelines.plan import ShardSettings, make_plan
from pipelines.plan_files import load_shard
from pipelines.sources.source import Trajectory
from pipelines.video_file import read_frames
from pipelines.windows import WindowSettings
from schemas.clip import PlannedShard
from schemas.episode import Episode, Segment
from schemas.errors import DataError


class VideoFolder:
    """A source of videos named in `source_url`, with two cameras that show the same."""

    kind = "test"

    def __init__(self) -> None:
        self.opened: list[tuple[str, str]] = []

    def frames(self, episode: Episode, camera: str, indices: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        self.opened.append((episode.episode_id, camera))
        for index, frame in read_frames(episode.source_url, indices):
            if episode.episode_id == "cut" and index >= 30:
                raise DataError("frame_out_of_range", "the video ends at 30")
            is_damaged = episode.episode_id == "damaged" and index == 30
            yield index, DataError("decode_error", "frame 30 is damaged") if is_damaged else frame

    def trajectory(self, episode: Episode, start: int, end: int) -> Trajectory:
        steps = np.arange(start, end, dtype=np.float32)[:, None]
        actions = np.repeat(steps, 3, axis=1)
        if episode.episode_id == "nan":
            actions[2, 1] = np.nan
        return Trajectory(actions, steps * 2)

    def latents(self, episode: Episode, camera: str) -> np.ndarray | None:
        if episode.episode_id != "with latents":
            return None
        return np.arange(60, dtype=np.float32)[:, None, None, None] * np.ones((1, 4, 32, 32), np.float32)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_video(tmp_path_factory.mktemp("video") / "v.mp4", 60, size=(128, 96)))


def plan_of(
    tmp_path: Path, episode_id: str, video: str, product: str, window: WindowSettings | None = None
) -> PlannedShard:
    episode = Episode(episode_id, "train", video, 60, 30.0, ("left", "right"), (Segment(0, 60, "count"),), 3)
    window = window or WindowSettings(mode="sliding", stride=2, hop=4)
    make_plan(str(tmp_path), "d", [episode], window, ShardSettings(), (product,))
    return load_shard(str(tmp_path), "d", product, 0)


def test_clips_show_their_planned_frames_and_each_video_is_opened_once(tmp_path: Path, video: str) -> None:
    source = VideoFolder()
    shard = plan_of(tmp_path, "e", video, "clips")
    samples = decode_shard(shard, source, VideoSettings())
    planned = [sample for _, of_episode in shard.items for sample in of_episode]
    assert source.opened == [("e", "left"), ("e", "right")]
    assert [sample.row["clip_id"] for sample in samples] == [sample.sample_id for sample in planned]
    for plan, sample in zip(planned, samples, strict=True):
        ((name, content),) = sample.members
        assert name == "mp4"
        decoded = decode_video(content)
        assert decoded.shape == (16, 256, 256, 3)
        assert [read_number(frame) for frame in decoded] == list(plan.indices)


def test_frames_have_the_size_that_is_asked_for(tmp_path: Path, video: str) -> None:
    for product in ("clips", "episodes"):
        shard = plan_of(tmp_path / product, "e", video, product)
        made = decode_shard(shard, VideoFolder(), VideoSettings(frame_size=64))[0]
        (_, stored), *_ = made.members
        assert decode_video(stored).shape[1:] == (64, 64, 3)
    with pytest.raises(ValueError, match="multiple of 64"):
        VideoSettings(frame_size=100)


def test_every_frame_is_resized_once_however_many_clips_share_it(
    tmp_path: Path, video: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    resize = frames_module.FrameResizer.__call__
    monkeypatch.setattr(frames_module.FrameResizer, "__call__", lambda self, f: calls.append(1) or resize(self, f))
    shard = plan_of(tmp_path, "e", video, "clips", WindowSettings(mode="sliding", stride=2, hop=2))
    decode_shard(shard, VideoFolder(), VideoSettings())
    distinct = {index for _, samples in shard.items for sample in samples for index in sample.indices}
    assert len(calls) == 2 * len(distinct)


@pytest.mark.parametrize(("episode_id", "reason"), [("cut", "frame_out_of_range"), ("damaged", "decode_error")])
def test_a_fault_in_the_middle_costs_only_the_clips_that_need_it(
    tmp_path: Path, video: str, episode_id: str, reason: str
) -> None:
    window = WindowSettings(mode="sliding", stride=1, hop=4, at_end="drop")
    samples = decode_shard(plan_of(tmp_path, episode_id, video, "clips", window), VideoFolder(), VideoSettings())
    outcomes = set()
    for sample in samples:
        indices = sample.row["frame_indices"]
        needs_fault = indices[-1] >= 30 if episode_id == "cut" else 30 in indices
        assert bool(sample.members) is not needs_fault
        outcomes.add((needs_fault, sample.row.get("reason", "")))
    assert outcomes == {(False, ""), (True, reason)}


def test_a_fault_anywhere_rejects_the_trajectory(tmp_path: Path, video: str) -> None:
    (sample,) = decode_shard(plan_of(tmp_path, "damaged", video, "episodes"), VideoFolder(), VideoSettings())
    assert (sample.row["status"], sample.row["reason"]) == ("rejected", "decode_error")


def test_a_camera_that_shows_nothing_is_filtered(tmp_path: Path) -> None:
    path = tmp_path / "blank.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 7, np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    samples = decode_shard(plan_of(tmp_path, "e", str(path), "clips"), VideoFolder(), VideoSettings())
    assert {(sample.row["status"], sample.row["reason"]) for sample in samples} == {("filtered", "blank")}


def test_a_trajectory_has_every_camera_actions_proprioception_and_statistics(tmp_path: Path, video: str) -> None:
    (sample,) = decode_shard(plan_of(tmp_path, "e", video, "episodes"), VideoFolder(), VideoSettings())
    assert [name for name, _ in sample.members] == ["left.mp4", "right.mp4", "actions.npy", "proprio.npy"]
    assert [read_number(frame) for frame in decode_video(sample.members[1][1])] == list(range(60))
    assert (sample.row["num_actions"], sample.row["action_dim"], sample.row["proprio_dim"]) == (60, 3, 1)
    assert sample.row["action_max"] == [59.0] * 3
    assert sample.row["proprio_mean"] == [59.0]


def test_actions_that_are_no_numbers_reject_the_trajectory(tmp_path: Path, video: str) -> None:
    (sample,) = decode_shard(plan_of(tmp_path, "nan", video, "episodes"), VideoFolder(), VideoSettings())
    assert (sample.row["status"], sample.row["reason"], sample.members) == ("rejected", "bad_numbers", [])


def test_latents_of_the_source_are_taken_over_frame_by_frame(tmp_path: Path, video: str) -> None:
    import io

    shard = plan_of(tmp_path, "with latents", video, "clips")
    for sample in decode_shard(shard, VideoFolder(), VideoSettings()):
        latents = np.load(io.BytesIO(dict(sample.members)["latents.npy"]))
        assert (latents.shape, latents.dtype) == ((16, 4, 32, 32), np.float16)
        assert latents[:, 0, 0, 0].tolist() == sample.row["frame_indices"]
    assert all(len(sample.members) == 1 for sample in decode_shard(shard, VideoFolder(), VideoSettings(), False))
    for sample in decode_shard(shard, VideoFolder(), VideoSettings(frame_size=128)):
        assert len(sample.members) == 1
        assert sample.row["detail"].endswith("expected (4, 16, 16) for stored frames, found (4, 32, 32)")


@pytest.mark.parametrize(("reason", "is_kept"), [("latents_not_aligned", True), ("unsafe_pickle", False)])
def test_latents_that_do_not_fit_are_left_out_and_hostile_ones_reject(
    tmp_path: Path, video: str, reason: str, is_kept: bool
) -> None:
    class Faulty(VideoFolder):
        def latents(self, episode: Episode, camera: str) -> np.ndarray | None:
            raise DataError(reason, "of another length")

    for product in ("clips", "episodes"):
        for sample in decode_shard(plan_of(tmp_path / product, "e", video, product), Faulty(), VideoSettings()):
            assert bool(sample.members) is is_kept
            assert not any("latents" in name for name, _ in sample.members)
            assert "of another length" in sample.row["detail"]


def test_a_missing_video_rejects_all_its_clips_with_the_reason(tmp_path: Path) -> None:
    samples = decode_shard(plan_of(tmp_path, "e", "/nowhere/v.mp4", "clips"), VideoFolder(), VideoSettings())
    assert {(sample.row["status"], sample.row["reason"]) for sample in samples} == {("rejected", "missing_file")}
