"""The adapter to CALVIN does what the protocol asks, on a stand-in for the simulator."""

from __future__ import annotations

import numpy as np
import pytest
from calvin_stand_in import StandInPlayTable, open_stand_in

from vpp.sim.calvin import CAMERAS, CalvinSimulator
from vpp.sim.calvin_scene import ROBOT_AT_REST, scene_obs
from vpp.sim.calvin_tasks import INSTRUCTIONS
from vpp.sim.chains import initial_scenes
from vpp.sim.rollout import Moment, Observe, run_episode
from vpp.sim.simulator import EpisodePlan, Simulator

RIGHT = np.array([1.0, 0, 0, 0, 0, 0, 1])
SCENE = initial_scenes()[7]
PLAN = EpisodePlan(0, ("open_drawer", "turn_on_led"), 0, SCENE)


@pytest.fixture
def env() -> StandInPlayTable:
    return open_stand_in()[0]


@pytest.fixture
def simulator(env: StandInPlayTable) -> CalvinSimulator:
    return CalvinSimulator(CAMERAS, lambda: (env, open_stand_in()[1]))


def test_a_chain_begins_with_its_scene_and_the_robot_at_rest(simulator: CalvinSimulator, env: StandInPlayTable) -> None:
    simulator.reset(PLAN)
    np.testing.assert_array_equal(env.scene.numbers, scene_obs(SCENE))
    np.testing.assert_array_equal(env.get_state_obs()["robot_obs"], ROBOT_AT_REST)


def test_a_policy_sees_pictures_and_state_named_and_shaped_as_in_training(simulator: CalvinSimulator) -> None:
    simulator.reset(PLAN)
    seen = simulator.observe()
    assert list(seen) == ["observation.images.rgb_static", "observation.images.rgb_gripper", "observation.state"]
    for name in CAMERAS:
        picture = seen[f"observation.images.{name}"]
        assert (picture.shape, picture.dtype) == ((256, 256, 3), np.uint8)
        assert np.abs(picture.astype(int) - 105).max() <= 2
    assert seen["observation.state"].dtype == np.float32
    np.testing.assert_allclose(seen["observation.state"], ROBOT_AT_REST, rtol=1e-6)


def test_only_cameras_that_are_asked_for_are_rendered_and_only_when_someone_looks(env: StandInPlayTable) -> None:
    static, gripper = env.cameras
    simulator = CalvinSimulator(("rgb_static",), lambda: (env, open_stand_in()[1]))
    assert static.num_renderings == 2  # those that nobody should see
    simulator.reset(PLAN)
    simulator.begin("open_drawer")
    for _ in range(3):
        simulator.step(RIGHT)
    assert static.num_renderings == 2
    assert simulator.observe()["observation.images.rgb_static"].min() > 100
    assert (static.num_renderings, gripper.num_renderings) == (3, 0)


def test_actions_are_cut_to_their_range_and_the_gripper_opens_or_shuts(
    simulator: CalvinSimulator, env: StandInPlayTable
) -> None:
    simulator.reset(PLAN)
    simulator.begin("open_drawer")
    for gripper in (0.3, -0.2, 0.0, 1.0):
        simulator.step(np.array([2, -3, 0.5, 0, 0, 0, gripper], np.float32))
    assert [command[-1] for command in env.commands] == [1, -1, -1, 1]
    assert env.commands[0][:3].tolist() == [1, -1, 0.5]


def test_a_task_is_judged_against_the_scene_in_which_it_began(simulator: CalvinSimulator) -> None:
    simulator.reset(PLAN)
    assert simulator.begin("open_drawer") == INSTRUCTIONS["open_drawer"]
    assert [simulator.step(RIGHT) for _ in range(3)] == [False, False, True]
    assert simulator.begin("turn_on_led") == "press the button to turn on the led light"
    assert [simulator.step(RIGHT) for _ in range(3)] == [False, False, True]


def test_a_chain_is_the_same_whatever_came_before(simulator: CalvinSimulator, env: StandInPlayTable) -> None:
    simulator.reset(PLAN)
    first = simulator.observe()
    simulator.begin("open_drawer")
    simulator.step(-RIGHT)  # leaves contacts, a button held down and a shut gripper
    simulator.reset(PLAN)
    for name, values in simulator.observe().items():
        np.testing.assert_array_equal(values, first[name])
    assert not env.scene.buttons[0].prev_is_pressed
    assert env.parameters == {"deterministicOverlappingPairs": 1}


class MovesRight:
    """Does the first task, then rests."""

    def chunk(self, simulator: Simulator, observe: Observe, instruction: str, moment: Moment) -> np.ndarray:
        return np.tile(RIGHT * (moment.position == 0), (10, 1))


def test_the_rollout_loop_runs_a_chain_until_a_task_fails(simulator: CalvinSimulator) -> None:
    results = run_episode(simulator, PLAN, MovesRight(), max_steps=simulator.max_steps)
    assert [(r.task, r.success, r.num_steps) for r in results] == [
        ("open_drawer", True, 3),
        ("turn_on_led", False, 360),
    ]
    simulator.close()
