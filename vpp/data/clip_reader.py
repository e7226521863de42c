"""Reads and decodes batches of clips in threads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from schemas.encoder import TEXT_TOKENS, TEXT_WIDTH
from schemas.errors import DataError
from schemas.shard import LATENTS_NPY, TEXT_TOKENS_NPY, VIDEO
from vpp.data.clip_batch import MEMBERS_OF, OTHER_VIEW, ClipBatch, Representation
from vpp.data.clip_index import ClipIndex
from vpp.data.npy_view import npy_view
from vpp.data.pending_batch import PendingBatch
from vpp.data.sample_reader import SampleReader, Wanted
from vpp.data.video_frames import decode_clip, decode_first_frame


class ClipReader(SampleReader[ClipBatch]):
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
        super().__init__(index, num_threads, retry_s, pin_memory)
        self._index, self._members, self._other_camera = index, MEMBERS_OF[representation], other_camera
        self._retry_s = retry_s

    def _wanted(self, rows: np.ndarray) -> Sequence[Wanted]:
        wanted = [Wanted(rows, self._members)]
        if self._other_camera:
            others = self._index.other_cameras(rows, self._retry_s)
            wanted.append(Wanted(others, (VIDEO,), names=(OTHER_VIEW,)))
        return wanted

    def _decode(self, name: str, row: int, content: memoryview) -> tuple[str, int, np.ndarray]:
        return name, 0, _decode(name, content)

    def _finish(self, batch: PendingBatch) -> ClipBatch:
        tensors = batch.tensors
        return ClipBatch(
            batch.step, batch.positions, batch.rows, self._index.clip_ids(batch.rows),
            self._index.dataset_names(batch.rows), tensors.get(VIDEO), tensors.get(LATENTS_NPY),
            tensors[TEXT_TOKENS_NPY], tensors.get(OTHER_VIEW),
        )  # fmt: skip


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
    with ClipReader(index, representation, num_threads, retry_s, other_camera=other_camera) as reader:
        return reader.read(rows)


def _decode(member: str, content: memoryview) -> np.ndarray:
    if member == VIDEO:
        return decode_clip(content)
    if member == OTHER_VIEW:
        return decode_first_frame(content)
    if member == TEXT_TOKENS_NPY:
        return text_tokens(content)
    values = npy_view(content)
    if values.dtype != np.float16:
        raise DataError("corrupt_array", f"expected {member} in float16, found {values.dtype}")
    return values


def text_tokens(content: memoryview) -> np.ndarray:
    """A caption's token sequence float16 `[20, 512]`, as it stands in a shard.

    Raises:
        DataError: `corrupt_array` if it is something else.
    """
    values = npy_view(content)
    if values.dtype != np.float16 or values.shape != (TEXT_TOKENS, TEXT_WIDTH):
        expected = f"expected {TEXT_TOKENS_NPY} in float16 [{TEXT_TOKENS}, {TEXT_WIDTH}]"
        raise DataError("corrupt_array", f"{expected}, found {values.dtype} {list(values.shape)}")
    return values
