"""Demonstrations of MetaWorld's scripted experts, step by step, ending soon after success.

Noise may be added to what is executed, not to what is recorded, so that the expert shows how it comes back from where
it would not have gone itself: DART, Laskey et al. 2017 (arXiv 1703.09327).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vpp.sim.metaworld import MAX_STEPS, PROPRIO_DIM, SEEDS_PER_DRAW, MetaWorldEnv, expert


@dataclass(frozen=True)
class Step:
    """What the expert saw and did.

    Attributes:
        pictures: uint8 `[H, W, 3]` by camera, before the action.
        state: float32 `[4]`: the hand's x, y, z in metres and the gripper's opening, before the action.
        action: float32 `[4]` in [-1, 1], the expert's own; with action noise another one was applied.
        solved: Whether the task is solved after this action, or was before.
    """

    pictures: dict[str, np.ndarray]
    state: np.ndarray
    action: np.ndarray
    solved: bool


def episode_seed(seed: int, task: str, number: int) -> int:
    """The seed of an episode, a function of the collection's seed, the task and the episode's number.

    Episodes of one task have seeds in a row, so that they share what MetaWorld draws at a time.

    >>> episode_seed(0, "reach-v3", 7) - episode_seed(0, "reach-v3", 0)
    7
    >>> episode_seed(0, "reach-v3", 0) in (episode_seed(1, "reach-v3", 0), episode_seed(0, "push-v3", 0))
    False
    """
    digest = hashlib.sha256(f"{seed}/{task}".encode()).digest()
    return int.from_bytes(digest[:4], "little") % 2**31 * SEEDS_PER_DRAW + number


def demonstrate(env: MetaWorldEnv, seed: int, steps_after_success: int, action_noise: float = 0.0) -> Iterator[Step]:
    """Runs the expert of the environment's task for one episode, of `MAX_STEPS` steps at most.

    Args:
        env: The environment; it is reset.
        seed: Decides where objects and goal lie, and the noise.
        steps_after_success: How long to go on once the task is solved.
        action_noise: Standard deviation of the Gaussian noise added to what is executed.
    """
    noise = np.random.default_rng(seed)
    policy, observation = expert(env.task), env.reset(seed)
    solved, left = False, MAX_STEPS
    while left > 0:
        pictures, state = env.render(), observation[:PROPRIO_DIM].astype(np.float32)
        action = np.clip(policy.get_action(observation), -1.0, 1.0).astype(np.float32)
        executed = action
        if action_noise:
            executed = np.clip(action + action_noise * noise.standard_normal(action.shape), -1.0, 1.0)
        observation, solved_now = env.step(executed)
        left -= 1
        if solved_now and not solved:
            solved, left = True, min(left, steps_after_success)
        yield Step(pictures, state, action, solved)
