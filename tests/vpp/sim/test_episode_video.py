"""Episodes encoded apart and put one behind another keep every frame, evenly spaced."""

from __future__ import annotations

import io
from pathlib import Path

import av
import pytest
from stored_episodes import stored_video
from videos import numbered_frame, read_number

from pipelines.video_file import read_frames
from vpp.sim.episode_video import EpisodeVideo, concatenate


def encode(first: int, length: int, size: tuple[int, int] = (64, 48)) -> bytes:
    video = EpisodeVideo(80.0)
    for number in range(first, first + length):
        video.add(numbered_frame(number, *size))
    return video.finish()


def test_frames_of_all_episodes_stand_in_order_with_even_time_stamps(tmp_path: Path) -> None:
    path = tmp_path / "all.mp4"
    with path.open("wb") as handle:
        concatenate([encode(0, 13), encode(13, 1), encode(14, 27)], 80.0, handle)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        assert container.streams.video[0].frames == 41
        assert container.streams.video[0].average_rate == 80
    assert [read_number(frame.to_ndarray(format="rgb24")) for frame in frames] == list(range(41))
    assert [frame.time for frame in frames] == pytest.approx([number / 80 for number in range(41)])
    assert [number for number, frame in enumerate(frames) if frame.key_frame] == [0, 10, 13, 14, 24, 34]
    (late,) = read_frames(str(path), [37])
    assert read_number(late[1].to_ndarray(format="rgb24")) == 37


def test_videos_with_b_frames_keep_their_order_however_short_they_are(tmp_path: Path) -> None:
    videos = [stored_video(first, length) for first, length in ((0, 1), (1, 23), (24, 2), (26, 12))]
    path = tmp_path / "all.mp4"
    with path.open("wb") as handle:
        concatenate(videos, 10.0, handle)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert [read_number(frame.to_ndarray(format="rgb24")) for frame in frames] == list(range(38))
    assert [frame.time for frame in frames] == pytest.approx([number / 10 for number in range(38)])


def test_the_same_pictures_give_the_same_bytes() -> None:
    assert encode(5, 12) == encode(5, 12)
    one, other = io.BytesIO(), io.BytesIO()
    for handle in (one, other):
        concatenate([encode(0, 3), encode(3, 4)], 80.0, handle)
    assert one.getvalue() == other.getvalue()


def test_videos_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="one encoder, size and setting"):
        concatenate([encode(0, 3), encode(0, 3, (80, 48))], 80.0, io.BytesIO())
