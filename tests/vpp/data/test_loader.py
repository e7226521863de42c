"""The loader yields what the order says, from disk and S3, from any start, and ends cleanly."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numbered_clips import members, npy, write_clips
from s3 import S3Server
from small_dataset import write_shard
from videos import read_number

from pipelines.encode_video import decode_video
from schemas.errors import DataError, UsageError
from vpp.data import clip_reader
from vpp.data.clip_batch import ClipBatch
from vpp.data.clip_index import ClipIndex
from vpp.data.clip_reader import ClipReader, read_clips
from vpp.data.loader import ClipLoader
from vpp.data.order import SampleOrder
from vpp.data.settings import DataSettings
from vpp.data.streams import training_order


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ClipIndex:
    return write_clips(str(tmp_path_factory.mktemp("clips")), a=[12, 9], b=[5])


def make_order(index: ClipIndex, global_batch: int = 6) -> SampleOrder:
    return training_order(index, np.arange(len(index)), DataSettings(piece_clips=2, shuffle_pieces=4), 0, global_batch)


def numbers(batch: ClipBatch) -> list[int]:
    """Which clips a batch shows, after checking that latents, text, ids and datasets tell the same."""
    assert batch.latents is not None
    assert batch.frames is None
    found = batch.latents[:, 5, 1, 2, 3].int().tolist()
    assert batch.text[:, 19, 511].int().tolist() == found
    assert batch.clip_ids == tuple(f"{number:020x}" for number in found)
    assert batch.datasets == tuple("a" if number < 21 else "b" for number in found)
    assert batch.rows.tolist() == found
    return found


def num_threads() -> int:
    return sum(thread.name.startswith("clip-reader") for thread in threading.enumerate())


def test_batches_are_those_of_the_order(index: ClipIndex) -> None:
    order = make_order(index)
    with ClipLoader(index, make_order(index), representation="latents", num_steps=30) as loader:
        batches = list(loader)
    assert [batch.step for batch in batches] == list(range(30))
    for batch in batches:
        assert numbers(batch) == order.rows(batch.step)[batch.positions].tolist()
        assert sorted(batch.positions.tolist()) == list(range(6))
        assert batch.latents is not None
        assert (batch.latents.shape, batch.latents.dtype) == ((6, 16, 4, 32, 32), torch.float16)
        assert (batch.text.shape, batch.text.dtype) == ((6, 20, 512), torch.float16)
        assert batch.wait_s >= 0
    assert num_threads() == 0


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_workers_together_yield_the_step_and_a_new_loader_goes_on_where_one_stopped(
    index: ClipIndex, world_size: int
) -> None:
    order = make_order(index)
    shares = []
    for rank in range(world_size):
        where = {"representation": "latents", "rank": rank, "world_size": world_size}
        with ClipLoader(index, make_order(index), **where) as loader:  # type: ignore[arg-type]
            first = list(itertools.islice(loader, 3))
        with ClipLoader(index, make_order(index), start_step=3, num_steps=2, **where) as loader:  # type: ignore[arg-type]
            shares.append(first + list(loader))
    for step, batches in enumerate(zip(*shares, strict=True)):
        drawn = np.full(6, -1)
        for batch in batches:
            assert batch.step == step
            drawn[batch.positions] = numbers(batch)
        assert drawn.tolist() == order.rows(step).tolist()


def test_frames_text_and_latents_are_those_that_were_preprocessed(preprocessed: Path) -> None:
    index = ClipIndex.read(str(preprocessed))
    rows = np.array([5, 0, 3, 3])
    frames, latents = read_clips(index, rows, "frames"), read_clips(index, rows, "latents")
    assert frames.frames is not None
    assert latents.latents is not None
    assert (frames.frames.shape, frames.frames.dtype) == ((4, 16, 256, 256, 3), torch.uint8)
    offsets, sizes = index.ranges(rows, ("mp4",))
    for place, row in enumerate(rows):
        video = Path(index.shard_url(index.shard_codes[row])).read_bytes()[offsets[0, place] :][: sizes[0, place]]
        np.testing.assert_array_equal(frames.frames[place].numpy(), decode_video(video))
        first = read_number(frames.frames[place, 0].numpy())
        assert [read_number(frame.numpy()) for frame in frames.frames[place]] != [first] * 16
        assert f"count to {int(frames.text[place, 0, 0])}"[:9] == index.captions(rows[place : place + 1])[0][:9]
    red = frames.frames.float().reshape(4, 16, 32, 8, 32, 8, 3).mean(dim=(3, 5))[..., 0] / 255
    torch.testing.assert_close(latents.latents[:, :, 0].float(), red, atol=1e-3, rtol=0)
    torch.testing.assert_close(frames.text, latents.text)
    assert (frames.step, frames.positions.tolist(), frames.rows.tolist()) == (-1, [0, 1, 2, 3], rows.tolist())


def test_s3_yields_the_same(index: ClipIndex, s3: S3Server) -> None:
    there = write_clips("s3://bucket/out", a=[12, 9], b=[5])
    with ClipLoader(there, make_order(there), representation="latents", num_steps=5) as loader:
        found = [numbers(batch) for batch in loader]
    with ClipLoader(index, make_order(index), representation="latents", num_steps=5) as loader:
        assert found == [numbers(batch) for batch in loader]


def test_a_store_that_is_killed_and_comes_back_only_delays(s3: S3Server) -> None:
    index = write_clips("s3://bucket/out", a=[12, 9], b=[5])
    order = make_order(index)
    with ClipLoader(index, make_order(index), representation="latents", num_steps=12, read_ahead_samples=6) as loader:
        batches = [next(loader)]
        s3.stop()
        again = threading.Timer(2, s3.start)
        again.start()
        batches += list(loader)
        again.join()
    assert [batch.rows.tolist() for batch in batches] == [
        order.rows(step)[batch.positions].tolist() for step, batch in enumerate(batches)
    ]
    assert len(batches) == 12


def test_reading_ahead_is_bounded(index: ClipIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    begin = ClipReader.start

    def counted(reader: ClipReader, steps: list) -> list:
        started.extend(len(rows) for _, _, rows in steps)
        return begin(reader, steps)

    monkeypatch.setattr(ClipReader, "start", counted)
    with ClipLoader(index, make_order(index), representation="latents", read_ahead_samples=20) as loader:
        for num_taken, _ in enumerate(itertools.islice(loader, 50), start=1):
            assert 0 < sum(started) - 6 * num_taken <= 20
    with ClipLoader(index, make_order(index), representation="latents", read_ahead_samples=1) as loader:
        started.clear()
        next(loader)
        assert sum(started) == 12  # the one that was taken and the next: never less than one step


def test_closing_while_threads_are_busy_ends_them(index: ClipIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    of_second_step, entered, leave = itertools.count(-2 * 6), threading.Event(), threading.Event()
    decode = clip_reader._decode

    def held_up(member: str, content: memoryview) -> np.ndarray:
        if next(of_second_step) >= 0:
            entered.set()
            assert leave.wait(30)
        return decode(member, content)

    monkeypatch.setattr(clip_reader, "_decode", held_up)
    loader = ClipLoader(index, make_order(index), representation="latents", read_ahead_samples=6, num_threads=2)
    next(loader)
    assert entered.wait(30)
    threading.Timer(0.1, leave.set).start()
    loader.close()
    assert num_threads() == 0
    with pytest.raises(StopIteration):
        next(loader)


def truncate(tar: Path, members: dict[str, bytes]) -> None:
    os.truncate(tar, 200_000)


def overwrite(member: str, content: bytes) -> Callable[[Path, dict[str, bytes]], None]:
    def damage(tar: Path, members: dict[str, bytes]) -> None:
        whole = tar.read_bytes()
        place = whole.rindex(members[member])
        tar.write_bytes(whole[:place] + content + whole[place + len(content) :])

    return damage


FAULTS = {
    "cut": (truncate, "latents", "truncated_shard"),
    "no such file": (lambda tar, members: tar.unlink(), "latents", "missing_file"),
    "no array": (overwrite("latents.npy", b"garbage!"), "latents", "corrupt_array"),
    "a pickle": (overwrite("text.npy", npy(np.array([None]))[:120]), "latents", "corrupt_array"),
    "another length": (overwrite("text.npy", npy(np.zeros((20, 511), np.float16))[:128]), "latents", "corrupt_array"),
    "no video": (overwrite("mp4", b"vi"), "frames", "decode_error"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damage_stops_the_loader_and_names_clip_and_shard(fault: str, tmp_path: Path) -> None:
    damage, representation, reason = FAULTS[fault]
    index = write_clips(str(tmp_path), a=[4])
    (tar,) = tmp_path.rglob("*.tar")
    damage(tar, members(3))
    rows = np.array([3])
    with pytest.raises(DataError) as raised:
        read_clips(index, rows, representation)  # type: ignore[arg-type]
    assert raised.value.reason == reason
    assert index.clip_ids(rows)[0] in raised.value.detail
    assert "a/000000.tar" in raised.value.detail
    with (
        ClipLoader(index, make_order(index), representation=representation) as loader,  # type: ignore[arg-type]
        pytest.raises(DataError),
    ):
        list(itertools.islice(loader, 10))
    assert num_threads() == 0


@pytest.mark.parametrize(
    ("member", "values"),
    [
        ("text.npy", np.zeros((20, 511), np.float16)),
        ("text.npy", np.zeros((20, 512), np.float32)),
        ("latents.npy", np.zeros((16, 4, 32, 32), np.float32)),
        ("latents.npy", np.asfortranarray(np.zeros((16, 4, 32, 32), np.float16))),
    ],
)
def test_arrays_of_another_type_are_refused(member: str, values: np.ndarray, tmp_path: Path) -> None:
    write_shard(str(tmp_path), "a", "0", {"c": ({"camera": "side"}, members(0) | {member: npy(values)})})
    with pytest.raises(DataError, match="clip c in") as raised:
        read_clips(ClipIndex.read(str(tmp_path)), np.array([0]), "latents")
    assert raised.value.reason == "corrupt_array"


def test_latents_come_as_they_are_stored_if_all_have_one_shape(tmp_path: Path) -> None:
    def clip(shape: tuple[int, ...]) -> tuple[dict, dict[str, bytes]]:
        return {"camera": "side"}, members(0) | {"latents.npy": npy(np.ones(shape, np.float16))}

    small, other = (8, 4, 16, 16), (16, 4, 32, 32)
    write_shard(str(tmp_path), "a", "0", {"c0": clip(small), "c1": clip(small), "c2": clip(other)})
    index = ClipIndex.read(str(tmp_path))
    batch = read_clips(index, np.array([0, 1]), "latents")
    assert batch.latents is not None
    assert batch.latents.shape == (2, *small)
    with pytest.raises(DataError, match=r"\[8, 4, 16, 16\].*\[16, 4, 32, 32\]"):
        read_clips(index, np.array([0, 2]), "latents", num_threads=1)


def test_a_clip_without_what_is_wanted_is_told(tmp_path: Path) -> None:
    without = {name: content for name, content in members(0).items() if name != "latents.npy"}
    write_shard(str(tmp_path), "a", "0", {"c": ({"camera": "side"}, without)})
    with pytest.raises(DataError, match=r"latents.npy in clip c") as raised:
        read_clips(ClipIndex.read(str(tmp_path)), np.array([0]), "latents")
    assert raised.value.reason == "missing_member"


def test_every_worker_needs_a_clip(index: ClipIndex) -> None:
    with pytest.raises(UsageError, match="each of 7 workers, found 6"):
        ClipLoader(index, make_order(index), representation="latents", world_size=7)
