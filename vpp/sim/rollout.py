"""The loop of one episode: a plan, a simulator and something that acts; one row for each task that was begun.

Pictures are rendered when the one who acts looks, and when a video takes a frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vpp.sim.simulator import EpisodePlan, Simulator

Observe = Callable[[], Mapping[str, np.ndarray]]
"""Gives what the simulator shows now; rendered at the first call after a step."""


@dataclass(frozen=True)
class Moment:
    """When a chunk of actions is asked for. All that is drawn for it follows from this and the evaluation's seed.

    Attributes:
        episode_seed: The plan's.
        position: Place of the task in the episode, from 0.
        chunk: Number of the chunk in the task, from 0: each task begins with a policy that remembers nothing.
    """

    episode_seed: int
    position: int
    chunk: int


class Actor(Protocol):
    """Something that acts."""

    def chunk(self, simulator: Simulator, observe: Observe, instruction: str, moment: Moment) -> np.ndarray:
        """Actions to be executed one after another: `[H, A]`."""


class Watcher(Protocol):
    """Something that keeps what happens, such as a video."""

    def look(self, step: int, observe: Observe, instruction: str, moment: Moment) -> None:
        """Called before each step."""

    def end(self, result: TaskResult, own_instruction: str, observe: Observe) -> None:
        """Called when a task ends, with the instruction that is the task's own."""


@dataclass(frozen=True)
class TaskResult:
    """What became of a task.

    Attributes:
        position: Place in the episode, from 0.
        task: Its name.
        instruction: What the policy was told.
        success: Whether it was solved within the limit.
        num_steps: Actions that were executed.
        seconds: By the clock, waiting for the policy included.
    """

    position: int
    task: str
    instruction: str
    success: bool
    num_steps: int
    seconds: float


def run_episode(
    simulator: Simulator,
    plan: EpisodePlan,
    actor: Actor,
    *,
    max_steps: int,
    num_executed: int = 0,
    told: Mapping[str, str] | None = None,
    watcher: Watcher | None = None,
) -> list[TaskResult]:
    """Runs an episode to its end: all tasks solved, or one not solved within the limit.

    Args:
        simulator: It is reset.
        plan: What to do.
        actor: Who does it.
        max_steps: Actions that each task may take.
        num_executed: Actions of a chunk that are executed before the next is asked for; 0 for all.
        told: Instructions by task, in the place of the simulator's own.
        watcher: Sees everything, changes nothing.
    """
    simulator.reset(plan)
    results: list[TaskResult] = []
    for position, task in enumerate(plan.tasks):
        own = simulator.begin(task)
        instruction = told[task] if told else own
        started = time.perf_counter()
        observe = _OncePerStep(simulator)
        success, num_steps = _do_task(
            simulator, observe, plan.seed, position, instruction, actor, max_steps, num_executed, watcher
        )
        seconds = time.perf_counter() - started
        results.append(TaskResult(position, task, instruction, success, num_steps, seconds))
        if watcher:
            watcher.end(results[-1], own, observe)
        if not success:
            break
    return results


def _do_task(
    simulator: Simulator,
    observe: _OncePerStep,
    seed: int,
    position: int,
    instruction: str,
    actor: Actor,
    max_steps: int,
    num_executed: int,
    watcher: Watcher | None,
) -> tuple[bool, int]:
    num_steps = num_chunks = 0
    success = False
    while not success and num_steps < max_steps:
        moment = Moment(seed, position, num_chunks)
        actions = actor.chunk(simulator, observe, instruction, moment)
        num_chunks += 1
        for action in actions[: num_executed or None][: max_steps - num_steps]:
            if watcher:
                watcher.look(num_steps, observe, instruction, moment)
            success = simulator.step(action)
            observe.forget()
            num_steps += 1
            if success:
                break
    return success, num_steps


class _OncePerStep:
    """Renders no picture twice."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._seen: Mapping[str, np.ndarray] | None = None

    def __call__(self) -> Mapping[str, np.ndarray]:
        if self._seen is None:
            self._seen = self._simulator.observe()
        return self._seen

    def forget(self) -> None:
        self._seen = None


class ExpertActor:
    """The simulator's scripted expert, which sees the state and not the pictures: it measures the harness."""

    def chunk(self, simulator: Simulator, observe: Observe, instruction: str, moment: Moment) -> np.ndarray:
        """One action `[1, A]`."""
        action = simulator.expert_action()
        if action is None:
            raise RuntimeError("expected a simulator with a scripted expert, found one without")
        return action[None]


class RandomActor:
    """Uniform actions in [-1, 1]: what is solved by chance.

    Args:
        action_dim: A.
        seed: Of the evaluation.
    """

    def __init__(self, action_dim: int, seed: int) -> None:
        self._action_dim, self._seed = action_dim, seed

    def chunk(self, simulator: Simulator, observe: Observe, instruction: str, moment: Moment) -> np.ndarray:
        """One action `[1, A]`, a function of the seeds and the moment."""
        seeds = [self._seed, moment.episode_seed, moment.position, moment.chunk]
        return np.random.default_rng(seeds).uniform(-1.0, 1.0, (1, self._action_dim)).astype(np.float32)
