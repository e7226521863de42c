"""MetaWorld as the rollout loop sees it: one task an episode."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from schemas.shard import FRAME_SIZE_PX
from vpp.sim.metaworld import CONTROL_HZ, MAX_STEPS, PROPRIO_DIM, SEEDS_PER_DRAW, MetaWorldEnv, expert
from vpp.sim.metaworld_tasks import INSTRUCTIONS
from vpp.sim.simulator import EpisodePlan
from vpp.sim.stored_picture import StoredPicture

_FIRST_DRAW = 3 * 2**30  # demonstrations draw with numbers that begin below 2**31, and numpy's seeds end at 2**32


class MetaWorldSimulator:
    """Implements `vpp.sim.simulator.Simulator`.

    Args:
        cameras: Names of `vpp.sim.metaworld.CAMERAS`.
        image_size_px: Height and width at which pictures are rendered.
        frame_size: Height and width of what is observed, in pixels: as preprocessing would store it.
    """

    max_steps = MAX_STEPS
    control_hz = CONTROL_HZ

    def __init__(
        self, cameras: Sequence[str], image_size_px: int = FRAME_SIZE_PX, frame_size: int = FRAME_SIZE_PX
    ) -> None:
        self._cameras, self._image_size_px = tuple(cameras), image_size_px
        self._env: MetaWorldEnv | None = None
        self._stored = StoredPicture(frame_size)
        self._expert: Any = None
        self._observation = np.zeros(0)

    def reset(self, episode: EpisodePlan) -> None:
        """Lays out the scene of an episode."""
        (task,) = episode.tasks
        with _without_warnings():
            if self._env is None or self._env.task != task:
                self.close()
                self._env = MetaWorldEnv(task, episode.seed, self._cameras, self._image_size_px)
            self._observation = self._env.reset(episode.seed)

    def begin(self, task: str) -> str:
        """Begins the episode's task; returns its instruction in words."""
        self._expert = expert(task)
        return INSTRUCTIONS[task]

    def observe(self) -> dict[str, np.ndarray]:
        """Renders: `observation.images.<camera>` uint8 `[S, S, 3]`, S being the frame size, and `observation.state`
        float32 `[4]`."""
        pictures = self._running.render()
        seen = {f"observation.images.{camera}": self._stored(picture) for camera, picture in pictures.items()}
        return seen | {"observation.state": self._observation[:PROPRIO_DIM].astype(np.float32)}

    def step(self, action: np.ndarray) -> bool:
        """Applies an action `[4]`, cut to [-1, 1]; returns whether the task is now solved."""
        self._observation, solved = self._running.step(np.clip(action, -1.0, 1.0))
        return solved

    def expert_action(self) -> np.ndarray:
        """What MetaWorld's scripted policy would do now: float32 `[4]` in [-1, 1]."""
        with _without_warnings():
            action = self._expert.get_action(self._observation)
        clipped: np.ndarray = np.clip(action, -1.0, 1.0).astype(np.float32)
        return clipped

    def close(self) -> None:
        """Frees the rendering context."""
        if self._env is not None:
            self._env.close()
            self._env = None

    @property
    def _running(self) -> MetaWorldEnv:
        assert self._env is not None
        return self._env


def evaluation_seed(seed: int, task: str, number: int) -> int:
    """The seed of an episode, which no demonstration has: MetaWorld draws its places from other numbers.

    Args:
        seed: Of the evaluation.
        task: A name of MetaWorld's.
        number: Of the episode among those of its task.

    >>> evaluation_seed(0, "reach-v3", 7) - evaluation_seed(0, "reach-v3", 0)
    7
    """
    digest = hashlib.sha256(f"evaluation/{seed}/{task}".encode()).digest()
    return (_FIRST_DRAW + int.from_bytes(digest[:4], "little") % 2**29) * SEEDS_PER_DRAW + number


def plan_episodes(tasks: Sequence[str], num_episodes: int, seed: int) -> list[EpisodePlan]:
    """Episodes of a task one behind the other, so that an environment is seldom made anew.

    >>> [(plan.number, *plan.tasks) for plan in plan_episodes(("reach-v3", "push-v3"), 2, 0)]
    [(0, 'reach-v3'), (1, 'reach-v3'), (2, 'push-v3'), (3, 'push-v3')]
    """
    return [
        EpisodePlan(place * num_episodes + number, (task,), evaluation_seed(seed, task, number))
        for place, task in enumerate(tasks)
        for number in range(num_episodes)
    ]


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silences the simulator's routine warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
