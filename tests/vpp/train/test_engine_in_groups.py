"""Several processes train together, and with another number they go on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from process_group import run_in_group
from toy_task import ToyTask, train_in_group

from vpp.train.checkpoint import Checkpoint, read_latest_checkpoint
from vpp.train.engine import TrainSettings, train
from vpp.train.optimizer import OptimizerSettings
from vpp.train.run_log import read_steps
from vpp.train.worker import Worker

SETTINGS = TrainSettings(
    steps=8, batch_size=7, micro_batch_size=2, precision="fp32", log_every=2, checkpoint_every=4, validate_every=4,
    ema_decay=0.9, optimizer=OptimizerSettings(learning_rate=1e-2),
)  # fmt: skip


def train_with(num_processes: int, url: Path, **changes: object) -> Checkpoint:
    settings = dataclasses.replace(SETTINGS, **changes)
    if num_processes == 1:
        train(ToyTask(settings.batch_size), settings, Worker(), str(url), {"seed": 0})
    else:
        meeting = url.parent / f"meeting-{url.name}-{settings.steps}-{num_processes}"
        run_in_group(train_in_group, num_processes, meeting, str(url), settings)
    checkpoint = read_latest_checkpoint(str(url))
    assert checkpoint is not None
    assert checkpoint.info.step == settings.steps
    return checkpoint


def assert_alike(one: Checkpoint, other: Checkpoint) -> None:
    for group, tensors in one.tensors.items():
        assert set(tensors) == set(other.tensors[group])
        for name, tensor in tensors.items():
            torch.testing.assert_close(other.tensors[group][name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_workers_train_what_one_trains(tmp_path: Path, parallel: str) -> None:
    """Seven samples do not divide by two workers, nor by micro-batches of two."""
    one = train_with(1, tmp_path / "one")
    two = train_with(2, tmp_path / "two", parallel=parallel)
    assert_alike(one, two)
    steps, other = read_steps(str(tmp_path / "one")), read_steps(str(tmp_path / "two"))
    assert steps["sample_ids"].equals(other["sample_ids"])
    torch.testing.assert_close(
        torch.tensor(other["losses"].to_pylist()), torch.tensor(steps["losses"].to_pylist()), rtol=1e-4, atol=1e-6
    )


def test_a_run_goes_on_with_another_number_of_workers_and_kind_of_sharding(tmp_path: Path) -> None:
    whole = train_with(1, tmp_path / "whole", steps=9)
    train_with(2, tmp_path / "run", steps=3, parallel="fsdp")
    train_with(1, tmp_path / "run", steps=6)
    assert_alike(whole, train_with(3, tmp_path / "run", steps=9, parallel="ddp"))
    assert read_steps(str(tmp_path / "run"))["step"].to_pylist() == list(range(9))
