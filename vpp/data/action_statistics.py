"""Mean, standard deviation and range of actions and proprioception, for normalising them.

They are pooled from each training episode's own, which stand in the manifest (`schemas.manifest.EPISODE_SCHEMA`): no
shard is opened, and the result is that of all values together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import UsageError
from schemas.parquet_memory import read_parquet
from schemas.storage import read_bytes
from schemas.store_faults import retry_passing_faults
from vpp.data.window_index import WindowIndex

_COUNTS = {"action": "num_actions", "proprio": "num_frames"}  # there is proprioception at every frame
_NUM_THREADS = 16  # a store answers many requests at a time


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics of vectors of `D` numbers, each float64 `[D]`.

    Attributes:
        num_values: How many vectors.
        mean: Their mean.
        std: Their standard deviation (of the population).
        low: The smallest value of each dimension.
        high: The largest.
    """

    num_values: int
    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray


def pool_statistics(parts: Sequence[Statistics]) -> Statistics:
    """Statistics of all values of several disjoint parts together.

    Args:
        parts: At least one, all of the same `D`.

    >>> halves = [Statistics(len(v), v.mean(0), v.std(0), v.min(0), v.max(0))
    ...           for v in (np.array([[1.0], [3.0]]), np.array([[8.0]]))]
    >>> pooled = pool_statistics(halves)
    >>> pooled.num_values, pooled.mean.tolist(), (pooled.std**2).round(6).tolist(), pooled.high.tolist()
    (3, [4.0], [8.666667], [8.0])
    """
    counts = np.array([part.num_values for part in parts])
    mean, std, low, high = (
        np.stack([getattr(part, name) for part in parts]) for name in ("mean", "std", "low", "high")
    )
    return _pooled(counts, mean, std, low, high)


def action_statistics(index: WindowIndex, retry_s: float = 120.0) -> dict[str, Statistics]:
    """Statistics of the actions of each dataset, over its episodes that are trained on.

    Args:
        index: The windows; its split says which episodes are trained on.
        retry_s: How long a store that does not answer is asked again.

    Raises:
        UsageError: If the manifest has none of them for an episode.
    """
    return _read(index, "action", retry_s)


def proprio_statistics(index: WindowIndex, retry_s: float = 120.0) -> dict[str, Statistics]:
    """As `action_statistics`, of the robot's own state at every frame."""
    return _read(index, "proprio", retry_s)


def _read(index: WindowIndex, kind: Literal["action", "proprio"], retry_s: float) -> dict[str, Statistics]:
    def read(part: tuple[str, str, pa.LargeStringArray]) -> tuple[str, Statistics]:
        dataset, url, ids = part
        content = retry_passing_faults(lambda: read_bytes(url), f"reading {url}", retry_s)
        return dataset, _read_part(content, url, ids, kind)

    found: dict[str, list[Statistics]] = defaultdict(list)
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for dataset, statistics in pool.map(read, index.manifest_parts(index.split.train)):
            found[dataset].append(statistics)
    return {dataset: pool_statistics(parts) for dataset, parts in found.items()}


def _read_part(content: bytes, url: str, ids: pa.LargeStringArray, kind: str) -> Statistics:
    names = [f"{kind}_{name}" for name in ("mean", "std", "min", "max")]
    table = read_parquet(content, f"manifest part {url}", ["episode_id", _COUNTS[kind], *names])
    table = table.filter(pc.is_in(table["episode_id"].cast(pa.large_string()), ids))
    lengths = np.concatenate([pc.fill_null(pc.list_value_length(table[name]), 0).to_numpy() for name in names])
    if lengths.min() != lengths.max() or not lengths.min():
        raise UsageError(
            f"manifest part {url}: expected {kind}_mean, _std, _min and _max of one length in every episode, found "
            f"lengths {lengths.min()} to {lengths.max()}; run jobs/preprocess.py again under a new output"
        )
    columns = (table[name].combine_chunks().flatten().to_numpy().reshape(len(table), -1) for name in names)
    return _pooled(table[_COUNTS[kind]].to_numpy(), *columns)


def _pooled(counts: np.ndarray, mean: np.ndarray, std: np.ndarray, low: np.ndarray, high: np.ndarray) -> Statistics:
    """Pools rows `[E, D]` of `counts[e]` values each (the variance is that within rows plus that of their means)."""
    weights = (counts / counts.sum())[:, None]
    pooled_mean = (weights * mean).sum(axis=0)
    variance = (weights * (std**2 + (mean - pooled_mean) ** 2)).sum(axis=0)
    return Statistics(int(counts.sum()), pooled_mean, np.sqrt(variance), low.min(axis=0), high.max(axis=0))
