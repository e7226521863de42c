"""What a robot may ask: the check of an observation before it waits with others, so that none spoils their batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from vpp.policy.config import PolicyConfig
from vpp.policy.observation import IMAGES, STATE, TASK, ObservationError, check_observation
from vpp.serve.protocol import InvalidRequest

PROMPT = "prompt"
"""What openpi calls the instruction; as good as `task`."""
_MAX_TASK_CHARS = 1000


class _Message(BaseModel):
    """What a message holds beside pictures and proprioception, which `vpp.policy.observation` checks."""

    model_config = ConfigDict(extra="allow", strict=True)

    task: str = Field(max_length=_MAX_TASK_CHARS, validation_alias=AliasChoices(TASK, PROMPT))
    chunk: int | None = Field(default=None, ge=0, lt=2**63)


@dataclass(frozen=True, eq=False)
class ChunkRequest:
    """A checked request.

    Attributes:
        frames: RGB uint8 `[V, S, S, 3]`, cameras in the policy's order.
        proprio: float32 `[P]`; None for a policy that does not use it.
        task: The instruction.
        chunk: Number of the chunk since the episode began, which decides its noise.
    """

    frames: torch.Tensor
    proprio: torch.Tensor | None
    task: str
    chunk: int


def check_request(values: Any, config: PolicyConfig, next_chunk: int) -> ChunkRequest:
    """Checks a message that was unpacked.

    Args:
        values: By LeRobot's keys, one observation without a batch axis; `prompt` is as good as `task`. Optional:
            `chunk`. Others are ignored.
        config: Of the policy that is to answer.
        next_chunk: The number of the chunk where the message tells none.

    Raises:
        InvalidRequest: Naming the key, what was expected and what was found.
    """
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InvalidRequest(f"message: expected a map with keys of text, found {_kind(values)}")
    try:
        message = _Message.model_validate(values)
        seen = check_observation(
            {**values, TASK: message.task}, config.cameras, config.denoiser.proprio_dim, config.frame_size
        )
    except ValidationError as error:
        raise InvalidRequest(_told(error, values)) from error
    except ObservationError as error:
        raise InvalidRequest(str(error)) from error
    if len(seen.frames) != 1:
        raise InvalidRequest(f"message: expected one observation, found a batch of {len(seen.frames)}")
    proprio = None if seen.proprio is None else seen.proprio[0]
    return ChunkRequest(seen.frames[0], proprio, message.task, next_chunk if message.chunk is None else message.chunk)


def example_request(config: PolicyConfig) -> ChunkRequest:
    """A request of a black picture, to warm up with."""
    frames = torch.zeros(len(config.cameras), config.frame_size, config.frame_size, 3, dtype=torch.uint8)
    proprio_dim = config.denoiser.proprio_dim
    return ChunkRequest(frames, torch.zeros(proprio_dim) if proprio_dim else None, "", 0)


def largest_request_bytes(config: PolicyConfig) -> int:
    """Bytes of an observation with pictures and proprioception in float32, the longest instruction and some room."""
    numbers = len(config.cameras) * config.frame_size**2 * 3 + config.denoiser.proprio_dim
    return 4 * (numbers + _MAX_TASK_CHARS) + 4096


def metadata(config: PolicyConfig, dataset: str) -> dict[str, Any]:
    """What a client is told of the policy when it connects."""
    denoiser, images = config.denoiser, [IMAGES + camera for camera in config.cameras]
    return {
        "observation_keys": [*images, *([STATE] if denoiser.proprio_dim else []), TASK],
        "frame_size": config.frame_size,
        "proprio_dim": denoiser.proprio_dim,
        "action_dim": denoiser.action_dim,
        "num_actions": denoiser.num_actions,
        "num_executed": config.sampler.num_executed or denoiser.num_actions,
        "dataset": dataset,
        "trained_by": config.trained_by,
    }


def _told(error: ValidationError, values: Mapping[str, Any]) -> str:
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0])
    found = ", ".join(sorted(values))[:200] or "nothing"
    if first["type"] != "missing":
        found = _kind(first["input"])
    return f"{name}: {first['msg'][:1].lower()}{first['msg'][1:]}, found {found}"


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return f"{len(value)} characters"
    return repr(value) if isinstance(value, int) else type(value).__name__
