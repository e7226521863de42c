"""Chaos sees each kind of damage: a check that finds nothing wrong would find nothing wrong for ever."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from chaos.checks import Damage, check_checkpoints, check_evaluation, check_preprocess, check_training
from video_dataset import write_video_dataset

from vpp.sim.evaluation_rows import Row, episode_path, write_rows
from vpp.train.checkpoint_writer import CheckpointWriter
from vpp.train.run_log import RunLog, StepRecord


def copy(truth: Path) -> Path:
    return Path(shutil.copytree(truth, truth.with_name("found")))


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    write_video_dataset(str(tmp_path / "truth"), {"a": 4}, clips_per_shard=2)
    return tmp_path / "truth"


def test_a_lost_part_a_doubled_one_and_a_changed_byte_are_damage(clips: Path) -> None:
    found = copy(clips)
    assert check_preprocess(found, clips).is_none
    manifest = found / "clips" / "manifest" / "a"
    kept = (manifest / "00000.parquet").rename(clips.with_name("kept"))
    damage = check_preprocess(found, clips)
    assert (damage.lost, damage.doubled, damage.differing) == (2, 0, 1)
    for name in ("00000.parquet", "00007.parquet"):
        shutil.copy(kept, manifest / name)
    damage = check_preprocess(found, clips)
    assert (damage.lost, damage.doubled, damage.differing) == (0, 2, 1)
    (manifest / "00007.parquet").unlink()
    shard = found / "clips" / "shards" / "a" / "00001.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    damage = check_preprocess(found, clips)
    assert (damage.lost, damage.doubled, damage.differing) == (0, 0, 1)
    assert damage.notes == ["clips/shards/a/00001.tar is not as undisturbed"]


def train(run: Path, samples: list[str]) -> Path:
    """A run of one sample a step, with a checkpoint at its end."""
    log = RunLog(str(run), 0)
    numbers = np.ones(1, np.float32)
    log.add_steps(
        [StepRecord(step, 1.0, 1.0, 0.1, [name], ["a"], numbers, numbers) for step, name in enumerate(samples)]
    )
    log.flush()
    log.close()
    with CheckpointWriter(str(run)) as writer:
        writer.save(len(samples), {"weights": {"w": torch.ones(100)}}, {}, {})
    (run / "model").mkdir()
    (run / "model" / "w.safetensors").write_bytes(b"weights")
    return run


def test_skipped_and_repeated_samples_and_other_weights_are_damage(tmp_path: Path) -> None:
    truth = train(tmp_path / "truth", ["x", "y", "z"])
    found = copy(truth)
    assert check_training(found, truth).is_none
    (found / "model" / "w.safetensors").unlink()
    assert check_training(found, truth) == Damage(differing=1, notes=["model/w.safetensors is not as undisturbed"])
    damage = check_training(train(tmp_path / "other", ["x", "x", "z"]), truth)
    assert (damage.skipped, damage.repeated, damage.differing) == (1, 1, 1)


def test_a_checkpoint_that_claims_to_be_complete_and_is_not_is_damage(tmp_path: Path) -> None:
    run = train(tmp_path, ["x", "y"])
    (run / "checkpoints" / "step_00000009").mkdir()
    (run / "checkpoints" / "step_00000009" / "weights.safetensors").write_bytes(b"cut short")
    assert check_checkpoints(run).is_none
    weights = run / "checkpoints" / "step_00000002" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert check_checkpoints(run).unreadable == 1


def test_a_lost_row_and_a_changed_one_are_damage(tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    row = Row(0, 0, "task", "easy", "do it", 7, True, 12, 0.5, 1, None, "videos/000000.mp4")
    for number in range(2):
        write_rows(str(truth), [replace(row, number=number)])
    (truth / "videos").mkdir()
    (truth / "videos" / "000000.mp4").write_bytes(b"video")
    found = copy(truth)
    write_rows(str(found), [replace(row, number=1, seconds=9.0, attempts=2)])
    assert check_evaluation(found, truth).is_none
    write_rows(str(found), [replace(row, number=1, success=False, reason="it broke")])
    (found / "videos" / "000000.mp4").write_bytes(b"vide")
    damage = check_evaluation(found, truth)
    assert (damage.lost, damage.doubled, damage.differing) == (0, 0, 2)
    (found / episode_path(1)).unlink()
    damage = check_evaluation(found, truth)
    assert (damage.lost, damage.doubled, damage.differing) == (1, 0, 1)
