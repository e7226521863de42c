"""Samples to draw from, each known by its row: a number from 0 on. What indexes of clips and of windows share.

Rows are in order of (dataset, shard, place in the shard), so neighbours in number are neighbours in bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import UsageError
from schemas.layout import selection_url
from schemas.parquet_memory import read_parquet
from schemas.shard import Product
from schemas.storage import exists, join, join_inside, list_names, read_bytes
from schemas.store_faults import retry_passing_faults
from vpp.data.manifest_reader import read_written
from vpp.data.sample_columns import FrozenModels, SampleColumns

logger = logging.getLogger(__name__)

_ID_COLUMNS: dict[Product, str] = {"clips": "clip_id", "episodes": "episode_id"}


@dataclass(frozen=True)
class Split:
    """Rows to train on and rows held out, both int64 and ascending; no source episode has samples on both sides."""

    train: np.ndarray
    validation: np.ndarray


class SampleIndex:
    """The samples of a dataset. A row is an entry of the columns, unless a subclass says which one it belongs to.

    Args:
        url: The output of `jobs/preprocess.py` that they lie in.
        product: What the columns are of.
        columns: In order.
    """

    def __init__(self, url: str, product: Product, columns: SampleColumns) -> None:
        self.url = url
        self.product = product
        self.noun = product.removesuffix("s")
        self._columns = columns

    def _entries(self, rows: np.ndarray) -> np.ndarray:
        """The entries of the columns that rows belong to."""
        return rows

    def __len__(self) -> int:
        return len(self._columns.dataset_codes)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of datasets, sorted; some may have no sample in a selection."""
        return self._columns.datasets

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of cameras of all datasets, sorted."""
        return self._columns.cameras

    @property
    def num_bytes_in_memory(self) -> int:
        """Size of the columns."""
        return self._columns.nbytes

    def dataset_codes_of(self, rows: np.ndarray) -> np.ndarray:
        """The place of each sample's dataset in `datasets`, int16 `[K]`."""
        codes: np.ndarray = self._columns.dataset_codes[self._entries(rows)]
        return codes

    def camera_codes_of(self, rows: np.ndarray) -> np.ndarray:
        """The place of each sample's camera in `cameras`, int16 `[K]`."""
        codes: np.ndarray = self._columns.camera_codes[self._entries(rows)]
        return codes

    def shard_codes_of(self, rows: np.ndarray) -> np.ndarray:
        """The number of each sample's shard, int32 `[K]`, ascending with the rows."""
        codes: np.ndarray = self._columns.shard_codes[self._entries(rows)]
        return codes

    def ids(self, rows: np.ndarray) -> tuple[str, ...]:
        """Ids of some samples."""
        return tuple(self._columns.ids.take(pa.array(self._entries(rows))).to_pylist())

    def dataset_names(self, rows: np.ndarray) -> tuple[str, ...]:
        """Datasets of some samples."""
        return tuple(self.datasets[code] for code in self.dataset_codes_of(rows).tolist())

    def shard_url(self, shard_code: int) -> str:
        """URL of a shard's tar.

        Raises:
            DataError: `path_outside_root` if the manifest's path climbs out of the dataset.
        """
        return join_inside(self._shard_root, self._columns.shards[shard_code][1])

    @cached_property
    def _shard_root(self) -> str:
        return join(self.url, self.product, "shards")

    def ranges(self, rows: np.ndarray, members: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Where members lie in their shards.

        Args:
            rows: Samples, `[K]`.
            members: Names of members, such as `text.npy`.

        Returns:
            First bytes int64 `[len(members), K]` (-1 where there is no such member) and sizes in bytes int32, the same
            shape.
        """
        numbers = np.array([self._columns.members.index(name) for name in members])
        places = np.ix_(numbers, self._entries(rows))
        return self._columns.offsets[places], self._columns.num_bytes[places]

    def manifest_parts(self, rows: np.ndarray) -> Iterator[tuple[str, str, pa.LargeStringArray]]:
        """Dataset and URL of each manifest part that some samples stand in, and the ids of these clips or episodes."""
        columns, entries = self._columns, np.unique(self._entries(rows))
        codes, first = np.unique(columns.shard_codes[entries], return_index=True)
        for code, of_shard in zip(codes.tolist(), np.split(entries, first)[1:], strict=True):
            dataset, _, part = columns.shards[code]
            yield dataset, part, columns.ids.take(pa.array(of_shard))

    def models(self, rows: np.ndarray | None = None) -> tuple[FrozenModels, ...]:
        """The distinct frozen models of some samples (all by default), so that a caller can refuse a mismatch."""
        codes = self._columns.model_codes if rows is None else self._columns.model_codes[self._entries(rows)]
        return tuple(self._columns.models[code] for code in np.unique(codes).tolist())

    def check_members(self, rows: np.ndarray | None, members: Sequence[str]) -> None:
        """Checks that samples (all by None) have what is to be read of them.

        Raises:
            UsageError: Naming the member, the datasets without it and how many clips or episodes.
        """
        entries = np.arange(len(self._columns.ids)) if rows is None else np.unique(self._entries(rows))
        for name in members:
            missing = entries
            if name in self._columns.members:
                missing = entries[self._columns.offsets[self._columns.members.index(name), entries] < 0]
            if len(missing):
                raise UsageError(
                    f"data {self.url}: expected {name} in every {self.noun}, found none in {self._counts(missing)}; "
                    "preprocess them with --latents and --text-encoder, or choose others with jobs/query.py --save"
                )

    def _counts(self, entries: np.ndarray) -> str:
        counts = np.bincount(self._columns.dataset_codes[entries], minlength=len(self.datasets)).tolist()
        return ", ".join(f"{count} of {name}" for name, count in zip(self.datasets, counts, strict=True) if count)

    def _held_out(self, fraction: float) -> np.ndarray:
        """Which entries are held out, bool: the sources' own validation splits, else a share of the source episodes.

        Which episodes are held out follows from a hash of (dataset, source episode), so an episode stays on its side
        when others are added.

        Args:
            fraction: Share of the episodes held out of each dataset without a validation split. More than 0 holds out
                at least one where there are two, and keeps at least one to train on; 0 trains on everything, also on
                the sources' validation splits.
        """
        columns = self._columns
        if fraction <= 0:
            return np.zeros(len(columns.is_held_out), bool)
        is_held_out = columns.is_held_out.copy()
        for code in range(len(self.datasets)):
            entries = np.flatnonzero(columns.dataset_codes == code)
            if columns.is_held_out[entries].any():
                continue
            hashes = columns.episode_hashes[entries]
            episodes = np.unique(hashes)
            if len(episodes) >= 2:
                num_held_out = min(num_below(episodes, fraction), len(episodes) - 1)
                is_held_out[entries] = hashes <= episodes[num_held_out - 1]
        return is_held_out


def num_below(hashes: np.ndarray, fraction: float) -> int:
    """How many of some hashes, at least one, make a share of them: a larger share has those of a smaller one.

    Args:
        hashes: uint64, ascending, spread evenly.
        fraction: 0 to 1.

    >>> num_below(np.array([2**61, 2**62, 2**63 + 5], np.uint64), 0.5)
    2
    """
    return max(int(np.searchsorted(hashes, np.uint64(min(fraction * 2.0**64, 2.0**64 - 2048)))), 1)


def read_columns(
    url: str, product: Product, selection: str, retry_s: float, cameras: Sequence[str] = ()
) -> SampleColumns:
    """Reads the written samples of a dataset, or those of them that are in a selection.

    Args:
        url: The output of `jobs/preprocess.py`.
        product: Clips or episodes.
        selection: Name of a saved selection; empty for all written samples.
        retry_s: How long a store that does not answer is asked again.
        cameras: Of an episode's members, those of other cameras are left out; empty for none.

    Raises:
        UsageError: If there is no manifest or selection, the selection is of another product, no sample is left, or a
            part has other columns.
    """
    ids = _read_selection(url, product, selection, retry_s) if selection else None
    columns = read_written(url, product, retry_s, cameras)
    if ids is None:
        return columns
    rows = np.flatnonzero(pc.is_in(columns.ids, ids.cast(pa.large_string())).to_numpy(zero_copy_only=False))
    if not len(rows):
        raise UsageError(
            f"selection {selection!r}: expected ids of written {product} of {url}, found {len(ids)} ids of which "
            "none is one; write it again with jobs/query.py --save"
        )
    if len(rows) < len(ids):
        logger.warning("selection %r: %d of %d %s are not written", selection, len(ids) - len(rows), len(ids), product)
    return columns.take(rows)


def _read_selection(url: str, product: Product, name: str, retry_s: float) -> pa.Array:
    """The ids of a selection, as `jobs/query.py --save` writes it: Parquet with one column of ids."""
    source = selection_url(url, name)
    if "/" in name or not retry_passing_faults(lambda: exists(source), f"asking for {source}", retry_s):
        there = ", ".join(entry.removesuffix(".parquet") for entry in list_names(join(url, "selections"))) or "none"
        raise UsageError(
            f"selection {name!r}: expected {source}, found none; jobs/query.py --save {name} writes one; there: {there}"
        )
    content = retry_passing_faults(lambda: read_bytes(source), f"reading {source}", retry_s)
    table = read_parquet(content, f"selection {name!r} at {source}")
    wanted = _ID_COLUMNS[product]
    for other, column in _ID_COLUMNS.items():
        if other != product and table.column_names == [column]:
            raise UsageError(
                f"selection {name!r}: expected {product}, found {other} in {source}; select {wanted}, not {column}"
            )
    if table.column_names != [wanted] or table[wanted].type not in (pa.string(), pa.large_string()):
        found = ", ".join(f"{field.name} {field.type}" for field in table.schema)
        raise UsageError(f"selection {name!r}: expected one column {wanted} of text in {source}, found {found}")
    ids = table[wanted].combine_chunks().drop_null()
    if not len(ids):
        raise UsageError(f"selection {name!r}: expected at least one {wanted} in {source}, found none")
    return ids
