"""Clips or episodes as columns: what is known of each without opening a shard, and no Python object for a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class FrozenModels:
    """Which frozen models a sample's embeddings come from, as it stands in the manifest.

    Attributes:
        text_encoder: Name and revision; empty without text embeddings.
        text_encoder_is_stand_in: True for random weights.
        latent_codec: Name and revision; empty without latents.
        latent_codec_is_stand_in: True for random weights.
        has_latents: Whether latents are stored, of an episode those of all cameras.
    """

    text_encoder: str
    text_encoder_is_stand_in: bool
    latent_codec: str
    latent_codec_is_stand_in: bool
    has_latents: bool


@dataclass(frozen=True, eq=False)
class SampleColumns:
    """`N` clips or episodes as columns; codes are positions in the tuple of names beside them.

    Attributes:
        ids: Arrow large_string `[N]`.
        dataset_codes: int16 `[N]`, of `datasets`.
        camera_codes: int16 `[N]`, of `cameras`; an episode's are several, joined by commas.
        shard_codes: int32 `[N]`, of `shards`, which are (dataset, path below `<output>/<product>/shards`, manifest
            part).
        model_codes: int16 `[N]`, of `models`.
        episode_hashes: uint64 `[N]`: the same for all samples of a source episode, and spread evenly.
        is_held_out: bool `[N]`: whether the source itself holds the sample out of training.
        offsets: int64 `[len(members), N]`: first byte in the shard; -1 where a sample has no such member.
        num_bytes: int32 `[len(members), N]`.
        members: Names of the tar members that training reads.
        numbers: Further columns int32 `[N]` by their names in the manifest.
        captions: Arrow large_string `[N]`; None where they are not kept.
    """

    ids: pa.LargeStringArray
    dataset_codes: np.ndarray
    camera_codes: np.ndarray
    shard_codes: np.ndarray
    model_codes: np.ndarray
    episode_hashes: np.ndarray
    is_held_out: np.ndarray
    offsets: np.ndarray
    num_bytes: np.ndarray
    members: tuple[str, ...]
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    captions: pa.LargeStringArray | None = None
    datasets: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    shards: tuple[tuple[str, str, str], ...] = ()
    models: tuple[FrozenModels, ...] = ()

    def take(self, rows: np.ndarray) -> SampleColumns:
        """Some of the samples, in this order."""
        return replace(
            self,
            ids=self.ids.take(pa.array(rows)),
            dataset_codes=self.dataset_codes[rows],
            camera_codes=self.camera_codes[rows],
            shard_codes=self.shard_codes[rows],
            model_codes=self.model_codes[rows],
            episode_hashes=self.episode_hashes[rows],
            is_held_out=self.is_held_out[rows],
            offsets=self.offsets[:, rows],
            num_bytes=self.num_bytes[:, rows],
            numbers={name: column[rows] for name, column in self.numbers.items()},
            captions=None if self.captions is None else self.captions.take(pa.array(rows)),
        )

    def of_members(self, names: Sequence[str]) -> SampleColumns:
        """The same samples with some of their members, in this order."""
        places = [self.members.index(name) for name in names]
        return replace(self, offsets=self.offsets[places], num_bytes=self.num_bytes[places], members=tuple(names))

    @property
    def nbytes(self) -> int:
        """Size of the columns in bytes."""
        columns = [*vars(self).values(), *self.numbers.values()]
        return sum(int(column.nbytes) for column in columns if hasattr(column, "nbytes"))
