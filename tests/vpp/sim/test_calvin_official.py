"""CALVIN's official simulator does through the adapter what the recorded data say, whatever ran before.

It is no package that the tests can install: `VPP_CALVIN_ENV` names a clone of mees/calvin_env, if it is not importable.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from running import run

from pipelines.sources.safe_pickle import load_pickled_npy
from schemas.errors import UsageError
from vpp.sim.calvin import CAMERAS, CalvinSimulator
from vpp.sim.calvin_scene import ROBOT_AT_REST, scene_obs
from vpp.sim.calvin_world import check_installed
from vpp.sim.chains import initial_scenes
from vpp.sim.evaluation_rows import finished_episodes, read_rows
from vpp.sim.simulator import EpisodePlan

pytestmark = pytest.mark.slow

CLONE = os.environ.get("VPP_CALVIN_ENV", "")
SEGMENTS = {
    "training": ("close_drawer", "turn_on_led", "move_slider_left", "open_drawer"),
    "validation": ("turn_on_led", "move_slider_right"),
}


@pytest.fixture(scope="module", autouse=True)
def official_code() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if CLONE:
            patch.syspath_prepend(CLONE)
            patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (CLONE, os.environ.get("PYTHONPATH")))))
        elif importlib.util.find_spec("calvin_env") is None:
            pytest.skip("calvin_env is not importable and VPP_CALVIN_ENV names no clone of it")
        try:
            check_installed()
        except UsageError as error:
            pytest.skip(str(error))
        yield


@pytest.fixture(scope="module")
def simulator(official_code: None) -> Iterator[CalvinSimulator]:
    simulator = CalvinSimulator(CAMERAS)
    yield simulator
    simulator.close()


def frame(shared_data: Path, split: str, number: int) -> dict[str, np.ndarray]:
    with np.load(shared_data / f"calvin_sim/task_sample/{split}/episode_{number:07d}.npz") as content:
        return dict(content)


@pytest.mark.parametrize("split", SEGMENTS)
def test_recorded_actions_solve_the_tasks_written_beside_them(
    simulator: CalvinSimulator, shared_data: Path, split: str
) -> None:
    annotations = shared_data / f"calvin_sim/task_sample/{split}/lang_annotations/auto_lang_ann.npy"
    content = load_pickled_npy(annotations.read_bytes(), str(annotations))
    assert tuple(content["language"]["task"]) == SEGMENTS[split]
    for (first, last), task in zip(content["info"]["indx"], SEGMENTS[split], strict=True):
        begin = frame(shared_data, split, first)
        simulator.reset_to(begin["robot_obs"], begin["scene_obs"])
        simulator.begin(task)
        pictures = simulator.render()
        for camera in CAMERAS:  # a frame amid an episode was recorded from a moving arm, and is set to one that rests
            assert np.abs(pictures[camera].astype(float) - begin[camera]).mean() < 2
        actions = [frame(shared_data, split, number)["rel_actions"] for number in range(first, last + 1)]
        assert any(simulator.step(action) for action in actions), task


@pytest.mark.parametrize("split", SEGMENTS)
def test_recorded_episodes_solve_their_tasks_in_a_row(
    simulator: CalvinSimulator, shared_data: Path, split: str
) -> None:
    folder = shared_data / f"calvin_sim/task_sample/{split}"
    annotations = load_pickled_npy((folder / "lang_annotations/auto_lang_ann.npy").read_bytes(), split)
    begins = [int(first) for first, _ in annotations["info"]["indx"]]
    tasks, solved = dict(zip(begins, SEGMENTS[split], strict=True)), []
    for first, last in np.load(folder / "ep_start_end_ids.npy"):
        begin = frame(shared_data, split, first)
        simulator.reset_to(begin["robot_obs"], begin["scene_obs"])
        for number in range(first, last + 1):
            if number in tasks:
                simulator.begin(tasks[number])
                is_solved = False
            if simulator.step(frame(shared_data, split, number)["rel_actions"]) and not is_solved:
                is_solved = True
                solved.append(max(start for start in begins if start <= number))
    assert solved == begins


def outcome(simulator: CalvinSimulator, number: int) -> bytes:
    """What a chain's scene looks like at first and after a hundred wild actions, to the last bit."""
    simulator.reset(EpisodePlan(number, ("open_drawer",), number, initial_scenes()[number]))
    simulator.begin("open_drawer")
    seen = list(simulator.render().values())
    random = np.random.default_rng(number)
    for _ in range(10):
        action = random.uniform(-1, 1, 7) - [0, 0, 0.3, 0, 0, 0, 0]
        for _ in range(10):
            simulator.step(action)
    return b"".join(array.tobytes() for array in (*seen, *simulator.observe().values()))


def test_a_chain_is_the_same_to_the_last_bit_whatever_came_before(simulator: CalvinSimulator) -> None:
    whole = outcome(simulator, 5)
    for other in (5, 100, 33):
        outcome(simulator, other)
        assert outcome(simulator, 5) == whole


def test_a_chain_begins_as_its_scene_says(simulator: CalvinSimulator) -> None:
    for number in (0, 77, 191):
        scene = initial_scenes()[number]
        simulator.reset(EpisodePlan(number, (), number, scene))
        state = simulator._env.get_state_obs()
        np.testing.assert_allclose(state["robot_obs"], ROBOT_AT_REST, atol=1e-3)
        np.testing.assert_allclose(state["scene_obs"][:6], scene_obs(scene)[:6], atol=5e-3)
        places = [slice(at, at + 3) for at in (6, 12, 18)]
        for place in places:
            np.testing.assert_allclose(state["scene_obs"][place], scene_obs(scene)[place], atol=5e-3)


def test_chains_are_evaluated_in_two_processes_with_the_rows_of_one(tmp_path: Path) -> None:
    arguments = ("--benchmark", "calvin", "--policy", "random", "--episodes", 3, "--max-steps", 20, "--videos", 3)
    rows = []
    for num_environments in (1, 2):
        output = tmp_path / str(num_environments)
        options = ("--num-environments", num_environments, "--output", output)
        code, printed = run("evaluate", *arguments, *options, cwd=tmp_path)
        assert code == 0, printed
        assert "average length of a chain" in printed
        found = read_rows(str(output), finished_episodes(str(output)))
        rows.append([(row.number, row.task, row.instruction, row.success, row.num_steps) for row in found])
        assert [chain["chain"] for chain in json.loads((output / "chains.json").read_text())] == [0, 1, 2]
    assert rows[0] == rows[1]
    for number in range(3):
        one, two = ((tmp_path / name / f"videos/{number:06d}.mp4").read_bytes() for name in ("1", "2"))
        assert one == two
