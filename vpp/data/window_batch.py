"""A batch of windows of episodes as a policy takes it: what the robot sees now, and the actions from now on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class WindowBatch:
    """`b` windows of `V` views and `H` actions: a worker's share of a step.

    Attributes:
        step: The step, or -1 if the windows were asked for by their rows.
        positions: Each window's place in the global batch, int64 `[b]`; what is drawn for a sample, such as its noise,
            should follow from it and not from the worker.
        rows: Each window's row in the index, int64 `[b]`.
        window_ids: Their ids, `<episode_id>:<frame>`.
        datasets: Their datasets.
        captions: What the robot is told.
        frames: RGB uint8 `[b, V, 256, 256, 3]`, or None.
        latents: Scaled latents float16 `[b, V, 4, 32, 32]` (as stored), or None.
        text: CLIP token sequences float16 `[b, 20, 512]`.
        actions: As recorded, float32 `[b, H, A]`; behind the episode's end the last one again.
        action_is_pad: bool `[b, H]`: True behind the episode's end.
        proprio: The robot's own state at the frame, float32 `[b, P]`; None where it was not asked for.
        wait_s: How long a loader's caller waited for the batch.
    """

    step: int
    positions: np.ndarray
    rows: np.ndarray
    window_ids: tuple[str, ...]
    datasets: tuple[str, ...]
    captions: tuple[str, ...]
    frames: torch.Tensor | None
    latents: torch.Tensor | None
    text: torch.Tensor
    actions: torch.Tensor
    action_is_pad: torch.Tensor
    proprio: torch.Tensor | None = None
    wait_s: float = 0.0

    def to(self, device: torch.device) -> WindowBatch:
        """The same windows with their tensors on a device; from page-locked memory nothing waits for the copy."""

        def moved(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return replace(
            self,
            frames=moved(self.frames),
            latents=moved(self.latents),
            text=self.text.to(device, non_blocking=True),
            actions=self.actions.to(device, non_blocking=True),
            action_is_pad=self.action_is_pad.to(device, non_blocking=True),
            proprio=moved(self.proprio),
        )
