"""What was saved comes back; what is damaged is never taken, and the log says which and why."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from schemas.errors import DataError, UsageError
from vpp.train.checkpoint import (
    best_checkpoint,
    checkpoint_url,
    find_checkpoints,
    latest_checkpoint,
    read_checkpoint,
    read_latest_checkpoint,
)
from vpp.train.checkpoint_writer import CheckpointWriter

STATE = {"config": {"lr": 1e-5, "text": "größer", "none": None}, "versions": ["torch 2"], "commit": "abc", "epoch": 3}


def tensors_of(step: int) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "weights": {"conv.weight": torch.full((4, 3), float(step)).bfloat16(), "scale": torch.tensor(step)},
        "optimizer": {"exp_avg.conv.weight": torch.arange(12.0).view(3, 4).T},
        "ema": {},
    }


def save(run: str, *steps: int) -> None:
    with CheckpointWriter(run, keep_last=10) as writer:
        for step in steps:
            writer.save(step, tensors_of(step), STATE, {"val/loss": 1 / step})


@pytest.fixture(params=["local", "s3"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "run")
    request.getfixturevalue("s3")
    return "s3://bucket/run"


def test_everything_comes_back(run: str) -> None:
    save(run, 1, 2)
    info = latest_checkpoint(run)
    assert info is not None
    assert (info.step, info.metrics) == (2, {"val/loss": 0.5})
    checkpoint = read_checkpoint(info)
    assert checkpoint.info == info
    assert checkpoint.state == STATE
    expected = tensors_of(2)
    assert checkpoint.tensors.keys() == expected.keys()
    for group, named in expected.items():
        assert checkpoint.tensors[group].keys() == named.keys()
        for name, tensor in named.items():
            found = checkpoint.tensors[group][name]
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(found, tensor)


def test_one_group_is_read_alone_and_an_unknown_one_is_named(run: str) -> None:
    save(run, 1)
    info = latest_checkpoint(run)
    assert info is not None
    assert read_checkpoint(info, ["weights"]).tensors.keys() == {"weights"}
    with pytest.raises(UsageError, match=r"discriminator.*found \['weights', 'optimizer', 'ema'\]"):
        read_checkpoint(info, ["discriminator"])


def test_a_run_without_checkpoints_has_none(run: str) -> None:
    assert find_checkpoints(run) == ([], [])
    assert latest_checkpoint(run) is None
    assert best_checkpoint(run, "val/loss") is None
    assert read_latest_checkpoint(run) is None


def test_changing_what_was_read_changes_no_file(tmp_path: Path) -> None:
    save(str(tmp_path), 1)
    first = read_latest_checkpoint(str(tmp_path))
    assert first is not None
    first.tensors["weights"]["conv.weight"].zero_()
    second = read_latest_checkpoint(str(tmp_path))
    assert second is not None
    assert torch.equal(second.tensors["weights"]["conv.weight"], tensors_of(1)["weights"]["conv.weight"])


def test_best_is_by_the_metric_asked_for(tmp_path: Path) -> None:
    with CheckpointWriter(str(tmp_path), keep_last=10) as writer:
        for step, loss, score in [(1, 0.5, 3.0), (2, 0.1, 1.0), (3, math.nan, 9.0), (4, 0.1, math.inf)]:
            writer.save(step, {}, {}, {"val/loss": loss, "score": score})
        writer.save(5, {}, {}, {})
    steps = {
        (metric, lower): best.step
        for metric in ("val/loss", "score", "unknown")
        for lower in (True, False)
        if (best := best_checkpoint(str(tmp_path), metric, lower))
    }
    assert steps == {("val/loss", True): 4, ("val/loss", False): 1, ("score", True): 2, ("score", False): 3}
    stored = read_checkpoint(find_checkpoints(str(tmp_path))[0][2])
    assert math.isnan(stored.info.metrics["val/loss"])


def truncate(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def edit_complete(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        value = json.loads((folder / "complete.json").read_text())
        change(value)
        (folder / "complete.json").write_text(json.dumps(value))

    return edit


SEEN_BY_LISTING: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, "expected 168 bytes in .*weights.safetensors, found 167 bytes"),
    "lengthened": (lambda folder: (folder / "state.json").open("a").write("x"), "state.json, found .* bytes"),
    "missing": (lambda folder: (folder / "optimizer.safetensors").unlink(), "optimizer.safetensors, found no file"),
    "no complete.json": (lambda folder: (folder / "complete.json").unlink(), "the writing was cut short"),
    "empty complete.json": (lambda folder: (folder / "complete.json").write_bytes(b""), "expected JSON"),
    "binary complete.json": (lambda folder: (folder / "complete.json").write_bytes(b"\xff\x00{"), "expected JSON"),
    "half complete.json": (
        lambda folder: (folder / "complete.json").write_text((folder / "complete.json").read_text()[:-40]),
        "expected JSON",
    ),
    "a list": (lambda folder: (folder / "complete.json").write_text("[1]"), "expected an object with a format"),
    "no files": (edit_complete(lambda value: value.pop("files")), "expected step, metrics and files"),
    "no state": (edit_complete(lambda value: value["files"].pop("state.json")), "expected step 2 and state.json"),
    "other step": (edit_complete(lambda value: value.update(step=3)), "found step 3"),
    "a path": (
        edit_complete(lambda value: value["files"].update({"../x": {"num_bytes": 1, "sha256": ""}})),
        "expected step 2 and state.json",
    ),
}


@pytest.mark.parametrize("damage", SEEN_BY_LISTING)
def test_a_damaged_checkpoint_is_not_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    run = str(tmp_path / "run")
    save(run, 1, 2)
    do_damage, reason = SEEN_BY_LISTING[damage]
    do_damage(Path(checkpoint_url(run, 2)))
    with caplog.at_level(logging.WARNING):
        info = latest_checkpoint(run)
    assert info is not None
    assert info.step == 1
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert checkpoint_url(run, 2) in warning.getMessage()
    found, [skipped] = find_checkpoints(run)
    assert [one.step for one in found] == [1]
    assert skipped.url == checkpoint_url(run, 2)
    assert skipped.reason in warning.getMessage()
    assert re.search(reason, skipped.reason), skipped.reason


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


SEEN_BY_READING: dict[str, Callable[[Path], object]] = {
    "byte of a tensor": lambda folder: flip(folder / "weights.safetensors", -1),
    "byte of a header": lambda folder: flip(folder / "optimizer.safetensors", 0),
    "byte of the state": lambda folder: flip(folder / "state.json", 30),
    "hash": edit_complete(lambda value: value["files"]["state.json"].update(sha256="0" * 64)),
    "metric": edit_complete(lambda value: value["metrics"].update({"val/loss": 0.25})),
}


@pytest.mark.parametrize("damage", SEEN_BY_READING)
def test_a_flipped_byte_makes_the_run_take_the_checkpoint_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    run = str(tmp_path / "run")
    save(run, 1, 2)
    SEEN_BY_READING[damage](Path(checkpoint_url(run, 2)))
    [_, newest], skipped = find_checkpoints(run)
    assert skipped == []  # the sizes fit
    with pytest.raises(DataError, match="unreadable_checkpoint"):
        read_checkpoint(newest)
    with caplog.at_level(logging.WARNING):
        checkpoint = read_latest_checkpoint(run)
    assert checkpoint is not None
    assert checkpoint.info.step == 1
    assert checkpoint_url(run, 2) in caplog.text
    found, [named] = find_checkpoints(run, verify=True)
    assert [info.step for info in found] == [1]
    assert named.url == checkpoint_url(run, 2)


def test_a_file_that_is_no_safetensors_is_unreadable_even_if_its_hash_fits(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    save(run, 1)
    folder = Path(checkpoint_url(run, 1))
    content = b"\xff" * 64
    (folder / "weights.safetensors").write_bytes(content)
    described = {"num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit_complete(lambda value: value["files"].update({"weights.safetensors": described}))(folder)
    with pytest.raises(DataError, match=r"expected a safetensors file in .*weights\.safetensors"):
        read_checkpoint(find_checkpoints(run)[0][0])


def test_a_checkpoint_that_vanishes_before_it_is_read_is_unreadable(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    save(run, 1)
    [info], _ = find_checkpoints(run)
    shutil.rmtree(info.url)
    with pytest.raises(DataError, match="found none"):
        read_checkpoint(info)


@pytest.mark.parametrize("name", ["complete.json", "state.json"])
def test_another_format_is_refused_not_skipped(tmp_path: Path, name: str) -> None:
    run = str(tmp_path / "run")
    save(run, 1, 2)
    path = Path(checkpoint_url(run, 2)) / name
    content = path.read_bytes().replace(b'"format": 1', b'"format": 7')
    path.write_bytes(content)
    if name == "state.json":
        described = {"num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        edit_complete(lambda value: value["files"].update({name: described}))(path.parent)
    with pytest.raises(UsageError, match=r"expected checkpoint format 1 in .*, found 7"):
        read_latest_checkpoint(run)


def test_other_folders_are_no_checkpoints(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    save(run, 1)
    for name in ("step_x", "step_2", "notes", "step_00000002"):  # the last: an empty folder
        (tmp_path / "run" / "checkpoints" / name).mkdir()
    found, skipped = find_checkpoints(run)
    assert [info.step for info in found] == [1]
    assert skipped == []
