"""Adds VAE latents to the samples of a shard, computed from the stored videos, so that both show the same frames."""

from __future__ import annotations

from itertools import islice

import numpy as np

from pipelines.decode import Sample, latents_npy
from pipelines.encode_video import decode_frames
from schemas.encoder import LatentCodec
from schemas.shard import LATENTS_NPY, VIDEO

_FRAMES_AT_ONCE = 16  # fixed, and counted from the start of each video: the batch can change the last bits


def add_latents(samples: list[Sample], codec: LatentCodec) -> list[Sample]:
    """Encodes every stored video of the samples that have no latents yet: float16 `[T, 4, h, w]`."""
    for sample in samples:
        if not sample.latents_taken_over:
            sample.members += [
                (name.removesuffix(VIDEO) + LATENTS_NPY, _encode(content, codec))
                for name, content in sample.members
                if name.endswith(VIDEO)
            ]
    return samples


def _encode(content: bytes, codec: LatentCodec) -> bytes:
    frames = decode_frames(content)
    chunks = []
    while chunk := list(islice(frames, _FRAMES_AT_ONCE)):
        chunks.append(codec.encode(np.stack(chunk)))
    return latents_npy(np.concatenate(chunks))
