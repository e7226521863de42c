"""Saving runs beside the training, keeps what is asked for, and leaves nothing half, wherever it is killed."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from schemas.errors import UsageError
from vpp.train import checkpoint_writer
from vpp.train.checkpoint import (
    best_checkpoint,
    checkpoint_url,
    find_checkpoints,
    latest_checkpoint,
    read_latest_checkpoint,
)
from vpp.train.checkpoint_writer import CheckpointSaveError, CheckpointWriter


class GatedStore(MemoryFileSystem):
    """A store whose uploads wait until a gate opens, and fail while `fault` is set."""

    protocol = "gated"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    gate = threading.Event()
    reached = threading.Event()
    fault: Exception | None = None

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("gated://"))

    def put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        type(self).reached.set()
        assert type(self).gate.wait(30)
        if type(self).fault is not None:
            raise type(self).fault
        self.makedirs(self._parent(rpath), exist_ok=True)
        super().put_file(lpath, rpath, **kwargs)


@pytest.fixture
def gated() -> Iterator[type[GatedStore]]:
    fsspec.register_implementation("gated", GatedStore, clobber=True)
    GatedStore.store.clear()
    GatedStore.pseudo_dirs[:] = [""]
    GatedStore.gate, GatedStore.reached, GatedStore.fault = threading.Event(), threading.Event(), None
    yield GatedStore
    GatedStore.gate.set()


def weights(step: int) -> dict[str, dict[str, torch.Tensor]]:
    return {"weights": {"a": torch.full((1000,), step)}, "ema": {"a": torch.full((10,), -step)}}


def steps(run: str) -> list[int]:
    return [info.step for info in find_checkpoints(run)[0]]


def folders(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in (run / "checkpoints").iterdir())


def test_training_goes_on_while_the_store_is_slow(gated: type[GatedStore]) -> None:
    with CheckpointWriter("gated://run") as writer:
        assert writer.save(1, weights(1), {}, {}) == pytest.approx(0, abs=1)
        assert gated.reached.wait(30)  # it uploads, and `save` has returned
        assert steps("gated://run") == []
        gated.gate.set()
        writer.wait()
        assert steps("gated://run") == [1]
        assert writer.wait() == pytest.approx(0, abs=1)


def test_a_second_save_waits_for_the_first(gated: type[GatedStore]) -> None:
    second_returned = threading.Event()
    with CheckpointWriter("gated://run") as writer:
        writer.save(1, weights(1), {}, {})

        def save_again() -> None:
            writer.save(2, weights(2), {}, {})
            second_returned.set()

        thread = threading.Thread(target=save_again)
        thread.start()
        assert gated.reached.wait(30)
        assert not second_returned.is_set()
        gated.gate.set()
        thread.join()
    assert steps("gated://run") == [1, 2]


def test_a_failed_save_is_told_once_and_the_next_one_may_work(gated: type[GatedStore]) -> None:
    gated.gate.set()
    with CheckpointWriter("gated://run", retry_for_s=0.01) as writer:
        writer.save(1, weights(1), {}, {})
        writer.wait()
        gated.fault = ConnectionError("reset by peer")
        writer.save(2, weights(2), {}, {})
        with pytest.raises(CheckpointSaveError, match=r"step_00000002 could not be saved \(ConnectionError: reset"):
            writer.save(3, weights(3), {}, {})
        gated.fault = None
        writer.save(4, weights(4), {}, {})
    assert steps("gated://run") == [1, 4]


def test_a_lasting_fault_is_not_tried_again(gated: type[GatedStore], caplog: pytest.LogCaptureFixture) -> None:
    gated.gate.set()
    gated.fault = PermissionError("read only")
    writer = CheckpointWriter("gated://run", retry_for_s=1000)
    writer.save(1, weights(1), {}, {})
    with pytest.raises(CheckpointSaveError, match="PermissionError: read only"):
        writer.close()
    assert "again in" not in caplog.text


def test_a_full_disk_delays_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num_calls, fsync = 0, os.fsync

    def full_at_every_other_call(descriptor: int) -> None:
        nonlocal num_calls
        num_calls += 1
        if num_calls % 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_at_every_other_call)
    with CheckpointWriter(str(tmp_path), retry_for_s=60) as writer:
        writer.save(1, weights(1), {}, {})
    assert num_calls == 8  # the state, two groups, the mark
    assert find_checkpoints(str(tmp_path), verify=True) == (find_checkpoints(str(tmp_path))[0], [])
    assert steps(str(tmp_path)) == [1]


def test_the_error_of_the_block_is_not_hidden_by_that_of_the_save(
    gated: type[GatedStore], caplog: pytest.LogCaptureFixture
) -> None:
    gated.gate.set()
    gated.fault = PermissionError("read only")

    def train() -> None:
        with CheckpointWriter("gated://run") as writer:
            writer.save(1, weights(1), {}, {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert "could not be saved" in caplog.text


def test_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    losses = {1: 0.9, 2: 0.2, 3: 0.8, 4: 0.3, 5: 0.7, 6: 0.6}
    with CheckpointWriter(str(run), keep_last=2, keep_best=1) as writer:
        for step, loss in losses.items():
            writer.save(step, weights(step), {}, {"val/loss": loss})
    assert folders(run) == [2, 5, 6]
    best = best_checkpoint(str(run), "val/loss")
    assert best is not None
    assert best.step == 2


def test_left_overs_below_the_newest_are_removed_and_those_above_stay(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with CheckpointWriter(str(run)) as writer:
        for step in (1, 3, 9):
            writer.save(step, weights(step), {}, {})
    for step in (3, 9):
        (Path(checkpoint_url(str(run), step)) / "complete.json").unlink()
    (run / "checkpoints" / "notes.txt").write_text("mine")
    with CheckpointWriter(str(run), keep_last=1) as writer:
        writer.save(5, weights(5), {}, {})
    assert steps(str(run)) == [5]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "notes.txt",
        "step_00000005",
        "step_00000009",
    ]


def test_a_run_that_went_back_keeps_what_it_saves_now(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with CheckpointWriter(str(run)) as writer:
        for step in (10, 20, 30):
            writer.save(step, weights(step), {}, {"val/loss": 1 / step})
    with CheckpointWriter(str(run), keep_last=2, keep_best=0) as writer:
        writer.save(15, weights(15), {}, {"val/loss": 1.0})
    assert folders(run) == [10, 15, 20, 30]
    with CheckpointWriter(str(run), keep_last=1, keep_best=0) as writer:
        writer.save(25, weights(25), {}, {"val/loss": 1.0})
    assert folders(run) == [25, 30]


def test_a_step_that_is_there_is_replaced(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with CheckpointWriter(str(run)) as writer:
        writer.save(1, {**weights(1), "extra": {}}, {"attempt": 1}, {})
        writer.save(1, weights(7), {"attempt": 2}, {})
    checkpoint = read_latest_checkpoint(str(run))
    assert checkpoint is not None
    assert checkpoint.state == {"attempt": 2}
    assert checkpoint.tensors.keys() == {"weights", "ema"}
    assert not (Path(checkpoint.info.url) / "extra.safetensors").exists()


def test_a_checkpoint_stops_being_one_before_its_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    with CheckpointWriter(str(run)) as writer:
        for step in (1, 2):
            writer.save(step, weights(step), {}, {})

    def fail_at_the_first_file(url: str) -> None:
        raise PermissionError(url)

    monkeypatch.setattr(checkpoint_writer, "remove_folder", fail_at_the_first_file)
    with pytest.raises(CheckpointSaveError), CheckpointWriter(str(run)) as writer:
        writer.save(2, weights(2), {}, {})
    assert folders(run) == [1, 2]
    assert steps(str(run)) == [1]


def test_old_checkpoints_that_cannot_be_removed_fail_no_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = str(tmp_path / "run")
    with CheckpointWriter(run, keep_last=1) as writer:
        writer.save(1, weights(1), {}, {})

    def fail_for_old(url: str) -> None:
        if url == checkpoint_url(run, 1):
            raise PermissionError(url)

    monkeypatch.setattr(checkpoint_writer, "remove_folder", fail_for_old)
    with CheckpointWriter(run, keep_last=1) as writer:
        writer.save(2, weights(2), {}, {})
    assert steps(run) == [2]
    assert "stay for now: PermissionError" in caplog.text


@pytest.mark.parametrize(
    ("step", "group", "state"),
    [(-1, "weights", {}), (1, "../weights", {}), (1, "weights", {"x": {1}}), (1, "weights", {"x": float("nan")})],
)
def test_what_cannot_be_stored_is_refused_at_once(tmp_path: Path, step: int, group: str, state: dict) -> None:
    with CheckpointWriter(str(tmp_path)) as writer, pytest.raises(UsageError):
        writer.save(step, {group: {}}, state, {})


def test_a_tensor_of_another_device_is_refused_at_once(tmp_path: Path) -> None:
    with CheckpointWriter(str(tmp_path)) as writer, pytest.raises(UsageError, match=r"layer\.weight.*found .* meta"):
        writer.save(1, {"weights": {"layer.weight": torch.zeros(2, device="meta")}}, {}, {})


@pytest.mark.parametrize("numbers", [{"keep_last": 0}, {"keep_best": -1}])
def test_numbers_out_of_range_are_refused(tmp_path: Path, numbers: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="expected keep_last"):
        CheckpointWriter(str(tmp_path), **numbers)


FILES_OF_A_SAVE = 4  # state.json, two groups, complete.json


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingFile:
    """Passes on half of what is written, and then the process is killed."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle

    def write(self, data: bytes) -> None:
        self._handle.write(data[: len(data) // 2])
        self._handle.flush()
        die()


def save_and_die(run: Path, dying_write: int | None, dying_removal: int | None) -> None:
    """In a child process: saves steps 2, 3, 4 and is killed in the n-th written file or before the n-th removal."""
    torch.set_num_threads(1)
    written = removed = 0

    @contextmanager
    def write_file(url: str, retry_for_s: float = 0.0) -> Iterator[Any]:
        nonlocal written
        with real_write_file(url, retry_for_s) as handle:
            yield DyingFile(handle) if written == dying_write else handle
            written += 1

    def write_bytes(url: str, data: bytes, retry_for_s: float = 0.0) -> None:
        with write_file(url, retry_for_s) as handle:
            handle.write(data)

    def remove_folder(url: str) -> None:
        nonlocal removed
        if removed == dying_removal:
            die()
        removed += 1
        real_remove_folder(url)

    real_write_file, real_remove_folder = checkpoint_writer.write_file, checkpoint_writer.remove_folder
    checkpoint_writer.write_file = write_file
    checkpoint_writer.write_bytes = write_bytes
    checkpoint_writer.remove_folder = remove_folder
    with CheckpointWriter(str(run), keep_last=1, keep_best=0) as writer:
        for step in (2, 3, 4):
            writer.save(step, weights(step), {"step": step}, {})


KILLS = [
    *(pytest.param(n, None, 1 + n // FILES_OF_A_SAVE, id=f"in file {n}") for n in range(3 * FILES_OF_A_SAVE)),
    # removals: before step 2 is written, of step 1, before step 3, of step 2, before step 4, of step 3
    *(pytest.param(None, n, 1 + (n + 1) // 2, id=f"before removal {n}") for n in range(6)),
]


@pytest.mark.parametrize(("dying_write", "dying_removal", "expected"), KILLS)
def test_a_killed_save_leaves_the_checkpoint_before(
    tmp_path: Path, dying_write: int | None, dying_removal: int | None, expected: int
) -> None:
    run = tmp_path / "run"
    with CheckpointWriter(str(run)) as writer:
        writer.save(1, weights(1), {"step": 1}, {})
    child = os.fork()
    if child == 0:
        try:
            save_and_die(run, dying_write, dying_removal)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL

    assert find_checkpoints(str(run), verify=True)[0] == find_checkpoints(str(run))[0]
    checkpoint = read_latest_checkpoint(str(run))
    assert checkpoint is not None
    assert checkpoint.info.step == expected
    assert checkpoint.state == {"step": expected}
    assert torch.equal(checkpoint.tensors["weights"]["a"], weights(expected)["weights"]["a"])

    with CheckpointWriter(str(run), keep_last=1, keep_best=0) as writer:  # and the next attempt cleans up
        writer.save(4, weights(4), {}, {})
    assert folders(run) == [4]
    assert latest_checkpoint(str(run)) is not None
    left_over = [path.name for path in run.rglob("*") if ".partial-" in path.name]
    assert left_over == []
