"""The written clips of a dataset, or those of a saved selection, each known by its row: a number from 0 on.

Rows are in order of (dataset, shard, place in the shard), so neighbours in number are neighbours in bytes. Ten million
clips take about 0.8 GB.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.errors import UsageError
from schemas.layout import selection_url
from schemas.storage import exists, join, join_inside, list_names, read_bytes
from schemas.store_faults import retry_passing_faults
from vpp.data.clip_columns import MEMBERS, ClipColumns, ClipModels
from vpp.data.manifest_reader import read_written_clips
from vpp.data.other_camera import pair_cameras

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Rows to train on and rows held out, both int64 and ascending; no source episode has clips on both sides."""

    train: np.ndarray
    validation: np.ndarray


class ClipIndex:
    """The clips to draw from.

    Args:
        url: The output of `jobs/preprocess.py` that they lie in.
        clips: Their columns, in order.
    """

    def __init__(self, url: str, clips: ClipColumns) -> None:
        self.url = url
        self._clips = clips
        self._others: np.ndarray | None = None

    @classmethod
    def read(cls, url: str, selection: str = "", retry_s: float = 120.0) -> ClipIndex:
        """Reads the manifest of a dataset.

        Args:
            url: The output of `jobs/preprocess.py`.
            selection: Name of a saved selection; empty for all written clips.
            retry_s: How long a store that does not answer is asked again.

        Raises:
            UsageError: If there is no manifest or selection, the selection is of episodes, no clip is left, or a part
                has other columns.
        """
        ids = _read_selection(url, selection, retry_s) if selection else None
        clips = read_written_clips(url, retry_s)
        if ids is not None:
            rows = np.flatnonzero(pc.is_in(clips.clip_ids, ids.cast(pa.large_string())).to_numpy(zero_copy_only=False))
            if not len(rows):
                raise UsageError(
                    f"selection {selection!r}: expected ids of written clips of {url}, found {len(ids)} ids of which "
                    "none is one; write it again with jobs/query.py --save"
                )
            if len(rows) < len(ids):
                logger.warning(
                    "selection %r: %d of %d clips are not written", selection, len(ids) - len(rows), len(ids)
                )
            clips = clips.take(rows)
        return cls(url, clips)

    def __len__(self) -> int:
        return len(self._clips.dataset_codes)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of datasets, sorted; some may have no clip in a selection."""
        return self._clips.datasets

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of cameras of all datasets, sorted."""
        return self._clips.cameras

    @property
    def dataset_codes(self) -> np.ndarray:
        """The place of each clip's dataset in `datasets`, int16 `[N]`."""
        return self._clips.dataset_codes

    @property
    def camera_codes(self) -> np.ndarray:
        """The place of each clip's camera in `cameras`, int16 `[N]`."""
        return self._clips.camera_codes

    @property
    def shard_codes(self) -> np.ndarray:
        """The number of each clip's shard, int32 `[N]`, ascending."""
        return self._clips.shard_codes

    @property
    def num_bytes_in_memory(self) -> int:
        """Size of the columns."""
        columns = (column for column in vars(self._clips).values() if hasattr(column, "nbytes"))
        return sum(int(column.nbytes) for column in columns)

    def clip_ids(self, rows: np.ndarray) -> tuple[str, ...]:
        """Ids of some clips."""
        return tuple(self._clips.clip_ids.take(pa.array(rows)).to_pylist())

    def dataset_names(self, rows: np.ndarray) -> tuple[str, ...]:
        """Datasets of some clips."""
        return tuple(self.datasets[code] for code in self._clips.dataset_codes[rows].tolist())

    def shard_url(self, shard_code: int) -> str:
        """URL of a shard's tar.

        Raises:
            DataError: `path_outside_root` if the manifest's path climbs out of the dataset.
        """
        return join_inside(self._shard_root, self._clips.shards[shard_code][1])

    @cached_property
    def _shard_root(self) -> str:
        return join(self.url, "clips", "shards")

    def ranges(self, rows: np.ndarray, members: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Where members lie in their shards.

        Args:
            rows: Clips, `[K]`.
            members: Some of `mp4`, `latents.npy`, `text.npy`.

        Returns:
            First bytes int64 `[len(members), K]` (-1 where there is no such member) and sizes in bytes int32, the same
            shape.
        """
        places = np.array([MEMBERS.index(name) for name in members])
        return self._clips.offsets[np.ix_(places, rows)], self._clips.num_bytes[np.ix_(places, rows)]

    def models(self, rows: np.ndarray | None = None) -> tuple[ClipModels, ...]:
        """The distinct frozen models of some clips (all by default), so that a caller can refuse a mismatch."""
        codes = self._clips.model_codes if rows is None else self._clips.model_codes[rows]
        return tuple(self._clips.models[code] for code in np.unique(codes).tolist())

    def check_members(self, rows: np.ndarray, members: Sequence[str]) -> None:
        """Checks that clips have what is to be read of them.

        Raises:
            UsageError: Naming the member, the datasets without it and how many clips.
        """
        for name in members:
            missing = rows[self._clips.offsets[MEMBERS.index(name), rows] < 0]
            if len(missing):
                raise UsageError(
                    f"data {self.url}: expected {name} in every clip, found none in {self._counts(missing)}; "
                    "preprocess them with --latents and --text-encoder, or choose others with jobs/query.py --save"
                )

    def _counts(self, rows: np.ndarray) -> str:
        counts = np.bincount(self._clips.dataset_codes[rows], minlength=len(self.datasets)).tolist()
        return ", ".join(f"{count} of {name}" for name, count in zip(self.datasets, counts, strict=True) if count)

    def other_cameras(self, rows: np.ndarray, retry_s: float = 120.0) -> np.ndarray:
        """For each of some clips the one that shows the same frames from another camera (`vpp.data.other_camera`).

        The first call reads the manifest once more and keeps 8 bytes a clip of the index.

        Returns:
            Rows int64, as many.

        Raises:
            UsageError: If a clip has no other camera; names the datasets and how many clips.
        """
        if self._others is None:
            self._others = pair_cameras(self._clips, retry_s)
        others: np.ndarray = self._others[rows]
        if (others < 0).any():
            raise UsageError(
                f"data {self.url}: expected every clip's frames from another camera too, found no other in "
                f"{self._counts(rows[others < 0])}; choose others with jobs/query.py --save"
            )
        return others

    def captions(self, rows: np.ndarray, retry_s: float = 120.0) -> tuple[str, ...]:
        """Captions of some clips, read from their manifest parts: for tens or hundreds, not for all."""
        found: dict[str, str] = {}
        ids = self.clip_ids(rows)
        for code in np.unique(self._clips.shard_codes[rows]).tolist():
            part = self._clips.shards[code][2]
            content = retry_passing_faults(lambda part=part: read_bytes(part), f"reading {part}", retry_s)  # type: ignore[misc]
            table = pq.read_table(pa.BufferReader(content), columns=["clip_id", "caption"])
            table = table.filter(pc.is_in(table["clip_id"], pa.array(ids)))
            found |= dict(zip(table["clip_id"].to_pylist(), table["caption"].to_pylist(), strict=True))
        return tuple(found[clip_id] for clip_id in ids)

    def split_validation(self, fraction: float) -> Split:
        """Holds clips out: the sources' own validation splits, else a share of the source episodes.

        Which episodes are held out follows from a hash of (dataset, source episode), so an episode stays on its side
        when others are added.

        Args:
            fraction: Share of the episodes held out of each dataset without a validation split. More than 0 holds out
                at least one where there are two, and keeps at least one to train on; 0 trains on everything, also on
                the sources' validation splits.
        """
        if fraction <= 0:
            return Split(np.arange(len(self)), np.arange(0))
        is_held_out = self._clips.is_held_out.copy()
        for code in range(len(self.datasets)):
            rows = np.flatnonzero(self._clips.dataset_codes == code)
            if self._clips.is_held_out[rows].any():
                continue
            hashes = self._clips.episode_hashes[rows]
            episodes = np.unique(hashes)
            if len(episodes) < 2:
                continue
            num_held_out = np.searchsorted(episodes, np.uint64(min(fraction * 2.0**64, 2.0**64 - 2048)))
            last = episodes[min(max(int(num_held_out), 1), len(episodes) - 1) - 1]
            is_held_out[rows] = hashes <= last
        return Split(np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out))


def _read_selection(url: str, name: str, retry_s: float) -> pa.Array:
    """The ids of a selection, as `jobs/query.py --save` writes it: Parquet with one column `clip_id`."""
    source = selection_url(url, name)
    if "/" in name or not retry_passing_faults(lambda: exists(source), f"asking for {source}", retry_s):
        there = ", ".join(entry.removesuffix(".parquet") for entry in list_names(join(url, "selections"))) or "none"
        raise UsageError(
            f"selection {name!r}: expected {source}, found none; jobs/query.py --save {name} writes one; there: {there}"
        )
    content = retry_passing_faults(lambda: read_bytes(source), f"reading {source}", retry_s)
    try:
        table = pq.read_table(pa.BufferReader(content))
    except pa.ArrowException as error:
        raise UsageError(f"selection {name!r}: expected Parquet at {source}, found something else") from error
    if table.column_names == ["episode_id"]:
        raise UsageError(
            f"selection {name!r}: expected clips, found episodes in {source}; select clip_id, not episode_id"
        )
    if table.column_names != ["clip_id"] or table["clip_id"].type not in (pa.string(), pa.large_string()):
        found = ", ".join(f"{field.name} {field.type}" for field in table.schema)
        raise UsageError(f"selection {name!r}: expected one column clip_id of text in {source}, found {found}")
    ids = table["clip_id"].combine_chunks().drop_null()
    if not len(ids):
        raise UsageError(f"selection {name!r}: expected at least one clip_id in {source}, found none")
    return ids
