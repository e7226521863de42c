"""Reads whole episodes of a dataset one after another: videos as they are stored, actions, proprioception, caption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from schemas.errors import DataError, UsageError
from schemas.shard import ACTIONS_NPY, PROPRIO_NPY, VIDEO
from vpp.data.npy_view import npy_view
from vpp.data.range_reader import RangeReader, plan_reads
from vpp.data.sample_index import SampleIndex, read_columns
from vpp.data.window_index import check_equal, common_cameras


@dataclass(frozen=True, eq=False)
class StoredEpisode:
    """An episode of T frames.

    Attributes:
        episode_id: As in the manifest.
        caption: The instruction.
        videos: MP4 of each camera, of T frames.
        actions: float32 `[N, A]`; N is T, or one less where the source has no action for the last frame.
        proprio: float32 `[T, P]`; None where the dataset has none.
    """

    episode_id: str
    caption: str
    videos: dict[str, bytes]
    actions: np.ndarray
    proprio: np.ndarray | None


class EpisodeReader:
    """The episodes of one dataset that have actions, in the order of the shards; one is in memory at a time.

    Args:
        url: The output of `jobs/preprocess.py`.
        dataset: Which of its datasets; empty where there is only one.
        cameras: The views, in their order; empty for all, which then have to be the same in every episode.
        selection: Name of a saved selection; empty for all episodes.
        retry_s: How long a store that does not answer is asked again.

    Raises:
        UsageError: If there are no such episodes, several datasets and none is named, or episodes differ in cameras or
            sizes.
    """

    def __init__(
        self, url: str, dataset: str = "", cameras: Sequence[str] = (), selection: str = "", retry_s: float = 120.0
    ) -> None:
        columns = read_columns(url, "episodes", selection, retry_s, tuple(cameras))
        has_actions = columns.numbers["num_actions"] > 0
        known = [columns.datasets[code] for code in np.unique(columns.dataset_codes[has_actions]).tolist()]
        if (dataset and dataset not in known) or (not dataset and len(known) != 1):
            found = repr(dataset) if dataset else "none named"
            there = ", ".join(known) or "there is none"
            raise UsageError(f"--dataset: expected one with episodes and actions ({there}), found {found}")
        self.dataset = dataset or known[0]
        of_dataset = columns.dataset_codes == columns.datasets.index(self.dataset)
        columns = columns.take(np.flatnonzero(has_actions & of_dataset))
        self.cameras = common_cameras(url, columns, tuple(cameras))
        check_equal(url, columns, "action_dim")
        self._index = SampleIndex(url, "episodes", columns)
        self._has_proprio = bool((columns.offsets[columns.members.index(PROPRIO_NPY)] >= 0).all())
        if self._has_proprio:
            check_equal(url, columns, "proprio_dim")
        self._members = [f"{camera}.{VIDEO}" for camera in self.cameras]
        self._members += [ACTIONS_NPY, *([PROPRIO_NPY] if self._has_proprio else [])]
        self._index.check_members(None, self._members)
        self._columns, self._reader = columns, RangeReader(self._index, retry_s)

    def __len__(self) -> int:
        return len(self._columns.ids)

    @property
    def action_dim(self) -> int:
        """Numbers of an action."""
        return int(self._columns.numbers["action_dim"][0])

    @property
    def proprio_dim(self) -> int:
        """Numbers of the robot's own state; 0 where not every episode has one."""
        return int(self._columns.numbers["proprio_dim"][0]) if self._has_proprio else 0

    def row_of(self, episode_id: str) -> int:
        """The place of an episode.

        Raises:
            UsageError: If there is none of that id.
        """
        for row, name in enumerate(self._columns.ids.to_pylist()):
            if name == episode_id:
                return row
        raise UsageError(f"--episode: expected an id of an episode of {self.dataset}, found {episode_id!r}")

    def __iter__(self) -> Iterator[StoredEpisode]:
        return (self.read(row) for row in range(len(self)))

    def read(self, row: int) -> StoredEpisode:
        """Reads one episode.

        Raises:
            UsageError: If it is damaged; names it and its shard.
        """
        rows, columns = np.array([row]), self._columns
        (episode_id,) = self._index.ids(rows)
        content: dict[str, bytes] = {}
        try:
            for read in plan_reads(self._index, rows, self._members):
                data = self._reader.read(read, episode_id)
                for _, spans in read.samples:
                    for span in spans:
                        content[self._members[span.member]] = data[span.start - read.start : span.end - read.start]
            numbers = {name: int(values[row]) for name, values in columns.numbers.items()}
            shape = (numbers["num_actions"], self.action_dim)
            actions = _numbers(ACTIONS_NPY, content[ACTIONS_NPY], shape)
            proprio = None
            if self._has_proprio:
                proprio = _numbers(PROPRIO_NPY, content[PROPRIO_NPY], (numbers["num_frames"], self.proprio_dim))
        except DataError as error:
            raise UsageError(
                f"episode {episode_id} of {self.dataset}: {error}; choose others with jobs/query.py --save"
            ) from error
        assert columns.captions is not None
        videos = {camera: content[f"{camera}.{VIDEO}"] for camera in self.cameras}
        return StoredEpisode(episode_id, columns.captions[row].as_py() or "", videos, actions, proprio)


def _numbers(name: str, content: bytes, shape: tuple[int, int]) -> np.ndarray:
    values = npy_view(memoryview(content))
    if values.shape != shape or values.dtype.kind != "f" or not np.isfinite(values).all():
        found = f"found {values.dtype} {list(values.shape)}"
        raise DataError("bad_numbers", f"{name}: expected finite numbers {list(shape)} as in the manifest, {found}")
    return values.astype(np.float32)
