"""Random latents twice: as shards with a manifest, and in the VPP authors' layout; for benchmarks of training.

<folder>/shards/           what `jobs/preprocess.py` writes: 16 frames of each episode, float16, with text embeddings
<folder>/annotation/       a JSON file an episode, with actions and states as Bridge has them
<folder>/latents/          a `.pt` an episode, float32 `[40, 4, h, w]`
<folder>/text.pt           text embeddings by caption, float16 `[20, 512]`
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipelines.decode import npy
from pipelines.shard_writer import TarWriter
from schemas.layout import manifest_url, shard_path, shard_url
from schemas.manifest import CLIP_SCHEMA
from schemas.storage import write_file

NUM_FRAMES = 40
_CLIPS_PER_SHARD = 512
_NUM_CAPTIONS = 64
_VIDEO_BYTES = 20_000  # lies between the latents of neighbours, unread


def write_clips(folder: Path, num_clips: int, latent_size: int) -> None:
    """Writes both; the values are the same.

    Args:
        folder: A new one.
        num_clips: One of each episode.
        latent_size: Height and width of the latents.
    """
    rng = np.random.default_rng(0)
    for name in ("annotation", "latents"):
        (folder / name).mkdir(parents=True)
    embeddings = {f"do task {n}": rng.standard_normal((20, 512)).astype(np.float16) for n in range(_NUM_CAPTIONS)}
    torch.save({caption: torch.from_numpy(values) for caption, values in embeddings.items()}, folder / "text.pt")
    chosen = np.linspace(0, NUM_FRAMES - 1, 16).astype(int)
    for first in range(0, num_clips, _CLIPS_PER_SHARD):
        clips = {}
        for number in range(first, min(num_clips, first + _CLIPS_PER_SHARD)):
            clip_id, caption = f"{number:020x}", f"do task {number % _NUM_CAPTIONS}"
            latents = rng.standard_normal((NUM_FRAMES, 4, latent_size, latent_size), np.float32).astype(np.float16)
            torch.save(torch.from_numpy(latents.astype(np.float32)), folder / "latents" / f"{clip_id}.pt")
            (folder / "annotation" / f"{clip_id}.json").write_text(_annotation(rng, clip_id, caption))
            clips[clip_id] = (caption, latents[chosen], embeddings[caption])
        _write_shard(str(folder / "shards"), f"{first // _CLIPS_PER_SHARD:06d}", clips)


def _annotation(rng: np.random.Generator, episode_id: str, caption: str) -> str:
    annotation: dict[str, Any] = {
        "task": "robot_trajectory_prediction",
        "texts": [caption],
        "videos": [{"video_path": f"videos/{episode_id}/rgb.mp4"}],
        "action": rng.standard_normal((NUM_FRAMES - 1, 7)).tolist(),
        "state": rng.standard_normal((NUM_FRAMES, 7)).tolist(),
        "continuous_gripper_state": rng.random(NUM_FRAMES).tolist(),
        "episode_id": episode_id,
        "latent_videos": [{"latent_video_path": f"latents/{episode_id}.pt"}],
    }
    return json.dumps(annotation, indent=4)


def _write_shard(output: str, name: str, clips: dict[str, tuple[str, np.ndarray, np.ndarray]]) -> None:
    rows = []
    with write_file(shard_url(output, "clips", "set", name)) as handle:
        tar = TarWriter(handle)
        for clip_id, (caption, latents, text) in clips.items():
            contents = {
                "mp4": bytes(_VIDEO_BYTES),
                "latents.npy": npy(latents),
                "txt": caption.encode(),
                "json": b"{}",
                "text.npy": npy(text),
            }
            members = [
                {"name": member, "offset": tar.add(f"{clip_id}.{member}", content), "num_bytes": len(content)}
                for member, content in contents.items()
            ]
            rows.append(
                {
                    "clip_id": clip_id,
                    "dataset": "set",
                    "split": "train",
                    "source_episode": clip_id,
                    "caption": caption,
                    "shard": shard_path("set", name),
                    "members": members,
                    "status": "written",
                    "text_encoder": "random",
                    "latent_codec": "random",
                }
            )
        tar.close()
    with write_file(manifest_url(output, "clips", "set", name)) as handle:
        pq.write_table(pa.Table.from_pylist(rows, CLIP_SCHEMA), handle)
