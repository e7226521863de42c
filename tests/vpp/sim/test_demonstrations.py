"""Demonstrations solve their task, end soon after, and are repeatable."""

from __future__ import annotations

import numpy as np
import pytest

from vpp.sim import demonstrations
from vpp.sim.demonstrations import Step, demonstrate, episode_seed
from vpp.sim.metaworld import environment

pytest.importorskip("metaworld")

TASK = "handle-press-v3"


def run(seed: int, steps_after_success: int, action_noise: float = 0.0) -> list[Step]:
    with environment(TASK, seed, ("corner2",), 32) as env:
        return list(demonstrate(env, seed, steps_after_success, action_noise))


def test_an_episode_ends_the_given_number_of_steps_after_success() -> None:
    steps, shorter = run(7, 5), run(7, 0)
    solved = [step.solved for step in steps]
    assert solved == [False] * (len(steps) - 6) + [True] * 6
    assert len(shorter) == len(steps) - 5
    for step, again in zip(steps, shorter, strict=False):
        np.testing.assert_array_equal(step.action, again.action)
        np.testing.assert_array_equal(step.pictures["corner2"], again.pictures["corner2"])


def test_states_and_actions_have_their_shapes_and_ranges() -> None:
    steps = run(8, 2)
    actions, states = np.stack([s.action for s in steps]), np.stack([s.state for s in steps])
    assert (actions.dtype, states.dtype) == (np.float32, np.float32)
    assert (actions.shape, states.shape) == ((len(steps), 4), (len(steps), 4))
    assert np.abs(actions).max() <= 1
    assert states[0, 2] - states[-1, 2] > 0.03  # the hand went down, in metres
    assert 0 <= states[:, 3].min() <= states[:, 3].max() <= 1
    assert not np.array_equal(steps[0].pictures["corner2"], steps[-1].pictures["corner2"])


def test_noise_changes_where_the_robot_goes_and_the_recorded_actions_stay_the_experts() -> None:
    plain, noisy, again = run(7, 2), run(7, 2, 0.3), run(7, 2, 0.3)
    np.testing.assert_array_equal([step.action for step in noisy], [step.action for step in again])
    np.testing.assert_array_equal([step.state for step in noisy], [step.state for step in again])
    np.testing.assert_array_equal(noisy[0].action, plain[0].action)
    assert not np.array_equal(noisy[1].state, plain[1].state)
    assert noisy[-1].solved
    idle = [float(step.action[3]) for step in noisy]  # this expert never moves the fingers
    assert len(set(idle)) == 1


class _Idle:
    def get_action(self, observation: np.ndarray) -> np.ndarray:
        return np.array([0.0, 0.0, 7.0, 0.0])


def test_a_failing_expert_stops_at_the_limit_and_its_actions_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstrations, "expert", lambda task: _Idle())
    monkeypatch.setattr(demonstrations, "MAX_STEPS", 6)
    steps = run(7, 5)
    assert (len(steps), steps[-1].solved) == (6, False)
    assert steps[0].action.tolist() == [0, 0, 1, 0]


def test_seeds_differ_by_collection_task_and_episode() -> None:
    seeds = {episode_seed(seed, task, n) for seed in (0, 1) for task in ("reach-v3", "push-v3") for n in range(200)}
    assert len(seeds) == 800
