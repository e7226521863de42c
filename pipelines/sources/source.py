"""What every source offers: episodes listed cheaply, then frames, actions and latents of one episode.

A source is made anew in each worker from plain values, so it may keep caches but nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import av
import numpy as np

from schemas.episode import Episode, LeftOut
from schemas.errors import DataError

NumberedFrame = tuple[int, av.VideoFrame | DataError]
"""A frame with its number in the episode, or the fault that stands in its place."""


@dataclass(frozen=True)
class Trajectory:
    """Actions and proprioception of `N` consecutive frames.

    Attributes:
        actions: float32 `[N, action_dim]`, or `[N - 1, action_dim]` where the set records no action at an episode's
            last frame.
        proprio: float32 `[N, proprio_dim]`, or None where the set has none.
    """

    actions: np.ndarray
    proprio: np.ndarray | None


class Source(Protocol):
    """One dataset in one on-disk format, read from any fsspec URL."""

    kind: ClassVar[str]

    def parts(self) -> list[str]:
        """Names the units that can be listed in parallel (files or folders), sorted.

        Raises:
            UsageError: If the URL does not exist or does not hold this format.
        """
        ...

    def list_part(self, part: str) -> Iterator[Episode | LeftOut]:
        """Lists the episodes of one part in a fixed order, decoding no frame. Faulty data is yielded as `LeftOut`."""
        ...

    def frames(self, episode: Episode, camera: str, indices: Sequence[int]) -> Iterator[NumberedFrame]:
        """Yields `(index, frame)` for the strictly increasing `indices`, in order, each frame decoded once.

        In the place of a frame that cannot be had stands its fault; the others still come. Frames have their native
        size and pixel format. Memory does not grow with the number of indices.

        Raises:
            DataError: If no further frame can be had.
        """
        ...

    def trajectory(self, episode: Episode, start: int, end: int) -> Trajectory | None:
        """Reads actions and proprioception of the frames `[start, end)`; None where `action_dim` is 0.

        Raises:
            DataError: If they are missing, malformed or not aligned with the frames.
        """
        ...

    def latents(self, episode: Episode, camera: str) -> np.ndarray | None:
        """Reads precomputed, scaled SVD latents float32 `[num_frames, 4, 32, 32]` where the layout brings them.

        Raises:
            DataError: If they are there but unusable (not aligned with the frames, not a plain tensor).
        """
        ...
