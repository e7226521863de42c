"""One demonstration of a scripted expert: pictures, actions and states of an episode that ends soon after success."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from vpp.sim.metaworld import MAX_STEPS, PROPRIO_DIM, environment, expert


@dataclass(frozen=True)
class Demonstration:
    """What was recorded; `T` pictures and as many states and actions.

    Attributes:
        task: MetaWorld's name of the task.
        seed: What the environment was made with.
        success: Whether the expert solved the task.
        pictures: uint8 `[T, H, W, 3]` by camera.
        actions: float32 `[T, 4]` in [-1, 1].
        states: float32 `[T, 4]`: the hand's x, y, z in metres and the gripper's opening.
    """

    task: str
    seed: int
    success: bool
    pictures: dict[str, np.ndarray]
    actions: np.ndarray
    states: np.ndarray


def episode_seed(seed: int, task: str, number: int) -> int:
    """The seed of an episode, a function of the collection's seed, the task and the episode's number.

    >>> episode_seed(0, "reach-v3", 0) == episode_seed(0, "reach-v3", 0) != episode_seed(0, "reach-v3", 1)
    True
    """
    digest = hashlib.sha256(f"{seed}/{task}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "little") % (2**31)


def demonstrate(
    task: str, seed: int, cameras: tuple[str, ...], image_size_px: int, steps_after_success: int
) -> Demonstration:
    """Runs the task's expert for one episode.

    Args:
        task: MetaWorld's name of the task.
        seed: Decides where objects and goal lie.
        cameras: MetaWorld's names of cameras.
        image_size_px: Height and width of the pictures.
        steps_after_success: How long to go on once the task is solved.
    """
    pictures: dict[str, list[np.ndarray]] = {camera: [] for camera in cameras}
    actions, states = [], []
    success, left = False, MAX_STEPS
    with environment(task, seed, cameras, image_size_px) as env:
        policy, observation = expert(task), env.reset()
        while left > 0:
            action = np.clip(policy.get_action(observation), -1.0, 1.0).astype(np.float32)
            for camera, picture in env.render().items():
                pictures[camera].append(picture)
            states.append(observation[:PROPRIO_DIM].astype(np.float32))
            actions.append(action)
            observation, solved = env.step(action)
            left -= 1
            if solved and not success:
                success, left = True, min(left, steps_after_success)
    stacked = {camera: np.stack(frames) for camera, frames in pictures.items()}
    return Demonstration(task, seed, success, stacked, np.stack(actions), np.stack(states))
