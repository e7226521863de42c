"""Batches of windows show what was preprocessed, as the order says, whatever the workers and restarts."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from layouts import write_calvin, write_vpp_layout
from preprocessing import preprocess_here
from s3 import S3Server
from videos import read_number

from pipelines.encode_video import decode_video
from pipelines.plan import ShardSettings
from pipelines.range_read import read_members
from schemas.errors import DataError, UsageError
from schemas.storage import filesystem
from vpp.data.action_statistics import action_statistics
from vpp.data.npy_view import npy_view
from vpp.data.range_reader import RangeRead, RangeReader
from vpp.data.settings import WindowSettings
from vpp.data.streams import training_order
from vpp.data.window_batch import WindowBatch
from vpp.data.window_index import WindowIndex
from vpp.data.window_loader import WindowLoader
from vpp.data.window_reader import read_windows

CAMERAS = ("rgb_static", "rgb_gripper")
REPRESENTATIONS: tuple[Literal["frames", "latents"], ...] = ("frames", "latents")


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two datasets in CALVIN's format whose frames and actions show their numbers: 31 + 5 and 13 windows."""
    root = tmp_path_factory.mktemp("numbered")
    write_calvin(root / "a", [(100, 140)], [(100, 130, "push"), (134, 138, "push it")])
    write_calvin(root / "b", [(500, 520)], [(503, 515, "pull")])
    for name, frames in (("a", 70), ("b", 70)):
        preprocess_here(str(root / "out"), f"{name}=calvin:{root / name}", "episodes", ShardSettings(frames=frames))
    return str(root / "out")


def rows_of(url: str) -> dict[str, dict]:
    parts = sorted(Path(url, "episodes", "manifest").rglob("*.parquet"))
    rows = pa.concat_tables(map(pq.read_table, parts)).to_pylist()
    return {row["episode_id"]: row for row in rows if row["status"] == "written"}


def check_against_shards(url: str, index: WindowIndex) -> None:
    """Compares all windows of an index with the members of its episodes, decoded in full."""
    frames, latents = (read_windows(index, np.arange(len(index)), kind) for kind in REPRESENTATIONS)
    assert frames.frames is not None
    assert latents.latents is not None
    assert latents.proprio is not None
    assert (frames.latents, latents.frames) == (None, None)
    places_of: dict[str, list[int]] = {}
    for place, name in enumerate(frames.window_ids):
        episode_id, _, frame = name.partition(":")
        assert int(frame) == len(places_of.setdefault(episode_id, []))
        places_of[episode_id].append(place)
    episodes = rows_of(url)
    assert {name: len(places) for name, places in places_of.items()} == {
        name: row["num_actions"] for name, row in episodes.items()
    }
    for name, places in places_of.items():
        stored, num_windows = read_members(url, "episodes", episodes[name]), len(places)
        for view, camera in enumerate(index.cameras):
            video, array = decode_video(stored[f"{camera}.mp4"]), npy_view(memoryview(stored[f"{camera}.latents.npy"]))
            np.testing.assert_array_equal(frames.frames[places, view].numpy(), video[:num_windows])
            np.testing.assert_array_equal(latents.latents[places, view].numpy(), array[:num_windows])
        actions, proprio = (npy_view(memoryview(stored[f"{kind}.npy"])) for kind in ("actions", "proprio"))
        padded = np.concatenate([actions, np.repeat(actions[-1:], index.num_actions, axis=0)])
        for frame, place in enumerate(places):
            np.testing.assert_array_equal(frames.actions[place].numpy(), padded[frame : frame + index.num_actions])
            is_pad = [frame + step >= num_windows for step in range(index.num_actions)]
            assert frames.action_is_pad[place].tolist() == is_pad
        np.testing.assert_array_equal(latents.proprio[places].numpy(), proprio[:num_windows])
        caption = episodes[name]["caption"]
        assert {frames.captions[place] for place in places} == {caption}
        assert set(latents.text[places, 3, 4].tolist()) == {len(caption)}


def test_windows_of_real_episodes_show_what_the_shards_hold(shared_data: Path, tmp_path: Path) -> None:
    url = str(tmp_path)
    source = f"calvin=calvin:{shared_data / 'calvin_sim' / 'task_sample'}"
    preprocess_here(url, source, "episodes", ShardSettings(frames=160))
    index = WindowIndex.read(url, WindowSettings(proprio=True))
    assert (index.cameras, index.action_dim, index.proprio_dim) == (CAMERAS, 7, 15)
    assert len(index.split.validation) == sum(
        row["num_actions"] for row in rows_of(url).values() if row["split"] == "validation"
    )
    check_against_shards(url, index)
    actions = read_windows(index, index.split.train, "latents").actions[:, 0].double().numpy()
    (of_calvin,) = action_statistics(index).values()
    assert of_calvin.num_values == len(actions)
    for name, of_numpy in {"mean": "mean", "std": "std", "low": "min", "high": "max"}.items():
        expected = getattr(actions, of_numpy)(axis=0)
        np.testing.assert_allclose(getattr(of_calvin, name), expected, rtol=1e-9, atol=1e-12)


def test_an_episode_may_have_one_action_fewer_than_frames(tmp_path: Path) -> None:
    source, url = write_vpp_layout(tmp_path / "source", num_episodes=2, num_frames=23), str(tmp_path / "out")
    preprocess_here(url, f"set=vpp-layout:{source}", "episodes", ShardSettings(frames=30))
    index = WindowIndex.read(url, WindowSettings(num_actions=4, proprio=True))
    assert (index.action_dim, index.proprio_dim, len(index)) == (3, 2, 22 + 23)
    check_against_shards(url, index)


def test_a_hop_leaves_out_training_windows_of_each_episode_and_none_that_are_held_out(numbered: str) -> None:
    every, third = (WindowIndex.read(numbered, WindowSettings(hop=hop, validation_fraction=0.3)) for hop in (1, 3))
    numbers = every.frame_numbers(every.split.train)
    assert np.array_equal(third.split.train, every.split.train[numbers % 3 == 0])
    assert np.array_equal(third.split.validation, every.split.validation)
    assert 0 < len(third.split.train) < len(every.split.train) / 2


def test_a_batch_has_the_documented_shapes_and_the_views_in_the_asked_order(numbered: str) -> None:
    index = WindowIndex.read(numbered, WindowSettings(num_actions=6, cameras=CAMERAS[::-1], proprio=True))
    rows = np.array([40, 3, 30, 3])
    batch = read_windows(index, rows, "frames").to(torch.device("cpu"))
    assert batch.frames is not None
    assert batch.proprio is not None
    assert (batch.frames.shape, batch.frames.dtype) == ((4, 2, 256, 256, 3), torch.uint8)
    assert (batch.actions.shape, batch.actions.dtype) == ((4, 6, 7), torch.float32)
    assert (batch.action_is_pad.shape, batch.action_is_pad.dtype) == ((4, 6), torch.bool)
    assert (batch.text.shape, batch.text.dtype) == ((4, 20, 512), torch.float16)
    assert (batch.proprio.shape, batch.proprio.dtype) == ((4, 15), torch.float32)
    assert (batch.step, batch.positions.tolist(), batch.rows.tolist()) == (-1, [0, 1, 2, 3], rows.tolist())
    assert batch.datasets == ("b", "a", "a", "a")
    assert batch.proprio[:, 0].tolist() == [507.0, 103.0, 130.0, 103.0]
    shown = [[read_number(view.numpy()) for view in views] for views in batch.frames]
    assert shown == [[number, number] for number in (507, 103, 130, 103)]
    static_first = read_windows(WindowIndex.read(numbered, WindowSettings()), rows, "frames")
    assert static_first.frames is not None
    assert static_first.proprio is None
    torch.testing.assert_close(static_first.frames.flip(1), batch.frames)
    assert not torch.equal(static_first.frames[:, 0], batch.frames[:, 0])
    latents = read_windows(index, rows, "latents").latents
    assert latents is not None
    assert (latents.shape, latents.dtype) == ((4, 2, 4, 32, 32), torch.float16)
    one = read_windows(WindowIndex.read(numbered, WindowSettings(cameras=("rgb_gripper",))), rows, "frames")
    assert one.frames is not None
    torch.testing.assert_close(one.frames[:, 0], batch.frames[:, 0])


SETTINGS = WindowSettings(validation_fraction=0.0, piece_windows=2, shuffle_pieces=4, mixture="a=2,b=1", read_ahead=12)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_workers_together_yield_the_order_and_a_new_loader_goes_on_where_one_stopped(
    numbered: str, world_size: int
) -> None:
    index = WindowIndex.read(numbered, SETTINGS)

    def loader(rank: int, start_step: int) -> WindowLoader:
        order = training_order(index, index.split.train, SETTINGS, 5, 7)
        return WindowLoader(
            index, order, representation="latents", rank=rank, world_size=world_size, start_step=start_step,
            num_steps=9 - start_step, read_ahead_samples=SETTINGS.read_ahead,
        )  # fmt: skip

    shares: list[list[WindowBatch]] = []
    for rank in range(world_size):
        with loader(rank, 0) as first, loader(rank, 4) as second:
            shares.append([*itertools.islice(first, 4), *second])
    order = training_order(index, index.split.train, SETTINGS, 5, 7)
    for step, batches in enumerate(zip(*shares, strict=True)):
        rows = order.rows(step)
        whole = read_windows(index, rows, "latents")
        assert whole.latents is not None
        seen = np.concatenate([batch.positions for batch in batches])
        assert sorted(seen.tolist()) == list(range(7))
        for batch in batches:
            assert batch.latents is not None
            assert batch.step == step
            assert batch.wait_s >= 0
            assert batch.rows.tolist() == rows[batch.positions].tolist()
            assert batch.window_ids == tuple(whole.window_ids[place] for place in batch.positions)
            torch.testing.assert_close(batch.latents, whole.latents[batch.positions])
            torch.testing.assert_close(batch.actions, whole.actions[batch.positions])


def test_every_worker_needs_a_window(numbered: str) -> None:
    index = WindowIndex.read(numbered, SETTINGS)
    order = training_order(index, index.split.train, SETTINGS, 5, 2)
    with pytest.raises(UsageError, match="each of 3 workers, found 2"):
        WindowLoader(index, order, representation="latents", world_size=3)


def test_of_latents_only_the_windows_frame_is_read(numbered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    index = WindowIndex.read(numbered, WindowSettings())
    num_bytes = []
    read = RangeReader.read

    def counted(reader: RangeReader, wanted: RangeRead, sample_id: str) -> bytes:
        num_bytes.append(wanted.end - wanted.start)
        return read(reader, wanted, sample_id)

    monkeypatch.setattr(RangeReader, "read", counted)
    read_windows(index, np.array([15]), "latents")
    needed = 2 * 4 * 32 * 32 * 2 + 20 * 512 * 2 + 31 * 7 * 4 + 2 * 128
    assert needed <= sum(num_bytes) < needed + 20_000 < index.num_episodes * 31 * 8192


def test_s3_yields_the_same(numbered: str, s3: S3Server) -> None:
    files, url = filesystem("s3://bucket/out")
    files.put(numbered, url, recursive=True)
    here, there = (WindowIndex.read(where, WindowSettings()) for where in (numbered, "s3://bucket/out"))
    assert here.fingerprint == there.fingerprint
    rows = np.array([2, 48, 17])
    for kind in REPRESENTATIONS:
        one, other = read_windows(here, rows, kind), read_windows(there, rows, kind)
        torch.testing.assert_close(one.actions, other.actions)
        for name in ("frames", "latents"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name))


def overwrite(member: str, content: bytes, place: int = 0) -> Callable[[Path, dict], None]:
    def damage(tar: Path, row: dict) -> None:
        (offset,) = (entry["offset"] for entry in row["members"] if entry["name"] == member)
        with tar.open("r+b") as handle:
            handle.seek(offset + place)
            handle.write(content)

    return damage


Damage = tuple[Callable[[Path, dict], None], Literal["frames", "latents"], str]
FAULTS: dict[str, Damage] = {
    "no such file": (lambda tar, row: tar.unlink(), "latents", "missing_file"),
    "cut": (lambda tar, row: tar.write_bytes(tar.read_bytes()[:2000]), "latents", "truncated_shard"),
    "no video": (overwrite("rgb_gripper.mp4", b"garbage!" * 200), "frames", "decode_error"),
    "no numbers": (overwrite("actions.npy", b"garbage!"), "latents", "corrupt_array"),
    "not finite": (overwrite("actions.npy", b"\xff" * 8, 128 + 280), "frames", "corrupt_array"),
    "no latents": (overwrite("rgb_static.latents.npy", b"\xff" * 8, 128 + 4 * 8192), "latents", "corrupt_array"),
    "no text": (overwrite("text.npy", b"garbage!"), "latents", "corrupt_array"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damage_stops_the_loader_and_names_episode_and_shard(fault: str, numbered: str, tmp_path: Path) -> None:
    damage, representation, reason = FAULTS[fault]
    url = str(shutil.copytree(numbered, tmp_path / "out"))
    index = WindowIndex.read(url, SETTINGS)
    episode_id = index.ids(np.array([4]))[0].split(":")[0]
    row = rows_of(url)[episode_id]
    damage(tmp_path / "out" / "episodes" / "shards" / row["shard"], row)
    with pytest.raises(DataError) as raised:
        read_windows(index, np.array([4]), representation)
    assert raised.value.reason == reason
    assert f"episode {episode_id}:4" in raised.value.detail
    assert row["shard"] in raised.value.detail
    order = training_order(index, np.array([4]), WindowSettings(), 0, 2)
    with WindowLoader(index, order, representation=representation) as loader, pytest.raises(DataError, match=reason):
        next(loader)


def test_latents_of_another_type_are_refused(tmp_path: Path, numbered: str) -> None:
    url = str(shutil.copytree(numbered, tmp_path / "out"))
    for part in Path(url, "episodes", "manifest").rglob("*.parquet"):
        rows = pq.read_table(part).to_pylist()
        for row in rows:
            for member in row["members"]:
                member["num_bytes"] += row["num_frames"] * 64 if member["name"].endswith("latents.npy") else 0
        pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(part)), part)
    with pytest.raises(DataError, match=r"latents.npy in float16 \[T, 4, h, h\], found 8256 bytes a frame"):
        read_windows(WindowIndex.read(url, WindowSettings()), np.array([0]), "latents")
