"""The plan, the ledger and the manifest of up to 100 million clips, with all requests to the store counted.

    python benchmarks/scale.py [--clips 1000000 10000000 100000000] [--shard-clips 512] [--json]

The real code runs (`pipelines.plan`, `ledger`, `query`, `vpp.data.clip_index`) on an S3 that answers from memory
(`counted_s3.py`): times are those of the processor alone, requests those that s3fs would send. Each figure comes from a
process of its own; memory is what the process grew by.

- dense: a plan of a listing as Ego4D has it (videos of 24 minutes, a narration every 3.4 s, captions that repeat by
  Zipf's law), every 4th frame of which begins a clip; `_load`, `_text`, `_write`: what a task asks the store for apart
  from video, mean of shards spread over that plan
- narrations: the same with a clip for each narration; only up to `--small-clips`, which is more than Ego4D has
- ledger: which shards are done, with all, half and none of them done; then counting the rows of every part
- query: opening the manifest, and the first and a second answer to `select dataset, status, count(*) ...`
- index: what each training process reads first; only up to `--small-clips`, since memory grows with it
- dispatch: rows a second, and driver time for each, of the job's Ray graph around a function that does nothing

Manifest parts are 16 real ones over and over, under as many names as there are shards.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import measure
import psutil
import pyarrow.parquet as pq
from counted_s3 import Bucket, count_requests
from synthetic_manifest import captions, manifest_part

from pipelines.decode import Sample
from pipelines.ledger import count_rows, pending_shards
from pipelines.manifest_rows import Provenance, planned_row
from pipelines.plan import ShardSettings, make_plan
from pipelines.plan_files import CAPTIONS_PER_FILE, SHARDS_PER_FILE, PlanSummary, load_shard
from pipelines.query import Manifest
from pipelines.shard_writer import write_shard
from pipelines.text import read_embeddings
from pipelines.windows import WindowSettings, windows
from schemas.encoder import TEXT_TOKENS, TEXT_WIDTH
from schemas.episode import Episode, Segment
from schemas.layout import manifest_folder
from schemas.storage import exists, in_memory
from vpp.data.clip_index import ClipIndex

OUTPUT, DATASET = "s3://bucket/output", "ego"
SQL = "select dataset, status, count(*) as num_rows from clips group by all"
_FPS, _FRAMES, _SEGMENT = 30, 43_200, 103
WINDOWS = {"dense": WindowSettings(mode="sliding", stride=2, hop=4), "narrations": WindowSettings(mode="segment")}
_NUM_PHRASES = 4_000_000
_NUM_LOOKED_AT = 8  # shards of a plan, each in a file of its own where there are so many
_NUM_TEMPLATES = 16
_VIDEO_BYTES = 20_000
_TEXT_FILE_BYTES = 128 + CAPTIONS_PER_FILE * TEXT_TOKENS * TEXT_WIDTH * 2  # as pipelines/text.py writes them


def listing(num_videos: int) -> Iterator[Episode]:
    """Videos with narrations without gaps."""
    for number in range(num_videos):
        rng = random.Random(number)
        segments = tuple(
            Segment(
                first, first + _SEGMENT, f"a person moves the object {int(_NUM_PHRASES ** rng.random())} with a hand"
            )
            for first in range(0, _FRAMES - _SEGMENT + 1, _SEGMENT)
        )
        uid = f"{rng.getrandbits(128):032x}"
        yield Episode(uid, "train", f"s3://videos/{uid}.mp4", _FRAMES, _FPS, ("ego",), segments)


@contextlib.contextmanager
def measured(figures: dict[str, Any], name: str, bucket: Bucket) -> Iterator[None]:
    """Adds seconds (also of the processor), growth of memory in MB and requests of the block."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
    before_mb = psutil.Process().memory_info().rss / (1 << 20)
    bucket.requests.reset()
    began, began_cpu = time.perf_counter(), time.process_time()
    yield
    figures[f"{name}_s"], figures[f"{name}_cpu_s"] = time.perf_counter() - began, time.process_time() - began_cpu
    figures[f"{name}_mb"] = measure.peak_rss_mb() - before_mb
    figures |= {f"{name}_{kind}": count for kind, count in sorted(bucket.requests.counts.items())}
    for kind, num_bytes in (("put", bucket.requests.put_bytes), ("got", bucket.requests.got_bytes)):
        if num_bytes:
            figures[f"{name}_{kind}_bytes"] = num_bytes


def measure_plan(num_clips: int, shard_clips: int, name: str) -> dict[str, Any]:
    """Plans so many clips, then does of some shards what a task does apart from video."""
    figures: dict[str, Any] = {}
    every = max(1, num_clips // (shard_clips * SHARDS_PER_FILE * _NUM_LOOKED_AT))

    def is_kept(key: str) -> bool:  # of the plan's other files only the sizes are kept
        folder, _, file_name = key.rpartition("/")
        return folder.endswith("/clips") and int(file_name.partition(".")[0]) % every == 0

    bucket = count_requests(is_kept)
    of_a_video = sum(1 for _ in windows(next(listing(1)), WINDOWS[name]))
    videos, shards = listing(-(-num_clips // of_a_video)), ShardSettings(clips=shard_clips)
    with measured(figures, f"{name}_plan", bucket):
        plan = make_plan(OUTPUT, DATASET, videos, WINDOWS[name], shards, ("clips",))
    num_shards = plan.num_shards["clips"]
    figures |= {f"{name}_clips": plan.planned["clips"], f"{name}_shards": num_shards}
    figures[f"{name}_captions"] = plan.num_captions
    texts = (f"{number:06d}.npy" for number in range(-(-plan.num_captions // CAPTIONS_PER_FILE)))
    bucket.add_same(f"bucket/output/plan/{DATASET}/text", texts, [_TEXT_FILE_BYTES])
    chosen = range(0, num_shards, SHARDS_PER_FILE * every)
    asked: dict[str, float] = {}
    for number in chosen:
        for kind, value in _one_shard(bucket, number).items():
            asked[f"{name}_{kind}"] = asked.get(f"{name}_{kind}", 0) + value / len(chosen)
    return figures | asked


def _one_shard(bucket: Bucket, number: int) -> dict[str, float]:
    """What one task asks for: its plan, its source, its captions, its two files."""
    figures: dict[str, Any] = {}
    with measured(figures, "load", bucket):
        shard = load_shard(OUTPUT, DATASET, "clips", number)
        exists("s3://bucket/output/plan")  # as a task looks whether its source is there
    planned = [sample for _, of_episode in shard.items for sample in of_episode]
    with measured(figures, "text", bucket):
        text = read_embeddings(OUTPUT, DATASET, planned)
    samples = [
        Sample(planned_row("clips", DATASET, episode, sample), [("mp4", bytes(_VIDEO_BYTES))])
        for episode, of_episode in shard.items
        for sample in of_episode
    ]
    with measured(figures, "write", bucket):
        write_shard(OUTPUT, shard, samples, text, Provenance("decoder", "encoder", "clip", False))
    return figures


def with_parts(num_shards: int, num_done: int, shard_clips: int) -> Bucket:
    """A bucket with manifest parts for the first of the shards."""
    texts = captions()
    contents = [
        in_memory(lambda handle, part=part: pq.write_table(part, handle, compression="zstd"))
        for part in (manifest_part(DATASET, f"{n:06d}", n, shard_clips, texts) for n in range(_NUM_TEMPLATES))
    ]
    bucket = count_requests()
    folder = manifest_folder("bucket/output", "clips", DATASET)
    bucket.add_same(folder, (f"{number:06d}.parquet" for number in range(num_done)), contents)
    return bucket


def measure_ledger(num_clips: int, shard_clips: int) -> dict[str, Any]:
    """Asks what is done, and counts what is there."""
    num_shards = -(-num_clips // shard_clips)
    plan = PlanSummary({"clips": num_shards, "episodes": 0}, {"clips": num_clips, "episodes": 0}, 0)
    figures: dict[str, Any] = {}
    for name, num_done in (("none", 0), ("half", num_shards // 2), ("all", num_shards)):
        bucket = with_parts(num_shards, num_done, shard_clips)
        with measured(figures, f"pending_{name}_done", bucket):
            num_pending = sum(1 for _ in pending_shards(OUTPUT, DATASET, plan))
        assert num_pending == num_shards - num_done
    with measured(figures, "count_rows", bucket):
        counts = count_rows(OUTPUT, [DATASET])["clips"][DATASET]
    assert sum(counts[status] for status in ("written", "rejected", "filtered")) == num_shards * shard_clips
    return figures


def measure_query(num_clips: int, shard_clips: int) -> dict[str, Any]:
    """Opens the manifest and asks twice."""
    num_shards = -(-num_clips // shard_clips)
    bucket, figures = with_parts(num_shards, num_shards, shard_clips), {}
    with measured(figures, "query_open", bucket):
        manifest = Manifest(OUTPUT)
    for name in ("query_first", "query_second"):
        with measured(figures, name, bucket):
            rows = manifest.select(SQL).to_pylist()
        assert sum(row["num_rows"] for row in rows) == num_shards * shard_clips
    return figures


def measure_index(num_clips: int, shard_clips: int) -> dict[str, Any]:
    """Reads what training reads before its first step."""
    num_shards = -(-num_clips // shard_clips)
    bucket, figures = with_parts(num_shards, num_shards, shard_clips), {}
    with measured(figures, "index", bucket):
        ClipIndex.read(OUTPUT)
    return figures


def measure_dispatch(num_rows: int) -> dict[str, Any]:
    """Runs the job's graph over rows that need nothing."""
    import ray

    from pipelines.preprocess import _run

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    figures: dict[str, Any] = {}
    options: dict[str, Any] = {"num_cpus": 1, "max_retries": 3}  # as the job asks for
    rows = [{"dataset": DATASET, "product": "clips", "number": number} for number in range(num_rows)]
    list(_run(rows[:100], lambda dataset: dataset.map(lambda row: row, **options)))  # the worker starts
    driver, bucket = psutil.Process(), count_requests()
    before = driver.cpu_times()
    with measured(figures, "dispatch", bucket):
        done = _run(rows, lambda dataset: dataset.map(lambda row: row, **options))
        assert sum(1 for _ in done) == num_rows
    after = driver.cpu_times()
    figures["dispatch_driver_ms_a_row"] = 1000 * (after.user + after.system - before.user - before.system) / num_rows
    figures["dispatch_rows_per_s"] = num_rows / figures["dispatch_s"]
    ray.shutdown()
    return figures


def in_own_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Runs a measurement in a new process, whose memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    """Parses, measures each size, prints."""
    kinds: dict[str, Callable[[int, int], dict[str, Any]]] = {
        "dense": partial(measure_plan, name="dense"),
        "narrations": partial(measure_plan, name="narrations"),
        "ledger": measure_ledger,
        "query": measure_query,
        "index": measure_index,
    }
    small = ("narrations", "index")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="*", default=[1_000_000, 10_000_000, 100_000_000])
    parser.add_argument("--shard-clips", type=int, default=ShardSettings().clips)
    parser.add_argument("--small-clips", type=int, default=10_000_000)
    parser.add_argument("--rows", type=int, default=10_000, help="of the graph that does nothing")
    parser.add_argument("--only", nargs="+", choices=[*kinds, "dispatch"], default=[*kinds, "dispatch"])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    every: dict[str, Any] = {"shard_clips": arguments.shard_clips}
    for num_clips in arguments.clips:
        figures: dict[str, Any] = {}
        for name, function in kinds.items():
            if name in arguments.only and (name not in small or num_clips <= arguments.small_clips):
                figures |= in_own_process(function, num_clips, arguments.shard_clips)
        print(f"--- {num_clips:,} clips", flush=True)
        measure.finish(figures, False)
        every[str(num_clips)] = figures
    if "dispatch" in arguments.only:
        figures = in_own_process(measure_dispatch, arguments.rows)
        print(f"--- {arguments.rows:,} rows", flush=True)
        measure.finish(figures, False)
        every |= figures
    if arguments.json:
        print(json.dumps(every))


if __name__ == "__main__":
    main()
