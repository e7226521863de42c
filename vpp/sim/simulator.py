"""What the rollout loop needs of a simulator: the same few calls for MetaWorld and for CALVIN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class EpisodePlan:
    """An episode to run; all that happens in it follows from this and from the actions.

    Attributes:
        number: Its place in the evaluation, from 0.
        tasks: What is to be done, one after another in the same scene: one task in MetaWorld, a chain of five in
            CALVIN. The episode ends with the first that fails.
        seed: Decides where things lie, and the policy's noise.
        scene: CALVIN: how things stand at first, by thing; in MetaWorld the seed says.
    """

    number: int
    tasks: tuple[str, ...]
    seed: int
    scene: Mapping[str, str] = field(default_factory=dict)


class Simulator(Protocol):
    """A scene with a robot, a process of its own where several run at once.

    Attributes:
        max_steps: Actions that each task may take.
        control_hz: Actions a second.
    """

    max_steps: int
    control_hz: float

    def reset(self, episode: EpisodePlan) -> None:
        """Lays out the scene of an episode."""

    def begin(self, task: str) -> str:
        """Begins a task of the episode from where the scene stands; returns its instruction in words."""

    def observe(self) -> dict[str, np.ndarray]:
        """Renders: `observation.images.<camera>` uint8 `[S, S, 3]` and `observation.state` float32 `[P]`."""

    def step(self, action: np.ndarray) -> bool:
        """Applies one action in the units of the dataset; returns whether the task that was begun is now solved."""

    def expert_action(self) -> np.ndarray | None:
        """What a scripted expert would do now, where the simulator has one: `[A]`."""

    def close(self) -> None:
        """Frees the rendering context."""
