"""Clips that show the same frames from several cameras are paired, and the loader brings the other camera's first frame."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_clips import MODELS, members
from s3 import S3Server
from small_dataset import clip_video, write_shard
from videos import read_number

from pipelines.selection import save_selection
from schemas.errors import DataError, UsageError
from vpp.data.clip_index import ClipIndex
from vpp.data.clip_reader import read_clips
from vpp.data.loader import ClipLoader
from vpp.data.other_camera import next_camera
from vpp.data.settings import DataSettings
from vpp.data.streams import training_order

Clip = tuple[str, int, str, str]
"""Source episode, first frame, caption, camera."""


def write_views(url: str, *shards: Sequence[Clip], dataset: str = "a", with_video: bool = False) -> ClipIndex:
    """Writes shards of clips; the frames of the n-th clip show the numbers from 16 n on."""
    numbers = itertools.count()
    for part, clips in enumerate(shards):
        samples = {}
        for (episode, start, caption, camera), number in zip(clips, numbers, strict=False):
            row = {
                "source_episode": episode, "start_frame": start, "end_frame": start + 31, "caption": caption,
                "camera": camera, **MODELS,
            }  # fmt: skip
            video = clip_video(16 * number) if with_video else b"video"
            samples[f"{dataset}{number:019x}"] = (row, members(number, video))
        write_shard(url, dataset, f"{part:06d}", samples)
    return ClipIndex.read(url)


clips = st.tuples(st.sampled_from("ef"), st.sampled_from([0, 2]), st.sampled_from(["x", "y"]), st.sampled_from("lmr"))


@settings(max_examples=40, deadline=None)
@given(st.lists(clips, min_size=1, max_size=30), st.integers(1, 29))
def test_pairs_show_the_same_moment_from_the_next_camera(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Clip], cut: int
) -> None:
    shards = [part for part in (drawn[:cut], drawn[cut:]) if part]
    index = write_views(str(tmp_path_factory.mktemp("views")), *shards)
    numbers = [int(clip_id[1:], 16) for clip_id in index.clip_ids(np.arange(len(index)))]
    of_row = [drawn[number] for number in numbers]
    for row, (*moment, camera) in enumerate(of_row):
        cameras = sorted({other[3] for other in of_row if [*other[:3]] == moment})
        if len(cameras) == 1:
            with pytest.raises(UsageError, match=r"found no other in 1 of a;"):
                index.other_cameras(np.array([row]))
            continue
        (other,) = index.other_cameras(np.array([row])).tolist()
        assert [*of_row[other][:3]] == moment
        assert of_row[other][3] == cameras[(cameras.index(camera) + 1) % len(cameras)]
        assert not any(of_row[before] == of_row[other] for before in range(other))  # the first of several


def test_three_cameras_take_turns_whatever_the_order_of_the_rows() -> None:
    cameras = np.array([2, 0, 1, 1, 2, 0])
    moments = [np.array([5, 5, 5, 4, 4, 4])]
    assert next_camera(moments, cameras).tolist() == [1, 2, 0, 4, 5, 3]


def two_cameras(num_moments: int) -> list[Clip]:
    return [(f"e{n // 2}", 2 * n, f"text {n}", camera) for n in range(num_moments) for camera in ("gripper", "static")]


@pytest.mark.parametrize("representation", ["latents", "frames"])
def test_the_other_cameras_first_frame_comes_with_each_clip(tmp_path: Path, representation: str) -> None:
    index = write_views(str(tmp_path), two_cameras(2), two_cameras(3)[4:], with_video=True)
    order = training_order(index, np.arange(6), DataSettings(piece_clips=2, shuffle_pieces=2), 0, 4)
    with ClipLoader(index, order, representation=representation, other_camera=True, num_steps=5) as loader:  # type: ignore[arg-type]
        batches = list(loader)
    rows = np.array([3, 0, 0])
    batches.append(read_clips(index, rows, representation, other_camera=True))  # type: ignore[arg-type]
    assert batches[-1].rows.tolist() == rows.tolist()
    for batch in batches:
        assert batch.other_view is not None
        assert (batch.other_view.shape[1:], batch.other_view.dtype) == ((256, 256, 3), torch.uint8)
        shown = [read_number(frame.numpy()) for frame in batch.other_view]
        assert shown == [16 * (row ^ 1) for row in batch.rows.tolist()]
        assert batch.text[:, 0, 0].int().tolist() == batch.rows.tolist()
        assert (batch.frames is None) == (representation == "latents")


def test_nothing_more_is_read_or_held_unless_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = write_views(str(tmp_path), two_cameras(2))
    monkeypatch.setattr("vpp.data.clip_index.pair_cameras", lambda *_: pytest.fail("paired"))
    assert read_clips(index, np.arange(4), "latents").other_view is None  # the videos are none: they are not opened


def test_pairs_are_the_same_on_s3(tmp_path: Path, s3: S3Server) -> None:
    here, there = (write_views(url, two_cameras(3)) for url in (str(tmp_path), "s3://bucket/out"))
    rows = np.arange(6)
    assert here.other_cameras(rows).tolist() == there.other_cameras(rows).tolist() == [1, 0, 3, 2, 5, 4]


def test_clips_without_another_camera_are_counted_by_dataset(tmp_path: Path) -> None:
    url = str(tmp_path)
    write_views(url, two_cameras(2))
    write_views(url, two_cameras(2)[:3], dataset="b")
    write_views(url, [("e", 0, "x", "top"), ("e", 2, "x", "side")], dataset="c")
    index = ClipIndex.read(url)
    with pytest.raises(UsageError, match=r"found no other in 1 of b, 2 of c; choose others with jobs/query.py --save"):
        index.other_cameras(np.arange(len(index)))
    save_selection(url, "some", pa.table({"clip_id": index.clip_ids(np.array([3, 4]))}), "select ...")
    with pytest.raises(UsageError, match="1 of a, 1 of b"):
        read_clips(ClipIndex.read(url, "some"), np.arange(2), "latents", other_camera=True)


def test_damage_of_the_other_clip_names_that_clip(tmp_path: Path) -> None:
    index = write_views(str(tmp_path), two_cameras(1))
    with pytest.raises(DataError, match=f"clip a{1:019x} in .*a/000000.tar") as raised:
        read_clips(index, np.array([0]), "latents", other_camera=True)
    assert raised.value.reason == "decode_error"
