"""What a policy is shown, under LeRobot's keys, and the check that it is what the policy was trained on.

`observation.images.<camera>`: uint8 RGB `[B, S, S, 3]`, or float `[B, 3, S, S]` from 0 to 1 as LeRobot has it; S is the
size of the training data's frames, 256 as published.
`observation.state`: proprioception `[B, P]`, for a policy that uses it. `task`: the instruction, or one for each of B.
Arrays or tensors; a single observation may come without the batch axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from schemas.errors import VPPError
from schemas.shard import FRAME_SIZE_PX

IMAGES = "observation.images."
STATE = "observation.state"
TASK = "task"


class ObservationError(VPPError, ValueError):
    """An observation is not what the policy was trained on; says what was expected and what was found."""


@dataclass(frozen=True, eq=False)
class Observation:
    """B checked observations.

    Attributes:
        frames: RGB uint8 `[B, V, S, S, 3]`, cameras in the policy's order.
        proprio: float32 `[B, P]`; None for a policy that does not use it.
        tasks: Instructions, B of them.
    """

    frames: torch.Tensor
    proprio: torch.Tensor | None
    tasks: tuple[str, ...]


def check_observation(
    values: Mapping[str, Any], cameras: Sequence[str], proprio_dim: int, frame_size: int = FRAME_SIZE_PX
) -> Observation:
    """Checks what a caller gives; keys that the policy does not use are ignored.

    Args:
        values: By LeRobot's keys.
        cameras: The policy's.
        proprio_dim: P; 0 for a policy that does not use proprioception.
        frame_size: S, height and width of the pictures.

    Raises:
        ObservationError: Naming the key.
    """
    views = [_frames(values, IMAGES + camera, frame_size) for camera in cameras]
    if len({len(view) for view in views}) != 1:
        found = ", ".join(f"{len(view)} of {camera}" for camera, view in zip(cameras, views, strict=True))
        raise ObservationError(f"{IMAGES}*: expected as many pictures of every camera, found {found}")
    frames = torch.stack(views, dim=1)
    proprio = _proprio(values, proprio_dim, len(frames)) if proprio_dim else None
    return Observation(frames, proprio, _tasks(values, len(frames)))


def _frames(values: Mapping[str, Any], key: str, size: int) -> torch.Tensor:
    expected = f"{key}: expected uint8 [B, {size}, {size}, 3] or float [B, 3, {size}, {size}] from 0 to 1"
    image = _tensor(values, key)
    image = image[None] if image.ndim == 3 else image
    found = f"found {str(image.dtype).removeprefix('torch.')} {list(image.shape)}"
    if image.dtype == torch.uint8 and image.shape[1:] == (size, size, 3):
        return image
    if not image.is_floating_point() or image.shape[1:] != (3, size, size) or not len(image):
        raise ObservationError(f"{expected}, {found}; resize to {size}x{size} as the training clips were")
    low, high = (float(value) for value in image.aminmax())
    if not (low >= 0 and high <= 1):  # NaN too
        raise ObservationError(f"{expected}, {found} from {low:g} to {high:g}")
    return (image.permute(0, 2, 3, 1) * 255).round().to(torch.uint8)


def _proprio(values: Mapping[str, Any], proprio_dim: int, batch: int) -> torch.Tensor:
    state = _tensor(values, STATE).float()
    state = state[None] if state.ndim == 1 else state
    if state.shape != (batch, proprio_dim):
        raise ObservationError(f"{STATE}: expected [{batch}, {proprio_dim}], found {list(state.shape)}")
    if not bool(state.isfinite().all()):
        raise ObservationError(f"{STATE}: expected finite numbers, found NaN or infinity")
    return state


def _tasks(values: Mapping[str, Any], batch: int) -> tuple[str, ...]:
    given = values.get(TASK)
    tasks = [given] * batch if isinstance(given, str) else given
    if isinstance(tasks, list | tuple) and len(tasks) == batch and all(isinstance(task, str) for task in tasks):
        return tuple(tasks)
    raise ObservationError(f"{TASK}: expected an instruction, or {batch} of them, found {given!r}")


def _tensor(values: Mapping[str, Any], key: str) -> torch.Tensor:
    if key not in values:
        found = ", ".join(sorted(values)) or "nothing"
        raise ObservationError(f"{key}: expected it in the observation, found only {found}")
    value = values[key]
    if isinstance(value, np.ndarray) and value.dtype.kind in "uif":
        return torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, torch.Tensor):
        found = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ObservationError(f"{key}: expected an array or tensor of numbers, found {found}")
    return value
