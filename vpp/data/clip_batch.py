"""A batch of clips as training takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

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
