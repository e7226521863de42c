"""Reads and decodes batches of samples in threads. What readers of clips and of windows share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np
import torch

from schemas.errors import DataError
from vpp.data.pending_batch import PendingBatch
from vpp.data.range_reader import MAX_GAP_BYTES, RangeRead, RangeReader, plan_reads
from vpp.data.sample_index import SampleIndex

BatchT = TypeVar("BatchT")

StepRows = tuple[int, np.ndarray, np.ndarray]
"""A step, and positions in the global batch and rows of the samples that are wanted of it."""

_TASKS_PER_THREAD = 4  # enough for threads to end together, few enough for tasks to cost little


@dataclass(frozen=True)
class Wanted:
    """What is to be read of some rows, one for each place of the batches.

    Attributes:
        rows: Int64.
        members: The tar members' names in the index.
        apart: Whether a sample's members may come by several requests.
        max_gap_bytes: Ranges of a shard that are at most so far apart are read together.
        names: What the decoder is told they are; the members' names by default.
    """

    rows: np.ndarray
    members: Sequence[str]
    apart: bool = False
    max_gap_bytes: int = MAX_GAP_BYTES
    names: Sequence[str] = ()


@dataclass(frozen=True)
class _Target:
    """Where what is read of a sample goes: a place in a batch."""

    batch: PendingBatch
    place: int
    row: int
    sample_id: str


class SampleReader(ABC, Generic[BatchT]):
    """A pool of threads that fills batches. To be closed, or used in a `with` block.

    Args:
        index: The samples.
        num_threads: How many samples are read or decoded at a time.
        retry_s: How long a store that does not answer is asked again.
        pin_memory: Whether tensors go to page-locked memory, where there is a GPU.
        per_sample: How many entries a sample has in a tensor where these are not one, by the tensor's name.
    """

    def __init__(
        self,
        index: SampleIndex,
        num_threads: int,
        retry_s: float,
        pin_memory: bool,
        per_sample: Mapping[str, int] | None = None,
    ) -> None:
        self._samples, self._per_sample = index, per_sample or {}
        self._reader = RangeReader(index, retry_s)
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix=f"{index.noun}-reader")
        self._pin_memory = pin_memory and torch.cuda.is_available()
        self._num_threads = num_threads
        self._shapes: dict[str, tuple[tuple[int, ...], np.dtype]] = {}

    @abstractmethod
    def _wanted(self, rows: np.ndarray) -> Sequence[Wanted]:
        """What is to be read of samples."""

    @abstractmethod
    def _decode(self, name: str, row: int, content: memoryview) -> tuple[str, int, np.ndarray]:
        """The tensor that what was read goes to, which of the sample's entries in it, and the values."""

    @abstractmethod
    def _finish(self, batch: PendingBatch) -> BatchT:
        """The batch, once all is there."""

    def start(self, steps: Sequence[StepRows]) -> list[PendingBatch]:
        """Begins to read the batches of some steps, the first one first; near samples of all are read together.

        Raises:
            DataError: `missing_member` if a sample does not have what is wanted.
            UsageError: If another camera is wanted and a clip has none.
        """
        batches = [PendingBatch(*step, self._pin_memory, self._per_sample) for step in steps]
        for batch in batches:
            for name, (shape, dtype) in list(self._shapes.items()):
                batch.allocate(name, shape, dtype)  # in this thread, whose memory is used again
        for wanted in self._wanted(np.concatenate([batch.rows for batch in batches])):
            self._submit(batches, wanted)
        return batches

    def result(self, batch: PendingBatch) -> BatchT:
        """Waits for a batch that was started.

        Raises:
            Exception: What a thread raised.
        """
        batch.wait()
        return self._finish(batch)

    def read(self, rows: np.ndarray) -> BatchT:
        """Reads some samples at once.

        Args:
            rows: The wanted ones, at least one; the batch has them in this order.

        Raises:
            DataError: If a sample cannot be read; names sample and shard.
            UsageError: If another camera is wanted and a clip has none.
        """
        rows = np.asarray(rows, np.int64)
        assert len(rows)
        return self.result(self.start([(-1, np.arange(len(rows)), rows)])[0])

    def _submit(self, batches: Sequence[PendingBatch], wanted: Wanted) -> None:
        places = [(batch, place) for batch in batches for place in range(len(batch.rows))]
        rows = wanted.rows.tolist()
        ids = self._samples.ids(wanted.rows)
        targets = [_Target(*where, row, name) for where, row, name in zip(places, rows, ids, strict=True)]
        reads = plan_reads(self._samples, wanted.rows, wanted.members, wanted.max_gap_bytes, apart=wanted.apart)
        names = wanted.names or wanted.members
        per_task = max(1, len(reads) // (_TASKS_PER_THREAD * self._num_threads))
        for first in range(0, len(reads), per_task):
            task = reads[first : first + per_task]
            future = self._pool.submit(self._fill, task, targets, names)
            for batch in {
                id(targets[place].batch): targets[place].batch for read in task for place, _ in read.samples
            }.values():
                batch.futures.append(future)

    def _fill(self, reads: Sequence[RangeRead], targets: Sequence[_Target], names: Sequence[str]) -> None:
        index = self._samples
        for read in reads:
            content = memoryview(self._reader.read(read, targets[read.samples[0][0]].sample_id))
            for sample, spans in read.samples:
                target = targets[sample]
                try:
                    for span in spans:
                        part = content[span.start - read.start : span.end - read.start]
                        name, entry, values = self._decode(names[span.member], target.row, part)
                        target.batch.put(name, target.place * self._per_sample.get(name, 1) + entry, values)
                        self._shapes[name] = values.shape, values.dtype
                except DataError as error:
                    where = f"{index.noun} {target.sample_id} in {index.shard_url(read.shard_code)}"
                    raise DataError(error.reason, f"{where}: {error.detail}") from error

    def close(self) -> None:
        """Drops what is waiting and ends the threads, once each has finished its read."""
        self._reader.closed.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
