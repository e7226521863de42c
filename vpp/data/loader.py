"""Loads a worker's share of each training step, some steps ahead of the training.

The whole position of a loader is one number, the next step: a new one that starts there yields what the old one would
have yielded.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np

from schemas.errors import UsageError
from vpp.data.clip_batch import ClipBatch, Representation
from vpp.data.clip_index import ClipIndex
from vpp.data.clip_reader import ClipReader
from vpp.data.order import SampleOrder
from vpp.data.pending_batch import PendingBatch
from vpp.data.sample_reader import SampleReader, StepRows
from vpp.data.window_batch import WindowBatch

BatchT = TypeVar("BatchT", ClipBatch, WindowBatch)


def share_of_rank(rows: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """Positions of a step's draws that a worker takes: neighbours in bytes go to one worker.

    Args:
        rows: The step's samples, int64 `[global_batch]`.
        rank: The worker, from 0 on.
        world_size: Number of workers; shares differ by one sample at most.

    >>> [share_of_rank(np.array([70, 3, 71, 2, 9]), rank, 2).tolist() for rank in range(2)]
    [[3, 1, 4], [0, 2]]
    """
    return np.array_split(np.argsort(rows, kind="stable"), world_size)[rank]


class SampleLoader(Generic[BatchT]):
    """Yields a worker's batches, in order of the steps. To be closed, or used in a `with` block.

    Args:
        reader: Reads them; closed with the loader.
        order: Which samples a step takes; not used by anyone else meanwhile.
        rank: This worker, from 0 on.
        world_size: Number of workers.
        start_step: The first step to yield.
        num_steps: How many; None for no end.
        read_ahead_samples: Samples of this worker that are read before they are asked for, or one step's if these are
            more; bounds the memory.

    Raises:
        UsageError: If a step has fewer samples than there are workers.
    """

    def __init__(
        self,
        reader: SampleReader[BatchT],
        order: SampleOrder,
        rank: int,
        world_size: int,
        start_step: int,
        num_steps: int | None,
        read_ahead_samples: int,
    ) -> None:
        if order.global_batch < world_size:
            reader.close()
            raise UsageError(
                f"global batch: expected at least a sample for each of {world_size} workers, found {order.global_batch}"
            )
        assert 0 <= rank < world_size
        self._order, self._rank, self._world_size = order, rank, world_size
        self._end_step = None if num_steps is None else start_step + num_steps
        self._next_step = start_step
        self._read_ahead_samples = read_ahead_samples
        self._pending: deque[PendingBatch] = deque()
        self._num_pending = 0
        self._reader: SampleReader[BatchT] = reader

    def __iter__(self) -> Iterator[BatchT]:
        return self

    def __next__(self) -> BatchT:
        started = time.perf_counter()
        try:
            self._read_ahead()
            if not self._pending:
                raise StopIteration
            batch = self._pending.popleft()
            result: BatchT = self._reader.result(batch)
            self._num_pending -= len(batch.rows)
            self._read_ahead()  # goes on while the caller trains
            return replace(result, wait_s=time.perf_counter() - started)
        except BaseException:
            self.close()
            raise

    def _read_ahead(self) -> None:
        """Begins further steps once half of what may be ahead is used up: more at a time leave more to merge."""
        if 2 * self._num_pending > self._read_ahead_samples:
            return
        steps: list[StepRows] = []
        while self._end_step is None or self._next_step < self._end_step:
            rows = self._order.rows(self._next_step)
            positions = share_of_rank(rows, self._rank, self._world_size)
            if self._num_pending and self._num_pending + len(positions) > self._read_ahead_samples:
                break
            steps.append((self._next_step, positions, rows[positions]))
            self._num_pending += len(positions)
            self._next_step += 1
        if steps:
            self._pending.extend(self._reader.start(steps))

    def close(self) -> None:
        """Drops what was read ahead and ends the threads."""
        self._end_step = self._next_step
        self._pending.clear()
        self._num_pending = 0
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class ClipLoader(SampleLoader[ClipBatch]):
    """Yields a worker's batches of clips, in order of the steps. To be closed, or used in a `with` block.

    Args:
        index: The clips.
        order: Which clips a step takes; not used by anyone else meanwhile.
        representation: Whether latents or decoded frames are wanted.
        rank: This worker, from 0 on.
        world_size: Number of workers.
        start_step: The first step to yield.
        num_steps: How many; None for no end.
        read_ahead_samples: Clips of this worker that are read before they are asked for, or one step's if these are
            more; bounds the memory.
        num_threads: How many clips are read or decoded at a time.
        retry_s: How long a store that does not answer is asked again.
        pin_memory: Whether tensors go to page-locked memory, where there is a GPU.
        other_camera: Whether the first frame of another camera's clip is wanted too.

    Raises:
        UsageError: If a step has fewer clips than there are workers; while yielding, if another camera is wanted and a
            clip has none.
    """

    def __init__(
        self,
        index: ClipIndex,
        order: SampleOrder,
        *,
        representation: Representation,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
        num_steps: int | None = None,
        read_ahead_samples: int = 64,
        num_threads: int = 4,
        retry_s: float = 120.0,
        pin_memory: bool = False,
        other_camera: bool = False,
    ) -> None:
        reader = ClipReader(index, representation, num_threads, retry_s, pin_memory, other_camera)
        super().__init__(reader, order, rank, world_size, start_step, num_steps, read_ahead_samples)
