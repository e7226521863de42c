"""The written clips of a dataset, or those of a saved selection, each known by its row: a number from 0 on.

Ten million clips take about 0.8 GB.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import UsageError
from schemas.parquet_memory import read_parquet
from schemas.storage import read_bytes
from schemas.store_faults import retry_passing_faults
from vpp.data.other_camera import pair_cameras
from vpp.data.sample_columns import SampleColumns
from vpp.data.sample_index import SampleIndex, Split, read_columns


class ClipIndex(SampleIndex):
    """The clips to draw from.

    Args:
        url: The output of `jobs/preprocess.py` that they lie in.
        clips: Their columns, in order.
    """

    def __init__(self, url: str, clips: SampleColumns) -> None:
        super().__init__(url, "clips", clips)
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
        return cls(url, read_columns(url, "clips", selection, retry_s))

    @property
    def shard_codes(self) -> np.ndarray:
        """The number of each clip's shard, int32 `[N]`, ascending."""
        return self._columns.shard_codes

    def clip_ids(self, rows: np.ndarray) -> tuple[str, ...]:
        """Ids of some clips."""
        return self.ids(rows)

    def other_cameras(self, rows: np.ndarray, retry_s: float = 120.0) -> np.ndarray:
        """For each of some clips the one that shows the same frames from another camera (`vpp.data.other_camera`).

        The first call reads the manifest once more and keeps 8 bytes a clip of the index.

        Returns:
            Rows int64, as many.

        Raises:
            UsageError: If a clip has no other camera; names the datasets and how many clips.
        """
        if self._others is None:
            self._others = pair_cameras(self._columns, retry_s)
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
        for _, part, ids in self.manifest_parts(rows):
            content = retry_passing_faults(lambda part=part: read_bytes(part), f"reading {part}", retry_s)  # type: ignore[misc]
            table = read_parquet(content, f"manifest part {part}", ["clip_id", "caption"])
            table = table.filter(pc.is_in(table["clip_id"].cast(pa.large_string()), ids))
            found |= dict(zip(table["clip_id"].to_pylist(), table["caption"].to_pylist(), strict=True))
        return tuple(found[clip_id] for clip_id in self.ids(rows))

    def split_validation(self, fraction: float) -> Split:
        """Holds clips out: the sources' own validation splits, else a share of the source episodes.

        Which episodes are held out follows from a hash of (dataset, source episode), so an episode stays on its side
        when others are added.

        Args:
            fraction: Share of the episodes held out of each dataset without a validation split. More than 0 holds out
                at least one where there are two, and keeps at least one to train on; 0 trains on everything, also on
                the sources' validation splits.
        """
        is_held_out = self._held_out(fraction)
        return Split(np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out))
