"""Statistics pooled from the manifest are those of all numbers together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbered_episodes import episode, write_episodes

from pipelines.manifest_rows import statistics
from schemas.errors import UsageError
from vpp.data.action_statistics import Statistics, action_statistics, pool_statistics, proprio_statistics
from vpp.data.settings import WindowSettings
from vpp.data.window_index import WindowIndex


def of_values(values: np.ndarray) -> Statistics:
    return Statistics(len(values), values.mean(0), values.std(0), values.min(0), values.max(0))


def check_equal(found: Statistics, expected: Statistics, **tolerance: float) -> None:
    assert found.num_values == expected.num_values
    for name in ("mean", "std", "low", "high"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), **tolerance)


numbers = st.floats(-1e6, 1e6, width=32)


@given(st.lists(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6), min_size=1, max_size=5))
def test_pooled_statistics_are_those_of_all_values(parts: list[list[tuple[float, float]]]) -> None:
    arrays = [np.array(part) for part in parts]
    pooled = pool_statistics([of_values(array) for array in arrays])
    check_equal(pooled, of_values(np.concatenate(arrays)), rtol=1e-9, atol=1e-6)


def test_statistics_are_of_the_training_episodes_of_each_dataset(tmp_path: Path) -> None:
    url, random = str(tmp_path), np.random.default_rng(0)
    values: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def numbered(name: str, num_actions: int) -> dict:
        actions, proprio = random.normal(5, 2, (num_actions, 7)), random.normal(-1, 3, (num_actions + 1, 4))
        values[name] = actions, proprio
        row = episode(name, num_actions, num_frames=num_actions + 1, proprio_dim=4)
        members = [*row["members"], {"name": "proprio.npy", "offset": 4096, "num_bytes": 100}]
        return row | {"members": members} | statistics("action", actions) | statistics("proprio", proprio)

    rejected = episode("rejected", 5, status="rejected")
    write_episodes(
        url, a=[rejected, *(numbered(f"a{n}", 3 + n) for n in range(9))], b=[numbered(f"b{n}", 4) for n in range(6)]
    )
    settings = WindowSettings(validation_fraction=0.3, data_fraction=0.6, proprio=True)
    index = WindowIndex.read(url, settings)
    trained_on = {name.split(":")[0] for name in index.ids(index.split.train)}
    assert 2 <= len(trained_on) < len(values)
    found = action_statistics(index), proprio_statistics(index)
    for kind, by_dataset in enumerate(found):
        assert list(by_dataset) == ["a", "b"]
        for dataset, pooled in by_dataset.items():
            of_dataset = [values[name][kind] for name in sorted(trained_on) if name[0] == dataset]
            check_equal(pooled, of_values(np.concatenate(of_dataset)), rtol=1e-12, atol=1e-12)


def test_episodes_without_statistics_are_told(tmp_path: Path) -> None:
    write_episodes(str(tmp_path), a=[episode("a", 3)])
    index = WindowIndex.read(str(tmp_path), WindowSettings())
    with pytest.raises(UsageError, match=r"manifest part .*a/0.parquet: expected action_mean"):
        action_statistics(index)
