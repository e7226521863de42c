"""The order of training samples, a pure function of (seed, step).

Draw number `step * global_batch + i` takes the i-th sample of a step. Which stream it takes is drawn independently by
probability; the k-th draw of a stream takes the k-th sample of the stream's permutation for epoch `k // size`, so a
stream's samples come once an epoch.

All randomness is the raw output of Philox4x64-10 (Salmon et al., 2011), a counter-based generator keyed by a hash of
the seed and of what the numbers are for. NumPy guarantees a bit generator's raw output from version to version
(NEP 19), and no method of `Generator`, which has no such guarantee, is used. Hence any step can be computed alone, on
any machine, with any number of workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BLOCK_DRAWS = 65536  # part of the order: another number is another order
_CHUNK_CLIPS = 1 << 20  # bounds what a permutation needs beside its result


@dataclass(frozen=True, eq=False)
class Stream:
    """Samples that are drawn with one probability.

    Attributes:
        name: Its own name; the permutations follow from it, the seed and the size, not from other streams.
        dataset: The dataset that its samples belong to.
        probability: Of a draw to take this stream, above 0.
        rows: Samples in the index, int64 `[size]`, ascending.
        piece_starts: Where, in `rows`, pieces of adjacent samples of a shard begin, int64, ascending from 0.
    """

    name: str
    dataset: str
    probability: float
    rows: np.ndarray
    piece_starts: np.ndarray


def piece_starts(shard_codes: np.ndarray, piece_samples: int) -> np.ndarray:
    """Cuts samples into pieces of at most `piece_samples`, none across two shards.

    Args:
        shard_codes: The shard of each sample, equal ones adjacent.
        piece_samples: Longest piece.

    >>> piece_starts(np.array([0, 0, 0, 0, 0, 3, 3]), 2).tolist()
    [0, 2, 4, 5]
    """
    place = np.arange(len(shard_codes))
    begins_shard = np.append(True, shard_codes[1:] != shard_codes[:-1])
    place_in_shard = place - np.maximum.accumulate(np.where(begins_shard, place, 0))
    return np.flatnonzero(place_in_shard % piece_samples == 0)


def permutation(starts: np.ndarray, size: int, shuffled_samples: int, key: tuple[object, ...]) -> np.ndarray:
    """Shuffles pieces, then samples inside each run of `shuffled_samples` of what results: near draws read near bytes.

    Args:
        starts: Where pieces begin, ascending from 0.
        size: Number of samples.
        shuffled_samples: Samples that are shuffled together.
        key: Hashed to the key of the generator.

    Returns:
        Every number below `size` once, int32 or, from 2**31 on, int64.
    """
    dtype = np.int32 if size < 2**31 else np.int64
    generator = _philox(*key)
    lengths = np.diff(starts, append=size)
    order = np.argsort(generator.random_raw(len(starts)), kind="stable")
    lengths = lengths[order]
    shift = starts[order] - (np.cumsum(lengths) - lengths)
    result = (np.repeat(shift, lengths) + np.arange(size)).astype(dtype)
    num_at_once = max(1, _CHUNK_CLIPS // shuffled_samples) * shuffled_samples
    for first in range(0, size, num_at_once):
        part = result[first : first + num_at_once]
        keys = generator.random_raw(len(part))
        full = len(part) // shuffled_samples * shuffled_samples
        _shuffle_rows(part[:full].reshape(-1, shuffled_samples), keys[:full].reshape(-1, shuffled_samples))
        _shuffle_rows(part[None, full:], keys[None, full:])
    return result


def _shuffle_rows(values: np.ndarray, keys: np.ndarray) -> None:
    """Sorts each row of `values`, in place, by its `keys`; equal keys keep their order."""
    values[...] = np.take_along_axis(values, np.argsort(keys, axis=1, kind="stable"), axis=1)


class SampleOrder:
    """Tells which samples a step takes. Not for several threads at once.

    Args:
        streams: What is drawn from; probabilities add up to 1.
        seed: Of the run.
        global_batch: Samples of a step, over all workers.
        shuffled_samples: Samples that are shuffled together, `piece_samples * shuffle_pieces`.
    """

    def __init__(self, streams: Sequence[Stream], seed: int, global_batch: int, shuffled_samples: int) -> None:
        assert streams
        assert all(stream.probability > 0 and len(stream.rows) for stream in streams)
        self.streams = tuple(streams)
        self.seed = seed
        self.global_batch = global_batch
        self._shuffled_samples = shuffled_samples
        self._thresholds = np.cumsum([stream.probability for stream in streams])
        assert abs(self._thresholds[-1] - 1) < 1e-9
        self._thresholds[-1] = 1.0
        self._num_before = [np.zeros(len(streams), np.int64)]
        self._block: tuple[int, np.ndarray, np.ndarray] | None = None
        self._permutations: dict[int, tuple[int, np.ndarray]] = {}

    def rows(self, step: int) -> np.ndarray:
        """The samples of a step, rows of the index, int64 `[global_batch]`."""
        streams, places = self._draws(step * self.global_batch, self.global_batch)
        result = np.empty(self.global_batch, np.int64)
        for number in np.unique(streams).tolist():
            stream = self.streams[number]
            drawn = np.flatnonzero(streams == number)
            epochs, within = np.divmod(places[drawn], len(stream.rows))
            for epoch in np.unique(epochs).tolist():
                some = epochs == epoch
                result[drawn[some]] = stream.rows[self._permutation(number, epoch)[within[some]]]
        return result

    def epochs(self, step: int) -> dict[str, float]:
        """How often the samples of each stream were taken before a step, by the stream's name."""
        first = step * self.global_batch
        block, offset = divmod(first, _BLOCK_DRAWS)
        counts = self._counts(block)
        if offset:
            counts = counts + np.bincount(self._choices(block)[:offset], minlength=len(self.streams))
        return {stream.name: int(n) / len(stream.rows) for stream, n in zip(self.streams, counts, strict=True)}

    def _draws(self, first: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Stream, and place in the stream, of some draws."""
        streams, places = [], []
        for block in range(first // _BLOCK_DRAWS, -(-(first + number) // _BLOCK_DRAWS)):
            of_block, within = self._draws_of_block(block)
            wanted = slice(max(0, first - block * _BLOCK_DRAWS), max(0, first + number - block * _BLOCK_DRAWS))
            streams.append(of_block[wanted])
            places.append(within[wanted])
        return np.concatenate(streams), np.concatenate(places)

    def _draws_of_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        if self._block is None or self._block[0] != block:
            streams, places = self._choices(block), np.empty(_BLOCK_DRAWS, np.int64)
            for number, before in enumerate(self._counts(block).tolist()):
                drawn = np.flatnonzero(streams == number)
                places[drawn] = before + np.arange(len(drawn))
            self._block = block, streams, places
        return self._block[1], self._block[2]

    def _choices(self, block: int) -> np.ndarray:
        """The stream that each draw of a block takes."""
        raw = _philox("draws", self.seed, block).random_raw(_BLOCK_DRAWS)
        return np.searchsorted(self._thresholds, (raw >> np.uint64(11)) * 2.0**-53, side="right")

    def _counts(self, block: int) -> np.ndarray:
        """How often each stream is drawn before a block."""
        while len(self._num_before) <= block:
            choices = self._choices(len(self._num_before) - 1)
            self._num_before.append(self._num_before[-1] + np.bincount(choices, minlength=len(self.streams)))
        return self._num_before[block]

    def _permutation(self, number: int, epoch: int) -> np.ndarray:
        """The order of a stream's samples in an epoch; one epoch of each stream is kept."""
        kept = self._permutations.pop(number, None)
        if kept is None or kept[0] != epoch:
            stream = self.streams[number]
            del kept  # one epoch at a time in memory
            key = ("permutation", self.seed, stream.name, epoch)
            kept = epoch, permutation(stream.piece_starts, len(stream.rows), self._shuffled_samples, key)
        self._permutations[number] = kept
        return kept[1]


def _philox(*purpose: object) -> np.random.Philox:
    """The generator of a purpose, such as `("draws", seed, block)`."""
    digest = hashlib.sha256("\x1f".join(map(repr, purpose)).encode()).digest()
    return np.random.Philox(key=np.frombuffer(digest[:16], "<u8").astype(np.uint64))
