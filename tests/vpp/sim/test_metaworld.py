"""MetaWorld's tasks have words, their pictures are upright, and an episode is a function of its seed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from schemas.errors import UsageError
from vpp.sim.metaworld import CAMERAS, CONTROL_HZ, environment
from vpp.sim.metaworld_tasks import GROUPS, INSTRUCTIONS, check_task, expand_tasks

pytest.importorskip("metaworld")


def test_every_task_has_an_expert_and_an_instruction_of_its_own() -> None:
    from metaworld.policies import ENV_POLICY_MAP

    assert set(INSTRUCTIONS) == set(ENV_POLICY_MAP)
    assert len(set(INSTRUCTIONS.values())) == len(INSTRUCTIONS) == 50


def test_the_groups_are_of_28_11_and_11_tasks() -> None:
    assert Counter(GROUPS.values()) == {"easy": 28, "middle": 11, "hard": 11}
    assert (
        set(GROUPS) == set(INSTRUCTIONS) == set(expand_tasks(["easy", "middle", "hard"])) == set(expand_tasks(["all"]))
    )
    assert {"stick-pull-v3", "push-back-v3"} < set(expand_tasks(["hard"]))


@pytest.mark.parametrize("names", [(), ("reach-v3", "easy"), ("reach-v2",), ("middle", "middle")])
def test_tasks_that_are_none_twice_or_unknown_are_the_users_mistake(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="--tasks"):
        expand_tasks(names)


def test_an_unknown_task_is_the_users_mistake() -> None:
    with pytest.raises(UsageError, match="fly-v3"):
        check_task("fly-v3")


def test_pictures_are_upright_differ_between_cameras_and_come_at_the_control_rate() -> None:
    with environment("drawer-open-v3", 0, CAMERAS, 64) as env:
        env.reset()
        pictures = env.render()
        assert env._env.dt == pytest.approx(1 / CONTROL_HZ)
    assert {camera: (p.shape, p.dtype) for camera, p in pictures.items()} == dict.fromkeys(
        CAMERAS, ((64, 64, 3), np.dtype(np.uint8))
    )
    assert len({picture.tobytes() for picture in pictures.values()}) == len(CAMERAS)
    corner = pictures["corner2"]
    assert corner[:8].reshape(-1, 3).std(0).max() == 0  # nothing but the background is above robot and table
    assert corner[-8:].reshape(-1, 3).std(0).max() > 10
    red = (corner[:, :, 0] > 90) & (
        corner[:, :, 1] < 60
    )  # the arm stands left of the table, as in the simulator's viewer
    assert red[:, :32].sum() > 3 * red[:, 32:].sum()


def test_the_near_camera_shows_no_marks_of_goals_and_leaves_the_others_alone() -> None:
    with environment("faucet-open-v3", 0, ("corner2", "near"), 128) as env:
        env.reset()
        first, again = env.render(), env.render()
    assert all(np.array_equal(first[camera], again[camera]) for camera in first)
    green, blue = (  # the marks of `open` and `close`
        {
            camera: int(((p[..., channel] > 90) & (np.delete(p, channel, -1).max(-1) < 60)).sum())
            for camera, p in first.items()
        }
        for channel in (1, 2)
    )
    assert (green["near"], blue["near"]) == (0, 0)
    assert green["corner2"] + blue["corner2"] > 0


@pytest.mark.parametrize("task", ["drawer-open-v3", "faucet-open-v3"])
def test_the_first_picture_of_an_episode_shows_things_where_they_are(task: str) -> None:
    """MetaWorld moves objects of these tasks after MuJoCo has placed them."""
    with environment(task, 0, ("near",), 64) as env:
        env.reset(0)
        fresh = env.render()["near"]
        env.reset(7)
        env.reset(0)
        assert np.array_equal(env.render()["near"], fresh)


def states_after(env: object, seed: int, num_steps: int = 15) -> np.ndarray:
    observations = [env.reset(seed)]  # type: ignore[attr-defined]
    for step in range(num_steps):
        observations.append(env.step(np.full(4, np.sin(step)))[0])  # type: ignore[attr-defined]
    return np.stack(observations)


def test_an_environment_used_before_gives_the_episode_of_a_new_one() -> None:
    with environment("push-v3", 60, ("corner2",), 32) as env:
        fresh = states_after(env, 60)
        others = [states_after(env, seed) for seed in (61, 110)]  # of the same draw, and of the next one
        np.testing.assert_array_equal(states_after(env, 60), fresh)
    with environment("push-v3", 61, ("corner2",), 32) as env:
        np.testing.assert_array_equal(states_after(env, 60), fresh)
    assert not any(np.array_equal(other, fresh) for other in others)


def test_a_process_that_rendered_ends_without_a_word() -> None:
    program = """
from vpp.sim.metaworld import environment
with environment("reach-v3", 0, ("corner2", "gripperPOV"), 32) as env:
    env.reset()
    env.render()
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
