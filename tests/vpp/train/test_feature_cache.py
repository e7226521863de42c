"""Features on disk: computed once whoever asks, shared by those that look at the same folder, bounded by its disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from schemas.errors import UsageError
from vpp.train.feature_cache import FeatureCache

SHAPE = (20, 2, 3, 4)
ROWS = np.array([3, 11, 7, 3])


def features_of(rows: np.ndarray) -> torch.Tensor:
    """A quarter of the row and a sixteenth of the channel: exact in float16."""
    return torch.from_numpy(rows)[:, None, None, None] / 4 + torch.arange(4.0).expand(len(rows), 2, 3, 4) / 16


def asked(rows: np.ndarray, log: list[int]) -> Callable[[Sequence[int]], torch.Tensor]:
    def compute(places: Sequence[int]) -> torch.Tensor:
        log.extend(rows[list(places)].tolist())
        return features_of(rows[list(places)])

    return compute


def test_what_one_worker_computed_another_and_a_later_run_find(tmp_path: Path) -> None:
    first, second = (FeatureCache(str(tmp_path), "key", SHAPE, 3) for _ in range(2))
    log: list[int] = []
    assert torch.equal(first.get(ROWS, asked(ROWS, log)), features_of(ROWS))
    assert sorted(set(log)) == [3, 7, 11]
    log.clear()
    more = np.array([7, 5, 11])
    assert torch.equal(second.get(more, asked(more, log)), features_of(more))
    assert log == [5]
    log.clear()
    later = FeatureCache(str(tmp_path), "key", SHAPE, 3)
    all_there = np.array([5, 3, 7])
    assert torch.equal(later.get(all_there, asked(all_there, log)), features_of(all_there))
    assert log == []


def test_features_of_another_model_or_dataset_are_not_taken(tmp_path: Path) -> None:
    log: list[int] = []
    for key in ("one", "other"):
        FeatureCache(str(tmp_path), key, SHAPE, 3).get(ROWS[:2], asked(ROWS, log))
    assert log == [3, 11, 3, 11]


def test_a_disk_without_room_is_told_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        total: int
        used: int
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(200, 100, 100))
    with pytest.raises(UsageError, match=r"expected 0.0 GB of free disk in .* for 3 windows.*--feature-folder"):
        FeatureCache(str(tmp_path), "key", SHAPE, 3)
