"""A question to a manifest of ten million clips, against other readers of it; and planning a million episodes.

    python benchmarks/manifest.py [--clips 10000000] [--parts 1000] [--episodes 1000000] [--keep FOLDER] [--json]

Planning runs on a tenth of the episodes and on all of them, each in a new process, to show whether memory grows.

The question: `select dataset, status, count(*) from clips group by all`. Each way runs in a process of its own:

- ours: `pipelines.query.Manifest`, read-only, as `jobs/query.py` uses it
- plain_duckdb: DuckDB's own `read_parquet` of the same files
- pyarrow: `pyarrow.dataset` and `group_by`
- pandas: `read_parquet` of the two columns and `groupby`

Cold: the first time in the process, with opening, and with the files dropped from the page cache before. Warm: the
median of the following times, in the same process. All have to give the same counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import measure
import pandas
import pyarrow.dataset
from synthetic_manifest import write_manifest

from pipelines.plan import ShardSettings, make_plan
from pipelines.query import Manifest
from pipelines.windows import WindowSettings
from schemas.episode import Episode, Segment
from schemas.layout import manifest_folder

SQL = "select dataset, status, count(*) as num_rows from clips group by all"
Counts = dict[tuple[str, str], int]
Ask = Callable[[], Counts]


def ours(folder: str) -> Ask:
    """Our own way."""
    manifest = Manifest.open(folder)

    def ask() -> Counts:
        return {(row["dataset"], row["status"]): row["num_rows"] for row in manifest.select(SQL).to_pylist()}

    return ask


def plain_duckdb(folder: str) -> Ask:
    """DuckDB as it is, which may also write and read any file."""
    connection = duckdb.connect()
    connection.execute(f"create view clips as from read_parquet('{manifest_folder(folder, 'clips')}/*/*.parquet')")
    return lambda: {(dataset, status): n for dataset, status, n in connection.execute(SQL).fetchall()}


def pyarrow_dataset(folder: str) -> Ask:
    """PyArrow alone."""
    clips = pyarrow.dataset.dataset(manifest_folder(folder, "clips"))

    def ask() -> Counts:
        columns = ["dataset", "status"]
        groups = clips.to_table(columns=columns).group_by(columns).aggregate([([], "count_all")])
        return {(row["dataset"], row["status"]): row["count_all"] for row in groups.to_pylist()}

    return ask


def pandas_frame(folder: str) -> Ask:
    """Pandas."""

    def ask() -> Counts:
        frame = pandas.read_parquet(manifest_folder(folder, "clips"), columns=["dataset", "status"])
        return {(str(key[0]), str(key[1])): int(n) for key, n in frame.groupby(["dataset", "status"]).size().items()}

    return ask


WAYS: dict[str, Callable[[str], Ask]] = {
    "ours": ours,
    "plain_duckdb": plain_duckdb,
    "pyarrow": pyarrow_dataset,
    "pandas": pandas_frame,
}


def drop_from_page_cache(folder: str) -> None:
    """Makes the next read of every file below a folder come from the disk."""
    os.sync()  # only clean pages can be dropped
    for path in Path(folder).rglob("*.parquet"):
        with path.open("rb") as handle:
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def time_way(name: str, folder: str, rounds: int) -> dict[str, Any]:
    """Runs one way, in this process; returns cold and warm seconds, peak memory in MB, and the counts."""
    drop_from_page_cache(folder)
    began = time.perf_counter()
    ask = WAYS[name](folder)
    counts = ask()
    cold_s = time.perf_counter() - began
    warm = []
    for _ in range(rounds):
        began = time.perf_counter()
        assert ask() == counts
        warm.append(time.perf_counter() - began)
    peak_rss_mb = measure.peak_rss_mb()
    return {"cold_s": cold_s, "warm_s": statistics.median(warm), "peak_rss_mb": peak_rss_mb, "counts": counts}


def measure_group_by(folder: str, num_clips: int, rounds: int) -> dict[str, float]:
    """Asks in every way."""
    figures, expected = {}, None
    for name in WAYS:
        spawn = multiprocessing.get_context("spawn")  # a new process, whose peak memory is its own
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            result = pool.submit(time_way, name, folder, rounds).result()
        expected = expected or result["counts"]
        assert result["counts"] == expected, f"{name} counts otherwise"
        assert sum(expected.values()) == num_clips
        prefix = "" if name == "ours" else f"{name}_"
        figures[f"{prefix}group_by_cold_s"] = result["cold_s"]
        figures[f"{prefix}group_by_warm_s"] = result["warm_s"]
        figures[f"{prefix}peak_rss_mb"] = result["peak_rss_mb"]
    return figures


def listing(count: int) -> Iterator[Episode]:
    """Episodes as a source lists them."""
    for number in range(count):
        caption = f"move object {number % 50_000} to place {number % 97}"
        segment = (Segment(0, 60, caption),)
        yield Episode(f"train/{number:07d}", "train", f"videos/{number}.mp4", 60, 30.0, ("ego",), segment)


def plan(count: int) -> dict[str, float]:
    """Plans so many episodes, in this process; returns seconds and peak memory in MB."""
    with tempfile.TemporaryDirectory(prefix="vpp-plan-") as folder:
        began = time.perf_counter()
        products = ("clips", "episodes")
        make_plan(folder, "many", listing(count), WindowSettings(mode="whole"), ShardSettings(), products)
        took = time.perf_counter() - began
    return {f"plan_{count}_episodes_s": took, f"plan_{count}_episodes_peak_rss_mb": measure.peak_rss_mb()}


def measure_planning(num_episodes: int) -> dict[str, float]:
    """Plans a tenth and all of the episodes, each in a new process, so that growth shows."""
    figures: dict[str, float] = {}
    for count in (num_episodes // 10, num_episodes):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            figures |= pool.submit(plan, count).result()
    return figures


def main() -> None:
    """Parses, writes the manifest, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10_000_000)
    parser.add_argument("--parts", type=int, default=1000)
    parser.add_argument("--episodes", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--keep", help="write the manifest to this folder and leave it there, or use the one there")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {
        "clips": arguments.clips,
        "parts": arguments.parts,
        "cores": len(os.sched_getaffinity(0)),
    }
    with tempfile.TemporaryDirectory(prefix="vpp-manifest-") as temporary:
        folder = arguments.keep or temporary
        if not Path(manifest_folder(folder, "clips")).exists():
            began = time.perf_counter()
            figures["manifest_mb"] = write_manifest(Path(folder), arguments.clips, arguments.parts) / 1e6
            figures["write_s"] = time.perf_counter() - began
        figures |= measure_group_by(folder, arguments.clips, arguments.rounds)
    figures |= measure_planning(arguments.episodes)
    measure.finish(figures, arguments.json)


if __name__ == "__main__":
    main()
