"""What a clip costs: seconds of a core and bytes, by how the windows lie, and requests to read and to train on it.

    python benchmarks/unit_costs.py [--json] [--rounds 3] [--clips 1000000] [--samples FOLDER]

- dense: 640x480 H.264, a clip of stride 2 at every 4th frame, as `benchmarks/preprocess.py` makes them
- narrations: the same video, a clip for each stretch of 103 frames (Ego4D's 17.5 narrations a minute at 30 frames per
  second), evenly sampled; nearly all of the time is decoding

Both in that benchmark's tight loop, which the whole job follows at 0.9. Bytes are those of clips of real videos, with
`--samples`. Requests for a source's video are counted on a stretch in its middle, as a shard takes one of an hour-long
video. Requests of training are those that the loader plans for batches of 48 clips on 8 workers with its default
settings, video and text of a clip, over `--clips` clips.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import av
import measure
import numpy as np
from counted_s3 import count_requests
from preprocess import Work, limit, rate, video_path, work_of, write_source
from scale import OUTPUT, with_parts

from pipelines.encode_video import VideoSettings, encode_video
from pipelines.frames import FrameResizer
from pipelines.video_file import count_frames, read_frames
from pipelines.windows import evenly
from vpp.data.clip_index import ClipIndex
from vpp.data.loader import share_of_rank
from vpp.data.range_reader import plan_reads
from vpp.data.settings import DataSettings
from vpp.data.streams import training_order

NARRATION_FRAMES = 103
_GLOBAL_BATCH, _WORKERS = 48, 8
_LAST_FRAME = 30  # of a clip of 16 frames with stride 2


def narrations(dense: Work) -> Work:
    """A clip for each stretch of the same videos."""
    work: Work = []
    for path, _ in dense:
        with av.open(path) as container:
            num_frames = container.streams.video[0].frames
        firsts = range(0, num_frames - NARRATION_FRAMES + 1, NARRATION_FRAMES)
        work.append((path, [evenly(first, first + NARRATION_FRAMES) for first in firsts]))
    return work


def measure_clips(rounds: int, num_frames: int) -> dict[str, float]:
    """Seconds of a core for a clip of each kind, medians."""
    rates: dict[str, list[float]] = {"dense": [], "narrations": []}
    with tempfile.TemporaryDirectory() as folder:
        dense = work_of([write_source(Path(folder), 2, num_frames)], partial(video_path, Path(folder)))
        for _ in range(rounds):
            for name, work in (("dense", dense), ("narrations", narrations(dense))):
                rates[name].append(rate(partial(limit, work))[0])
    return {f"{name}_clip_s": 1 / statistics.median(values) for name, values in rates.items()}


def measure_bytes(samples: Path) -> dict[str, float]:
    """Mean bytes of a clip's video, 16 frames with stride 2, by the folder that the source videos lie in."""
    figures = {}
    for name in ("vpp_layout/bridge", "vpp_layout/sthv2", "openx_lerobot/g1_v21"):
        sizes = []
        for path in map(str, sorted((samples / name / "videos").rglob("*"))):
            if path.endswith((".mp4", ".webm")) and count_frames(path) > _LAST_FRAME:
                resize = FrameResizer()
                frames = [resize(frame) for _, frame in read_frames(path, range(0, _LAST_FRAME + 1, 2))]
                sizes.append(len(encode_video(frames, VideoSettings())))
        figures[f"{name.rpartition('/')[2]}_clip_bytes"] = statistics.mean(sizes)
    return figures


def measure_reading(num_frames: int) -> dict[str, float]:
    """Requests for the frames in the middle of a video, and its bytes."""
    bucket = count_requests()
    with tempfile.TemporaryDirectory() as folder:
        write_source(Path(folder), 1, num_frames)
        bucket.add("videos/0.mp4", (Path(folder) / "videos" / "train" / "0.mp4").read_bytes())
    middle = range(num_frames // 2, num_frames // 2 + 100)
    assert sum(1 for _ in read_frames("s3://videos/0.mp4", middle)) == len(middle)
    counts = bucket.requests.counts
    return {
        "video_bytes": float(len(bytes(bucket.find("videos/0.mp4")))),
        "stretch_gets": float(counts["get"]),
        "stretch_heads": float(counts["head"]),
        "stretch_bytes": float(bucket.requests.got_bytes),
    }


def measure_training(num_clips: int, shard_clips: int = 512, num_rounds: int = 20) -> dict[str, float]:
    """Requests and bytes for a clip that is trained on."""
    num_shards = -(-num_clips // shard_clips)
    with_parts(num_shards, num_shards, shard_clips)
    index, settings = ClipIndex.read(OUTPUT), DataSettings()
    order = training_order(index, np.arange(len(index)), settings, 0, _GLOBAL_BATCH)
    # A worker asks for more when half of what it read ahead is used up.
    steps_at_once = max(1, settings.read_ahead // 2 // (_GLOBAL_BATCH // _WORKERS))
    num_reads = num_bytes = num_samples = 0
    for first in range(0, num_rounds * steps_at_once, steps_at_once):
        steps = [order.rows(step) for step in range(first, first + steps_at_once)]
        for rank in range(_WORKERS):
            rows = np.concatenate([of_step[share_of_rank(of_step, rank, _WORKERS)] for of_step in steps])
            reads = plan_reads(index, rows, ("mp4", "text.npy"))
            num_reads += len(reads)
            num_bytes += sum(read.end - read.start for read in reads)
            num_samples += len(rows)
    return {"train_gets_a_clip": num_reads / num_samples, "train_bytes_a_clip": num_bytes / num_samples}


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=1200)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--samples", type=Path, help="a folder with openx_lerobot/g1_v21 and vpp_layout/")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"core": measure.pin_to_one_core()}
    figures |= measure_clips(arguments.rounds, arguments.frames)
    if arguments.samples:
        figures |= measure_bytes(arguments.samples)
    figures |= measure_reading(arguments.frames)
    figures |= measure_training(arguments.clips)
    measure.finish(figures, arguments.json)


if __name__ == "__main__":
    main()
