"""A batch of clips as training takes it, and one whose clips are still on their way from the shards."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch

from schemas.errors import DataError
from schemas.shard import LATENTS_NPY, TEXT_TOKENS_NPY, VIDEO

Representation = Literal["latents", "frames"]

MEMBERS_OF: dict[Representation, tuple[str, str]] = {
    "latents": (LATENTS_NPY, TEXT_TOKENS_NPY),
    "frames": (VIDEO, TEXT_TOKENS_NPY),
}
"""The members of a clip that a representation is read from, the picture's first."""

OTHER_VIEW = "other_view"
"""Stands for a member among those of a batch: the first frame of another clip's video."""


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """`b` clips: a worker's share of a step.

    Attributes:
        step: The step, or -1 if the clips were asked for by their rows.
        positions: Each clip's place in the global batch, int64 `[b]`; what is drawn for a sample, such as its noise,
            should follow from it and not from the worker.
        rows: Each clip's row in the index, int64 `[b]`.
        clip_ids: Their ids.
        datasets: Their datasets.
        frames: RGB uint8 `[b, 16, 256, 256, 3]`, or None.
        latents: Scaled latents float16 `[b, 16, 4, 32, 32]` (as stored), or None.
        text: CLIP token sequences float16 `[b, 20, 512]`.
        other_view: First frame of the clip that shows the same from another camera, RGB uint8 `[b, 256, 256, 3]`; None
            where it was not asked for.
        wait_s: How long a loader's caller waited for the batch.
    """

    step: int
    positions: np.ndarray
    rows: np.ndarray
    clip_ids: tuple[str, ...]
    datasets: tuple[str, ...]
    frames: torch.Tensor | None
    latents: torch.Tensor | None
    text: torch.Tensor
    other_view: torch.Tensor | None = None
    wait_s: float = 0.0

    def to(self, device: torch.device) -> ClipBatch:
        """The same clips with their tensors on a device; from page-locked memory nothing waits for the copy."""

        def moved(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return replace(
            self,
            frames=moved(self.frames),
            latents=moved(self.latents),
            text=self.text.to(device, non_blocking=True),
            other_view=moved(self.other_view),
        )


@dataclass(eq=False)
class PendingBatch:
    """A batch that threads fill.

    Attributes:
        step: As in `ClipBatch`, like the following.
        positions: int64 `[b]`.
        rows: int64 `[b]`.
        clip_ids: Their ids.
        datasets: Their datasets.
        pin_memory: Whether the tensors lie in page-locked memory.
        futures: What fills it.
    """

    step: int
    positions: np.ndarray
    rows: np.ndarray
    clip_ids: tuple[str, ...]
    datasets: tuple[str, ...]
    pin_memory: bool
    futures: list[Future[None]] = field(default_factory=list)
    _tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    _views: dict[str, np.ndarray] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def allocate(self, member: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Makes the tensor that takes a member of all clips, `[b, *shape]`.

        NumPy's memory comes from malloc's heap, which gives a freed batch's pages to the next: on a CPU new pages cost
        more than copying into them. Page-locked memory is kept by PyTorch.
        """
        full = (len(self.rows), *shape)
        if self.pin_memory:
            torch_dtype = torch.uint8 if dtype == np.uint8 else torch.float16
            self._tensors[member] = torch.empty(full, dtype=torch_dtype, pin_memory=True)
        else:
            self._tensors[member] = torch.from_numpy(np.empty(full, dtype))
        self._views[member] = self._tensors[member].numpy()

    def put(self, member: str, place: int, values: np.ndarray) -> None:
        """Copies what was read of one clip to its place.

        Args:
            member: The member it was read from.
            place: The clip's place in this batch.
            values: uint8 or float16.

        Raises:
            DataError: `unequal_shapes` if a clip before had another shape.
        """
        with self._lock:
            if member not in self._views:
                self.allocate(member, values.shape, values.dtype)
        view = self._views[member]
        if view.shape[1:] != values.shape:
            expected = f"expected {member} of shape {list(view.shape[1:])} as in the clips before"
            raise DataError("unequal_shapes", f"{expected}, found {list(values.shape)}")
        np.copyto(view[place], values)  # lets other threads run meanwhile

    def result(self) -> ClipBatch:
        """Waits until all clips are there.

        Raises:
            Exception: What a thread raised.
        """
        for future in self.futures:
            future.result()
        tensors = self._tensors
        return ClipBatch(
            self.step, self.positions, self.rows, self.clip_ids, self.datasets,
            tensors.get(VIDEO), tensors.get(LATENTS_NPY), tensors[TEXT_TOKENS_NPY],
            tensors.get(OTHER_VIEW),
        )  # fmt: skip
