"""Reads and decodes batches of clips in threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch

from schemas.encoder import TEXT_TOKENS, TEXT_WIDTH
from schemas.errors import DataError
from schemas.shard import TEXT_TOKENS_NPY, VIDEO
from vpp.data.clip_batch import MEMBERS_OF, OTHER_VIEW, ClipBatch, PendingBatch, Representation
from vpp.data.clip_index import ClipIndex
from vpp.data.npy_view import npy_view
from vpp.data.range_reader import RangeRead, RangeReader, plan_reads
from vpp.data.video_frames import decode_clip, decode_first_frame

StepRows = tuple[int, np.ndarray, np.ndarray]
"""A step, and positions in the global batch and rows of the clips that are wanted of it."""

_TASKS_PER_THREAD = 4  # enough for threads to end together, few enough for tasks to cost little


@dataclass(frozen=True)
class _Target:
    """Where the members of a clip go: a place in a batch."""

    batch: PendingBatch
    place: int
    clip_id: str


class ClipReader:
    """A pool of threads that fills batches. To be closed, or used in a `with` block.

    Args:
        index: The clips.
        representation: Whether latents or decoded frames are wanted.
        num_threads: How many clips are read or decoded at a time.
        retry_s: How long a store that does not answer is asked again.
        pin_memory: Whether tensors go to page-locked memory, where there is a GPU.
        other_camera: Whether the first frame of another camera's clip is wanted too.
    """

    def __init__(
        self,
        index: ClipIndex,
        representation: Representation,
        num_threads: int = 4,
        retry_s: float = 120.0,
        pin_memory: bool = False,
        other_camera: bool = False,
    ) -> None:
        self._index, self._members, self._other_camera = index, MEMBERS_OF[representation], other_camera
        self._retry_s = retry_s
        self._reader = RangeReader(index, retry_s)
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="clip-reader")
        self._pin_memory = pin_memory and torch.cuda.is_available()
        self._num_threads = num_threads
        self._shapes: dict[str, tuple[tuple[int, ...], np.dtype]] = {}

    def start(self, steps: Sequence[StepRows]) -> list[PendingBatch]:
        """Begins to read the batches of some steps, the first one first; near clips of all of them are read together.

        Raises:
            DataError: `missing_member` if a clip does not have what is wanted.
            UsageError: If another camera is wanted and a clip has none.
        """
        batches = [
            PendingBatch(
                step, positions, rows, self._index.clip_ids(rows), self._index.dataset_names(rows), self._pin_memory
            )
            for step, positions, rows in steps
        ]
        for batch in batches:
            for member, (shape, dtype) in list(self._shapes.items()):
                batch.allocate(member, shape, dtype)  # in this thread, whose memory is used again
        rows = np.concatenate([batch.rows for batch in batches])
        self._submit(batches, rows, self._members, self._members)
        if self._other_camera:
            self._submit(batches, self._index.other_cameras(rows, self._retry_s), (VIDEO,), (OTHER_VIEW,))
        return batches

    def _submit(
        self, batches: Sequence[PendingBatch], rows: np.ndarray, members: Sequence[str], names: Sequence[str]
    ) -> None:
        """Has members of `rows`, one for each place of the batches, read into what the batches call `names`."""
        places = [(batch, place) for batch in batches for place in range(len(batch.rows))]
        clip_ids = self._index.clip_ids(rows)
        targets = [_Target(*where, clip_id) for where, clip_id in zip(places, clip_ids, strict=True)]
        reads = plan_reads(self._index, rows, members)
        per_task = max(1, len(reads) // (_TASKS_PER_THREAD * self._num_threads))
        for first in range(0, len(reads), per_task):
            task = reads[first : first + per_task]
            future = self._pool.submit(self._fill, task, targets, names)
            for batch in {
                id(targets[place].batch): targets[place].batch for read in task for place, _ in read.samples
            }.values():
                batch.futures.append(future)

    def _fill(self, reads: Sequence[RangeRead], targets: Sequence[_Target], names: Sequence[str]) -> None:
        for read in reads:
            content = memoryview(self._reader.read(read, targets[read.samples[0][0]].clip_id))
            for sample, ranges in read.samples:
                target = targets[sample]
                try:
                    for name, span in zip(names, ranges, strict=True):
                        values = _decode(name, content[span.start - read.start : span.end - read.start])
                        target.batch.put(name, target.place, values)
                        self._shapes[name] = values.shape, values.dtype
                except DataError as error:
                    where = f"clip {target.clip_id} in {self._index.shard_url(read.shard_code)}"
                    raise DataError(error.reason, f"{where}: {error.detail}") from error

    def close(self) -> None:
        """Drops what is waiting and ends the threads, once each has finished its read."""
        self._reader.closed.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def read_clips(
    index: ClipIndex,
    rows: np.ndarray,
    representation: Representation,
    num_threads: int = 4,
    retry_s: float = 120.0,
    other_camera: bool = False,
) -> ClipBatch:
    """Reads some clips at once, for validation and prediction.

    Args:
        index: The clips.
        rows: The wanted ones, at least one; the batch has them in this order.
        representation: Whether latents or decoded frames are wanted.
        num_threads: How many clips are read or decoded at a time.
        retry_s: How long a store that does not answer is asked again.
        other_camera: Whether the first frame of another camera's clip is wanted too.

    Raises:
        DataError: If a clip cannot be read; names clip and shard.
        UsageError: If another camera is wanted and a clip has none.
    """
    rows = np.asarray(rows, np.int64)
    assert len(rows)
    with ClipReader(index, representation, num_threads, retry_s, other_camera=other_camera) as reader:
        return reader.start([(-1, np.arange(len(rows)), rows)])[0].result()


def _decode(member: str, content: memoryview) -> np.ndarray:
    if member == VIDEO:
        return decode_clip(content)
    if member == OTHER_VIEW:
        return decode_first_frame(content)
    values = npy_view(content)
    if values.dtype != np.float16:
        raise DataError("corrupt_array", f"expected {member} in float16, found {values.dtype}")
    if member == TEXT_TOKENS_NPY and values.shape != (TEXT_TOKENS, TEXT_WIDTH):
        raise DataError("corrupt_array", f"expected {member} [{TEXT_TOKENS}, {TEXT_WIDTH}], found {list(values.shape)}")
    return values
