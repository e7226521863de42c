"""Reads and decodes batches of windows in threads: of an episode only what a window needs.

Of stored latents only the bytes of the window's frame are read. A video is read as a whole, since it can only be
decoded with the index at its end, and decoded from the keyframe before the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import numpy as np
import torch

from schemas.encoder import LATENT_SHAPE
from schemas.errors import DataError
from schemas.shard import ACTIONS_NPY, LATENTS_NPY, PROPRIO_NPY, TEXT_TOKENS_NPY, VIDEO
from vpp.data.clip_batch import Representation
from vpp.data.clip_reader import text_tokens
from vpp.data.npy_view import npy_view
from vpp.data.pending_batch import PendingBatch
from vpp.data.sample_reader import SampleReader, Wanted
from vpp.data.video_frames import decode_frame
from vpp.data.window_batch import WindowBatch
from vpp.data.window_index import WindowIndex

MAX_GAP_BYTES = 16 << 10
"""Smaller than for clips: latents of other frames, most of an episode, lie between what a window needs."""


class WindowReader(SampleReader[WindowBatch]):
    """A pool of threads that fills batches. To be closed, or used in a `with` block.

    Args:
        index: The windows.
        representation: Whether latents or decoded frames are wanted.
        num_threads: How many windows are read or decoded at a time.
        retry_s: How long a store that does not answer is asked again.
        pin_memory: Whether tensors go to page-locked memory, where there is a GPU.
    """

    def __init__(
        self,
        index: WindowIndex,
        representation: Representation,
        num_threads: int = 4,
        retry_s: float = 120.0,
        pin_memory: bool = False,
    ) -> None:
        super().__init__(
            index, num_threads, retry_s, pin_memory, dict.fromkeys((VIDEO, LATENTS_NPY), len(index.cameras))
        )
        self._index = index
        picture = VIDEO if representation == "frames" else LATENTS_NPY
        self._views = {f"{camera}.{picture}": number for number, camera in enumerate(index.cameras)}
        self._members = (*self._views, ACTIONS_NPY, TEXT_TOKENS_NPY, *([PROPRIO_NPY] if index.proprio_dim else []))

    def _wanted(self, rows: np.ndarray) -> Sequence[Wanted]:
        return [Wanted(rows, self._members, apart=True, max_gap_bytes=MAX_GAP_BYTES)]

    def _decode(self, name: str, row: int, content: memoryview) -> tuple[str, int, np.ndarray]:
        if name == TEXT_TOKENS_NPY:
            return name, 0, text_tokens(content)
        index, where = self._index, np.array([row])
        frame = int(index.frame_numbers(where)[0])
        num_frames, num_actions = (int(lengths[0]) for lengths in index.episode_lengths(where))
        if name == ACTIONS_NPY:
            actions = _numbers(name, content, (num_actions, index.action_dim))
            return name, 0, actions[np.minimum(frame + np.arange(index.num_actions), num_actions - 1)]
        if name == PROPRIO_NPY:
            return name, 0, _numbers(name, content, (num_frames, index.proprio_dim))[frame]
        if name.endswith(VIDEO):
            return VIDEO, self._views[name], decode_frame(content, frame)
        return LATENTS_NPY, self._views[name], _latents_of_frame(name, content)

    def _finish(self, batch: PendingBatch) -> WindowBatch:
        index, rows, tensors = self._index, batch.rows, batch.tensors

        def of_views(name: str) -> torch.Tensor | None:
            tensor = tensors.get(name)
            return None if tensor is None else tensor.reshape(len(rows), len(index.cameras), *tensor.shape[1:])

        _, num_actions = index.episode_lengths(rows)
        left = num_actions - index.frame_numbers(rows)
        is_pad = torch.from_numpy(np.arange(index.num_actions) >= left[:, None])
        return WindowBatch(
            step=batch.step,
            positions=batch.positions,
            rows=rows,
            window_ids=index.ids(rows),
            datasets=index.dataset_names(rows),
            captions=index.captions(rows),
            frames=of_views(VIDEO),
            latents=of_views(LATENTS_NPY),
            text=tensors[TEXT_TOKENS_NPY],
            actions=tensors[ACTIONS_NPY],
            action_is_pad=is_pad.pin_memory() if batch.pin_memory else is_pad,
            proprio=tensors.get(PROPRIO_NPY),
        )


def read_windows(
    index: WindowIndex,
    rows: np.ndarray,
    representation: Representation,
    num_threads: int = 4,
    retry_s: float = 120.0,
) -> WindowBatch:
    """Reads some windows at once, for validation.

    Args:
        index: The windows.
        rows: The wanted ones, at least one; the batch has them in this order.
        representation: Whether latents or decoded frames are wanted.
        num_threads: How many windows are read or decoded at a time.
        retry_s: How long a store that does not answer is asked again.

    Raises:
        DataError: If a window cannot be read; names episode, frame and shard.
    """
    with WindowReader(index, representation, num_threads, retry_s) as reader:
        return reader.read(rows)


def _numbers(name: str, content: memoryview, shape: tuple[int, int]) -> np.ndarray:
    values = npy_view(content)
    if values.dtype != np.float32 or values.shape != shape or not np.isfinite(values).all():
        found = f"{values.dtype} {list(values.shape)}"
        raise DataError("corrupt_array", f"expected {name} in finite float32 {list(shape)}, found {found}")
    return values


def _latents_of_frame(name: str, content: memoryview) -> np.ndarray:
    """float16 `[4, h, h]` out of the bytes of one frame of a `[T, 4, h, h]` array."""
    num_channels = LATENT_SHAPE[0]
    side = isqrt(len(content) // (2 * num_channels))
    if len(content) != 2 * num_channels * side * side:
        raise DataError(
            "corrupt_array", f"expected {name} in float16 [T, {num_channels}, h, h], found {len(content)} bytes a frame"
        )
    values = np.frombuffer(content, "<f2").reshape(num_channels, side, side)
    if not np.isfinite(values).all():
        raise DataError("corrupt_array", f"expected finite numbers in {name}, found others")
    return values
