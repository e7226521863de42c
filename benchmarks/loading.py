"""Samples per second of the loader, and of a plain loop over one `.pt` and one JSON file a sample; same data, one run.

    python benchmarks/loading.py [--clips 4096] [--batch 48] [--threads 2] [--rounds 3] [--json]

- ours: `vpp.data.ClipLoader`, latents and text out of tar shards on disk by byte range, in threads, as float16 batches
- plain: for each sample `torch.load` of latents and text, `json.load` of its annotation, then `torch.stack`, as a
  dataset without workers does; in the published order, a random permutation, like ours

Both read the same values, from the page cache (what a disk or store adds is the same for both), and the sum over a
batch is compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipelines.decode import npy
from pipelines.shard_writer import TarWriter
from schemas.layout import manifest_url, shard_path, shard_url
from schemas.manifest import CLIP_SCHEMA
from schemas.storage import write_file
from vpp.data.clip_index import ClipIndex
from vpp.data.loader import ClipLoader
from vpp.data.settings import DataSettings
from vpp.data.streams import training_order

_CLIPS_PER_SHARD = 512
_VIDEO_BYTES = 20_000  # lies between the latents of neighbours, unread


def write_data(folder: Path, num_clips: int) -> tuple[str, list[Path]]:
    """Writes the same random latents as shards and as single files; returns the output and the files' stems."""
    rng = np.random.default_rng(0)
    output, stems = str(folder / "out"), []
    (folder / "single").mkdir(parents=True)
    for shard in range(-(-num_clips // _CLIPS_PER_SHARD)):
        rows = []
        with write_file(shard_url(output, "clips", "set", f"{shard:06d}")) as handle:
            tar = TarWriter(handle)
            for number in range(shard * _CLIPS_PER_SHARD, min(num_clips, (shard + 1) * _CLIPS_PER_SHARD)):
                clip_id, stem = f"{number:020x}", folder / "single" / f"{number:020x}"
                latents = rng.standard_normal((16, 4, 32, 32)).astype(np.float16)
                text = rng.standard_normal((20, 512)).astype(np.float16)
                annotation = {"texts": ["open the drawer"], "video_length": 16, "latent_videos": [{"path": stem.name}]}
                torch.save({"latents": torch.from_numpy(latents), "text": torch.from_numpy(text)}, f"{stem}.pt")
                Path(f"{stem}.json").write_text(json.dumps(annotation))
                stems.append(stem)
                contents = {
                    "mp4": bytes(_VIDEO_BYTES),
                    "latents.npy": npy(latents),
                    "txt": b"open the drawer",
                    "json": json.dumps(annotation).encode(),
                    "text.npy": npy(text),
                }
                members = [
                    {"name": name, "offset": tar.add(f"{clip_id}.{name}", content), "num_bytes": len(content)}
                    for name, content in contents.items()
                ]
                where = {"shard": shard_path("set", f"{shard:06d}"), "members": members, "status": "written"}
                rows.append(
                    {"clip_id": clip_id, "dataset": "set", "split": "train", "source_episode": clip_id, **where}
                )
            tar.close()
        with write_file(manifest_url(output, "clips", "set", f"{shard:06d}")) as handle:
            pq.write_table(pa.Table.from_pylist(rows, CLIP_SCHEMA), handle)
    return output, stems


def ours(output: str, batch: int, num_steps: int, num_threads: int) -> tuple[float, float]:
    """Seconds, and the sum of all latents and text."""
    index = ClipIndex.read(output)
    order = training_order(index, np.arange(len(index)), DataSettings(), 0, batch)
    order.rows(0)
    started, total = time.perf_counter(), 0.0
    with ClipLoader(index, order, representation="latents", num_steps=num_steps, num_threads=num_threads) as loader:
        for clips in loader:
            assert clips.latents is not None
            total += _checksum(clips.latents, clips.text)
    return time.perf_counter() - started, total


def plain(stems: list[Path], batch: int, num_steps: int) -> tuple[float, float]:
    """Seconds, and the sum of all latents and text."""
    order = np.random.default_rng(1).permutation(len(stems))
    started, total = time.perf_counter(), 0.0
    for step in range(num_steps):
        samples = []
        for number in order[step * batch : (step + 1) * batch].tolist():
            annotation = json.loads(Path(f"{stems[number]}.json").read_text())
            assert annotation["texts"]
            samples.append(torch.load(f"{stems[number]}.pt", weights_only=True))
        latents = torch.stack([sample["latents"] for sample in samples])
        total += _checksum(latents, torch.stack([sample["text"] for sample in samples]))
    return time.perf_counter() - started, total


def _checksum(latents: torch.Tensor, text: torch.Tensor) -> float:
    """Looks at one number a clip, so that it takes no time."""
    return float(latents[:, -1, -1, -1, -1].double().sum() + text[:, -1, -1].double().sum())


def main() -> None:
    """Measures both in turn, `--rounds` times; the median counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    num_steps = options.clips // options.batch
    with tempfile.TemporaryDirectory() as folder:
        output, stems = write_data(Path(folder), options.clips // options.batch * options.batch)
        rates: dict[str, list[float]] = {"ours": [], "plain": []}
        for _ in range(options.rounds):
            ours_s, ours_sum = ours(output, options.batch, num_steps, options.threads)
            plain_s, plain_sum = plain(stems, options.batch, num_steps)
            assert abs(ours_sum - plain_sum) < 1e-6 * options.clips, (ours_sum, plain_sum)
            rates["ours"].append(num_steps * options.batch / ours_s)
            rates["plain"].append(num_steps * options.batch / plain_s)
    figures: dict[str, Any] = {f"{name}_samples_per_s": statistics.median(values) for name, values in rates.items()}
    figures["ours_to_plain"] = figures["ours_samples_per_s"] / figures["plain_samples_per_s"]
    measure.finish(figures, options.json)


if __name__ == "__main__":
    main()
