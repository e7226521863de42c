"""What a card tells of a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numbered_episodes import episode, write_episodes

from vpp.data.settings import WindowSettings
from vpp.data.window_index import WindowIndex
from vpp.train.engine import TrainSettings
from vpp.train.training_card import training_blocks


def test_samples_are_counted_for_each_dataset_and_figures_are_those_of_validation(tmp_path: Path) -> None:
    write_episodes(str(tmp_path), a=[episode("x", 7)], b=[episode("y", 5)])
    index = WindowIndex.read(str(tmp_path), WindowSettings())
    settings = TrainSettings(steps=1200, batch_size=8)
    metrics = {"val/loss": 0.123456, "val/action_gain_db": float(2), "val_loss_by_frame/01": 1.0}
    text = "\n".join(training_blocks(index, np.arange(9), np.arange(9, 12), "windows", settings, metrics))
    assert "1,200 steps of 8 windows, seed 0" in text
    assert "| `a` | 7 | 0 |" in text
    assert "| `b` | 2 | 3 |" in text
    assert "| `val/loss` | 0.1235 |" in text
    assert "by_frame" not in text


def test_a_training_without_validation_says_so(tmp_path: Path) -> None:
    write_episodes(str(tmp_path), a=[episode("x", 7)])
    index = WindowIndex.read(str(tmp_path), WindowSettings())
    blocks = training_blocks(index, np.arange(7), np.arange(0), "windows", TrainSettings(), {})
    assert blocks[-1].endswith("None was made.")
