"""A manifest of 10 million clips in 1,000 parts: how fast a group-by answers, and what planning a million episodes
takes.

    python benchmarks/manifest.py [--json] [--clips 10000000] [--parts 1000] [--episodes 1000000]

The query is `select dataset, status, count(*) from clips group by all`, asked through `pipelines.query` as
`jobs/query.py` does: once cold (a new process would pay this too: opening and the first answer), then warm (median
of five). Beside it, in the same run, pyarrow's dataset scanner groups the same columns. Planning goes through
`pipelines.plan` with an episode's listing as a source yields it; memory is this process's peak.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import measure
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from pipelines.plan import ShardSettings, make_plan
from pipelines.query import Manifest
from pipelines.windows import WindowSettings
from schemas.episode import Episode, Segment
from schemas.layout import manifest_url
from schemas.manifest import CLIP_SCHEMA

SQL = "select dataset, status, count(*) from clips group by all"
DATASETS = ("ego4d", "sthv2", "bridge", "rt1")


def write_manifest(output: str, num_clips: int, num_parts: int) -> None:
    """Writes parts of the true schema with plausible values."""
    per_part = num_clips // num_parts
    rng = np.random.default_rng(0)
    words = np.array([f"a person moves object {number} to place {number % 97}" for number in range(5000)])
    names = ("mp4", "txt", "json", "text.npy")
    for part in range(num_parts):
        dataset = DATASETS[part % len(DATASETS)]
        numbers = np.arange(per_part)
        status = np.where(rng.random(per_part) < 0.97, "written", "rejected")
        starts = rng.integers(0, 10_000, per_part)
        frames = (starts[:, None] + 2 * np.arange(16)).astype(np.int32)
        sizes = rng.integers(20_000, 60_000, (per_part, len(names)))
        offsets = np.cumsum(sizes.ravel()) - sizes.ravel()
        entries = {"name": np.tile(names, per_part), "offset": offsets, "num_bytes": sizes.ravel()}
        member = pa.StructArray.from_arrays([pa.array(value) for value in entries.values()], names=list(entries))
        columns = {
            "clip_id": [f"{part:08x}{number:012x}" for number in numbers],
            "dataset": np.full(per_part, dataset),
            "source_episode": [f"train/{part:06d}-{number // 40}" for number in numbers],
            "status": status,
            "reason": np.where(status == "written", "", "decode_error"),
            "caption": words[rng.integers(0, len(words), per_part)],
            "start_frame": starts,
            "end_frame": starts + 31,
            "source_fps": np.full(per_part, 30.0),
            "shard": np.full(per_part, f"{dataset}/{part:06d}.tar"),
            "members": pa.ListArray.from_arrays(np.arange(per_part + 1, dtype=np.int32) * len(names), member),
            "sha256": [f"{value:064x}" for value in rng.integers(0, 2**62, per_part)],
            "camera": np.full(per_part, "ego"),
            "frame_indices": pa.ListArray.from_arrays(np.arange(per_part + 1, dtype=np.int32) * 16, frames.ravel()),
        }
        table = pa.table(
            [
                pa.array(columns[field.name]).cast(field.type)
                if field.name in columns
                else pa.nulls(per_part, field.type)
                for field in CLIP_SCHEMA
            ],
            schema=CLIP_SCHEMA,
        )
        path = Path(manifest_url(output, "clips", dataset, f"{part:06d}"))
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, compression="zstd")


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def query_figures(output: str) -> dict[str, float]:
    """Times the query cold, warm, and with pyarrow."""

    def first() -> Manifest:
        manifest = Manifest(output)
        manifest.select(SQL)
        return manifest

    began = time.perf_counter()
    manifest = first()
    cold = time.perf_counter() - began
    warm = statistics.median(seconds(lambda: manifest.select(SQL)) for _ in range(5))
    files = pyarrow.dataset.dataset(Path(output) / "clips" / "manifest", format="parquet")

    def with_pyarrow() -> pa.Table:
        table = files.to_table(columns=["dataset", "status"])
        return table.group_by(["dataset", "status"]).aggregate([([], "count_all")])

    with_pyarrow()
    other = statistics.median(seconds(with_pyarrow) for _ in range(3))
    return {
        "group_by_cold_s": cold,
        "group_by_warm_s": warm,
        "pyarrow_group_by_warm_s": other,
        "ratio_pyarrow_vs_ours": other / warm,
    }


def listing(count: int) -> Iterator[Episode]:
    """Episodes as a source lists them."""
    for number in range(count):
        caption = f"move object {number % 50_000} to place {number % 97}"
        segment = (Segment(0, 60, caption),)
        yield Episode(f"train/{number:07d}", "train", f"videos/{number}.mp4", 60, 30.0, ("ego",), segment)


def planning_figures(output: str, count: int) -> dict[str, float]:
    """Plans in parts, so that growth would show."""
    figures = {}
    for share in (10, 1):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        took = seconds(
            lambda: make_plan(
                f"{output}/{share}",  # noqa: B023 - called at once
                "many",
                listing(count // share),  # noqa: B023
                WindowSettings(mode="whole"),
                ShardSettings(),
                ("clips", "episodes"),
                {},
            )
        )
        figures[f"plan_{count // share}_episodes_s"] = took
        figures[f"plan_{count // share}_episodes_peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        figures.setdefault("before_planning_peak_mb", before)
    return figures


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--clips", type=int, default=10_000_000)
    parser.add_argument("--parts", type=int, default=1000)
    parser.add_argument("--episodes", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = planning_figures(f"{folder}/plan", arguments.episodes)
        print("planned; writing the manifest", flush=True)
        write_manifest(f"{folder}/out", arguments.clips, arguments.parts)
        figures |= query_figures(f"{folder}/out")
    measure.finish(figures, arguments.json)


if __name__ == "__main__":
    main()
