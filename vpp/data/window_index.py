"""The windows of the written episodes of a dataset, each known by its row: a number from 0 on.

An episode with n actions has n windows: one for each frame t with the actions from t on. Rows go through the episodes,
and in an episode through its frames. Memory goes by episodes, about 0.2 kB each for two cameras; a window takes none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa

from schemas.errors import UsageError
from schemas.shard import ACTIONS_NPY, LATENTS_NPY, PROPRIO_NPY, TEXT_TOKENS_NPY, VIDEO
from vpp.data.manifest_reader import even_hash
from vpp.data.mixture import parse_mixture
from vpp.data.sample_columns import SampleColumns
from vpp.data.sample_index import SampleIndex, Split, num_below, read_columns
from vpp.data.settings import WindowSettings

NPY_HEADER_BYTES = 128
"""What stands before the numbers in an `.npy` file of a small array's shape: NEP 1, padded to 64 bytes."""


class WindowIndex(SampleIndex):
    """The windows to draw from.

    Args:
        url: The output of `jobs/preprocess.py` that they lie in.
        episodes: Columns of the episodes, in order; each has the cameras and the numbers that are read.
        cameras: The views, in their order.
        settings: Held-out share, share of the data, number of actions, proprioception.
    """

    def __init__(self, url: str, episodes: SampleColumns, cameras: Sequence[str], settings: WindowSettings) -> None:
        super().__init__(url, "episodes", episodes)
        self._cameras, self._settings = tuple(cameras), settings
        self._ends = np.cumsum(_num_windows(episodes), dtype=np.int64)

    @classmethod
    def read(cls, url: str, settings: WindowSettings) -> WindowIndex:
        """Reads the manifest of a dataset.

        Args:
            url: The output of `jobs/preprocess.py`.
            settings: Which episodes, and what is wanted of them.

        Raises:
            UsageError: If there are no episodes with actions, some lack a camera, text embeddings or proprioception,
                or have actions or proprioception of another size.
        """
        episodes = read_columns(url, "episodes", settings.selection, settings.retry_s, settings.cameras)
        episodes = _of_mixture(episodes, settings.mixture)
        if not _num_windows(episodes).any():
            raise UsageError(f"data {url}: expected episodes with actions, found none in {len(episodes.ids)} episodes")
        cameras = common_cameras(url, episodes, settings.cameras)
        members = [f"{camera}.{kind}" for camera in cameras for kind in (VIDEO, LATENTS_NPY)]
        members += [ACTIONS_NPY, TEXT_TOKENS_NPY, *([PROPRIO_NPY] if settings.proprio else [])]
        index = cls(url, episodes.of_members([name for name in members if name in episodes.members]), cameras, settings)
        needed = [name for name in members if not name.endswith(LATENTS_NPY)]
        index.check_members(None, needed)
        for name in ("action_dim", *(["proprio_dim"] if settings.proprio else [])):
            check_equal(url, episodes, name)
        return index

    def _entries(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._ends, rows, side="right")

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def cameras(self) -> tuple[str, ...]:
        """The views of a window, in their order."""
        return self._cameras

    @property
    def num_actions(self) -> int:
        """Actions of a window."""
        return self._settings.num_actions

    @property
    def num_episodes(self) -> int:
        """Number of episodes."""
        return len(self._ends)

    @property
    def action_dim(self) -> int:
        """Numbers of an action."""
        return int(self._columns.numbers["action_dim"][0])

    @property
    def proprio_dim(self) -> int:
        """Numbers of the robot's own state; 0 where it is not read."""
        return int(self._columns.numbers["proprio_dim"][0]) if self._settings.proprio else 0

    def frame_numbers(self, rows: np.ndarray) -> np.ndarray:
        """The frame of its episode that each window begins with, int64 `[K]`."""
        entries = self._entries(rows)
        firsts = self._ends[entries] - _num_windows(self._columns)[entries]
        return np.asarray(rows - firsts)

    def episode_lengths(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of frames and of actions of each window's episode, int32 `[K]`."""
        entries, numbers = self._entries(rows), self._columns.numbers
        return numbers["num_frames"][entries], numbers["num_actions"][entries]

    def ids(self, rows: np.ndarray) -> tuple[str, ...]:
        """Ids of some windows, `<episode_id>:<frame>`."""
        frames = self.frame_numbers(rows).tolist()
        return tuple(f"{name}:{frame}" for name, frame in zip(super().ids(rows), frames, strict=True))

    def captions(self, rows: np.ndarray) -> tuple[str, ...]:
        """Captions of some windows."""
        assert self._columns.captions is not None
        return tuple(self._columns.captions.take(pa.array(self._entries(rows))).to_pylist())

    def ranges(self, rows: np.ndarray, members: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Where members lie in their shards; of latents, those of the window's frame alone.

        Args:
            rows: Windows, `[K]`.
            members: Names of members, such as `actions.npy` or `rgb_static.latents.npy`.

        Returns:
            First bytes int64 `[len(members), K]` (-1 where there is no such member) and sizes in bytes int32, the same
            shape.
        """
        offsets, sizes = super().ranges(rows, members)
        frames, (num_frames, _) = self.frame_numbers(rows), self.episode_lengths(rows)
        for place, name in enumerate(members):
            if name.endswith(LATENTS_NPY):
                of_frame = (sizes[place] - NPY_HEADER_BYTES) // num_frames
                start = offsets[place] + sizes[place] - (num_frames - frames) * of_frame.astype(np.int64)
                offsets[place] = np.where(offsets[place] < 0, -1, start)
                sizes[place] = of_frame
        return offsets, sizes

    @cached_property
    def split(self) -> Split:
        """Windows to train on and held out, by source episode; share of the data and hop restrict the former."""
        is_held_out = self._held_out(self._settings.validation_fraction)
        train = self._share(np.flatnonzero(~is_held_out))
        rows = self._rows(train)
        if self._settings.hop > 1:
            rows = rows[self.frame_numbers(rows) % self._settings.hop == 0]
        return Split(rows, self._rows(np.flatnonzero(is_held_out)))

    def _share(self, entries: np.ndarray) -> np.ndarray:
        """Those of some episodes that `data_fraction` leaves, at least one of each dataset."""
        fraction, columns = self._settings.data_fraction, self._columns
        if fraction == 1:
            return entries
        kept = []
        for code, dataset in enumerate(self.datasets):
            of_dataset = entries[columns.dataset_codes[entries] == code]
            ids = columns.ids.take(pa.array(of_dataset)).to_pylist()
            hashes = np.array([even_hash(dataset, name) for name in ids], np.uint64)
            kept.append(of_dataset[np.argsort(hashes, kind="stable")[: num_below(np.sort(hashes), fraction)]])
        result: np.ndarray = np.sort(np.concatenate(kept))
        return result

    def _rows(self, entries: np.ndarray) -> np.ndarray:
        """All windows of some episodes, ascending like these."""
        lengths = _num_windows(self._columns)[entries].astype(np.int64)
        shift = self._ends[entries] - np.cumsum(lengths)
        return np.asarray(np.repeat(shift, lengths) + np.arange(lengths.sum()))

    @property
    def fingerprint(self) -> str:
        """Changes with every episode that is added, taken away or held out, and with its number of windows."""
        digest = hashlib.sha256()
        for rows in (self.split.train, self.split.validation):
            entries = np.unique(self._entries(rows))
            lengths = _num_windows(self._columns)[entries]
            digest.update(np.ascontiguousarray(lengths, "<i4").tobytes() + b"\n")
            for first in range(0, len(entries), 100_000):
                ids = self._columns.ids.take(pa.array(entries[first : first + 100_000]))
                digest.update("\n".join(ids.to_pylist()).encode())
        return digest.hexdigest()[:16]


def _num_windows(episodes: SampleColumns) -> np.ndarray:
    """Windows of each episode: its actions, of which there may be one fewer than frames."""
    windows: np.ndarray = np.minimum(episodes.numbers["num_actions"], episodes.numbers["num_frames"])
    return windows


def _of_mixture(episodes: SampleColumns, mixture: str) -> SampleColumns:
    """The episodes of the datasets that a mixture draws from."""
    if not mixture.strip():
        return episodes
    sizes = np.bincount(episodes.dataset_codes, weights=_num_windows(episodes), minlength=len(episodes.datasets))
    drawn = parse_mixture(mixture).probabilities(dict(zip(episodes.datasets, sizes.astype(int).tolist(), strict=True)))
    codes = [code for code, name in enumerate(episodes.datasets) if name in drawn]
    return episodes.take(np.flatnonzero(np.isin(episodes.dataset_codes, codes)))


def common_cameras(url: str, episodes: SampleColumns, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The cameras that are wanted, or that all episodes have where none is named.

    Raises:
        UsageError: If an episode lacks a wanted one, or episodes differ where none is named.
    """
    pairs = np.unique(np.stack([episodes.dataset_codes, episodes.camera_codes], axis=1), axis=0).tolist()
    there = [(episodes.datasets[dataset], tuple(episodes.cameras[code].split(","))) for dataset, code in pairs]
    first, cameras = there[0]
    for dataset, of_dataset in there:
        if wanted and not set(wanted) <= set(of_dataset):
            raise UsageError(
                f"cameras: expected {', '.join(wanted)} in every episode, found {', '.join(of_dataset)} in {dataset}; "
                "name cameras that all have, or choose episodes with jobs/query.py --save"
            )
        if not wanted and set(of_dataset) != set(cameras):
            raise UsageError(
                f"data {url}: expected the same cameras in every episode, found {', '.join(cameras)} in {first} and "
                f"{', '.join(of_dataset)} in {dataset}; name cameras that all have"
            )
    return wanted or cameras


def check_equal(url: str, episodes: SampleColumns, name: str) -> None:
    """Checks that a size, such as `action_dim`, is the same in all episodes, and not 0.

    Raises:
        UsageError: Naming the datasets that differ.
    """
    values = episodes.numbers[name]
    distinct, first = np.unique(values, return_index=True)
    if len(distinct) > 1 or distinct[0] < 1:
        found = " and ".join(
            f"{value} in {episodes.datasets[episodes.dataset_codes[place]]}"
            for value, place in zip(distinct.tolist(), first.tolist(), strict=True)
        )
        raise UsageError(
            f"data {url}: expected one {name}, found {found}; choose datasets of one with the mixture, or episodes "
            "with jobs/query.py --save"
        )
