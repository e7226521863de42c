"""Clips as columns: what is known of each without opening a shard, in arrays and without a Python object for a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from schemas.shard import LATENTS_NPY, TEXT_TOKENS_NPY, VIDEO

MEMBERS = (VIDEO, LATENTS_NPY, TEXT_TOKENS_NPY)
"""The members of a clip that training reads."""


@dataclass(frozen=True)
class ClipModels:
    """Which frozen models a clip's embeddings come from, as it stands in the manifest.

    Attributes:
        text_encoder: Name and revision; empty without text embeddings.
        text_encoder_is_stand_in: True for random weights.
        latent_codec: Name and revision; empty without latents.
        latent_codec_is_stand_in: True for random weights.
        has_latents: Whether latents are stored.
    """

    text_encoder: str
    text_encoder_is_stand_in: bool
    latent_codec: str
    latent_codec_is_stand_in: bool
    has_latents: bool


@dataclass(frozen=True, eq=False)
class ClipColumns:
    """`N` clips as columns; codes are positions in the tuple of names beside them.

    Attributes:
        clip_ids: Arrow large_string `[N]`.
        dataset_codes: int16 `[N]`, of `datasets`.
        camera_codes: int16 `[N]`, of `cameras`.
        shard_codes: int32 `[N]`, of `shards`, which are (dataset, path below `<output>/clips/shards`, manifest part).
        model_codes: int16 `[N]`, of `models`.
        episode_hashes: uint64 `[N]`: the same for all clips of a source episode, and spread evenly.
        is_held_out: bool `[N]`: whether the source itself holds the clip out of training.
        offsets: int64 `[len(MEMBERS), N]`: first byte in the shard; -1 where a clip has no such member.
        num_bytes: int32 `[len(MEMBERS), N]`.
    """

    clip_ids: pa.LargeStringArray
    dataset_codes: np.ndarray
    camera_codes: np.ndarray
    shard_codes: np.ndarray
    model_codes: np.ndarray
    episode_hashes: np.ndarray
    is_held_out: np.ndarray
    offsets: np.ndarray
    num_bytes: np.ndarray
    datasets: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    shards: tuple[tuple[str, str, str], ...] = ()
    models: tuple[ClipModels, ...] = ()

    def take(self, rows: np.ndarray) -> ClipColumns:
        """Some of the clips, in this order."""
        taken = {
            name: getattr(self, name)[..., rows]
            for name in (
                "dataset_codes", "camera_codes", "shard_codes", "model_codes", "episode_hashes", "is_held_out",
                "offsets", "num_bytes",
            )
        }  # fmt: skip
        names = {name: getattr(self, name) for name in ("datasets", "cameras", "shards", "models")}
        return ClipColumns(clip_ids=self.clip_ids.take(pa.array(rows)), **taken, **names)
