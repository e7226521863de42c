"""A small dataset of clips whose arrays tell which clip they are of; written with the tests' own tar writer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from small_dataset import clip_video, write_shard

from vpp.data.clip_index import ClipIndex

MODELS = {
    "text_encoder": "clip",
    "text_encoder_is_stand_in": False,
    "latent_codec": "vae",
    "latent_codec_is_stand_in": True,
}


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def members(number: int, video: bytes = b"video") -> dict[str, bytes]:
    """A clip whose latents and text are all `number`."""
    return {
        "mp4": video,
        "latents.npy": npy(np.full((16, 4, 32, 32), number, np.float16)),
        "txt": f"caption {number}".encode(),
        "json": b"{}",
        "text.npy": npy(np.full((20, 512), number, np.float16)),
    }


def write_clips(
    url: str, *, with_video: bool = False, columns: dict[str, Any] | None = None, **shards: Sequence[int]
) -> ClipIndex:
    """Writes shards of numbered clips, `write_clips(url, bridge=[3, 2])` two of 3 and 2; returns their index."""
    number = 0
    for dataset, sizes in shards.items():
        for part, size in enumerate(sizes):
            clips = {}
            for place in range(size):
                row = {
                    "camera": ("side", "top")[place % 2],
                    "source_episode": f"{part}/{place // 2}",
                    "caption": f"caption {number}",
                    **MODELS,
                    **(columns or {}),
                }
                clips[f"{number:020x}"] = (row, members(number, clip_video(16 * number) if with_video else b"video"))
                number += 1
            write_shard(url, dataset, f"{part:06d}", clips)
    return ClipIndex.read(url)
