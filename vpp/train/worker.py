"""What the training loop knows of the process it runs in; the loop itself knows nothing of Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

Signal = Literal["go_on", "save", "stop"]
"""What a worker is asked to do besides training: write a checkpoint now, or write one and end."""


def _go_on() -> Signal:
    return "go_on"


def _nobody_listens(*_: object) -> None:
    return None


@dataclass(frozen=True)
class Worker:
    """One of the processes that train a model together. The defaults are a process that trains alone.

    Attributes:
        rank: Number of this process, from 0.
        world_size: How many there are. More than one need an initialised `torch.distributed`.
        device: Where the model lives.
        signal: Asks what to do; all workers get the same answer, because all ask equally often.
        progress: Told by rank 0 about a step and its metrics.
        doing: Told by every worker what it goes over to, such as `wait for data`; costs next to nothing.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    signal: Callable[[], Signal] = _go_on
    progress: Callable[[int, Mapping[str, float]], None] = _nobody_listens
    doing: Callable[[str], None] = _nobody_listens

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0
