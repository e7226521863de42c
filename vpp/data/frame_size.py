"""How large the frames of a dataset are, as its first sample tells: a dataset is preprocessed to one size."""

from __future__ import annotations

import numpy as np

from schemas.errors import DataError, UsageError
from vpp.data.clip_batch import ClipBatch, Representation
from vpp.data.clip_index import ClipIndex
from vpp.data.clip_reader import read_clips
from vpp.data.window_batch import WindowBatch
from vpp.data.window_index import WindowIndex
from vpp.data.window_reader import read_windows

_PX_PER_LATENT = 8


def frame_size(index: ClipIndex | WindowIndex, representation: Representation, retry_s: float = 120.0) -> int:
    """Height and width in pixels of the frames that are read, or that latents were made of.

    Args:
        index: Clips or windows, at least one.
        representation: What is read of them.
        retry_s: How long a store that does not answer is asked again.

    Raises:
        UsageError: If the first sample cannot be read.
    """
    first = np.zeros(1, np.int64)
    batch: ClipBatch | WindowBatch
    try:
        if isinstance(index, ClipIndex):
            batch = read_clips(index, first, representation, retry_s=retry_s)
        else:
            batch = read_windows(index, first, representation, retry_s=retry_s)
    except DataError as error:
        raise UsageError(f"data: expected samples that can be read, the first cannot: {error}") from error
    if batch.frames is not None:
        return int(batch.frames.shape[-2])
    assert batch.latents is not None
    return int(batch.latents.shape[-1]) * _PX_PER_LATENT
