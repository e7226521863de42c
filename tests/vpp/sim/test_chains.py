"""The chains are the official ones, and every task of a chain can be done when its turn comes.

The expected values were printed by the official code (mees/calvin at commit fa03f01: `get_sequences(1000)` and
`get_env_state_for_initial_condition`, with the sources of pyhash 0.9.3), run outside the project.
"""

from __future__ import annotations

import hashlib
import json
from itertools import islice

import numpy as np
import pytest

from schemas.errors import UsageError
from vpp.sim import chains as chains_module
from vpp.sim.calvin_rules import BLOCKS, WAYS, Scene, after
from vpp.sim.calvin_scene import ROBOT_AT_REST, scene_obs
from vpp.sim.calvin_tasks import INSTRUCTIONS, KINDS
from vpp.sim.chains import chains_of, initial_scenes, is_legal, official_chains, plan_chains

CHAINS_SHA256 = "e9e212424cb0b39e3b4f8bfd5c806660e4fa4be67f947999c448ae85d2bef693"
SCENES_SHA256 = "1a25eaf9bb3f57459937b95423f2a673e277945064e5c09c9c7cb97b3ff87150"


def scene(led: str, lightbulb: str, slider: str, drawer: str, red: str, blue: str, pink: str) -> Scene:
    blocks = dict(zip(BLOCKS, (red, blue, pink), strict=True))
    return {"led": led, "lightbulb": lightbulb, "slider": slider, "drawer": drawer, **blocks}


FIRST_CHAINS = (
    (
        scene("on", "on", "left", "open", "slider_left", "table", "slider_right"),
        ("rotate_blue_block_right", "move_slider_right", "lift_red_block_slider", "place_in_slider", "turn_off_lightbulb"),
    ),
    (
        scene("on", "on", "right", "open", "slider_right", "table", "slider_left"),
        ("turn_off_led", "push_into_drawer", "lift_blue_block_drawer", "place_in_slider", "close_drawer"),
    ),
    (
        scene("off", "on", "right", "closed", "table", "slider_right", "slider_left"),
        ("lift_pink_block_slider", "place_in_slider", "open_drawer", "rotate_red_block_right", "lift_red_block_table"),
    ),
)  # fmt: skip
FIRST_BLOCKS = (
    (-0.240851662, 0.0924044687, 0.460990009, 0.0, 0.0, 1.8859410064104645),
    (0.229995412, -0.11999514, 0.45999001, 0.0, 0.0, 1.488143437705632),
    (0.070341633, 0.0924044687, 0.460990009, 0.0, 0.0, 1.4683986863194542),
)


def test_the_first_chains_are_among_those_drawn_for_their_scenes() -> None:
    scenes = initial_scenes()
    for begin, tasks in FIRST_CHAINS:
        number = scenes.index(begin)
        assert tasks in list(islice(chains_of(begin, number), 6 if number < 1000 % 192 else 5))


@pytest.mark.slow
def test_all_chains_are_the_official_ones_in_their_order() -> None:
    chains = official_chains()
    assert chains[:3] == FIRST_CHAINS
    assert hashlib.sha256(json.dumps(chains).encode()).hexdigest() == CHAINS_SHA256
    numbers = np.array([scene_obs(begin) for begin, _ in chains]).astype("<f8")
    assert hashlib.sha256(numbers.tobytes()).hexdigest() == SCENES_SHA256
    for begin, tasks in chains:
        now: Scene | None = begin
        for task in tasks:
            assert now is not None
            assert sum(way.is_open(now) for way in WAYS[task]) == 1
            now = after(now, task)
        assert len({KINDS[task] for task in tasks}) == 5
    plans = plan_chains(1000)
    assert [plan.number for plan in plans] == list(range(1000))
    assert (plans[2].scene, plans[2].tasks) == FIRST_CHAINS[2]


def test_no_more_chains_than_the_official_ones_and_fewer_are_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains_module, "official_chains", lambda: FIRST_CHAINS)
    assert [plan.tasks for plan in plan_chains(2)] == [tasks for _, tasks in FIRST_CHAINS[:2]]
    with pytest.raises(UsageError, match="--episodes: expected at most CALVIN's 1000 chains, found 1001"):
        plan_chains(1001)


def test_the_simulators_numbers_of_a_scene_are_the_official_ones() -> None:
    numbers = scene_obs(FIRST_CHAINS[0][0])
    assert numbers.tolist() == [0.28, 0.22, 0.0, 0.088, 1.0, 1.0, *FIRST_BLOCKS[0], *FIRST_BLOCKS[1], *FIRST_BLOCKS[2]]
    assert (ROBOT_AT_REST.shape, ROBOT_AT_REST[14]) == ((15,), 1.0)
    for begin in initial_scenes():  # no two blocks in one place
        assert len({tuple(scene_obs(begin)[at : at + 3]) for at in (6, 12, 18)}) == 3


def test_a_task_is_legal_where_its_scene_allows_it_in_exactly_one_way() -> None:
    begin = scene("off", "off", "right", "closed", "table", "table", "slider_left")
    assert after(begin, "turn_on_led") == {**begin, "led": "on"}
    assert after(begin, "turn_off_led") is None
    assert after(begin, "push_into_drawer") is None  # closed
    assert after(begin, "lift_pink_block_slider") == {**begin, "pink_block": "gripper"}
    assert after({**begin, "slider": "left"}, "lift_pink_block_slider") is None  # behind the door
    held = {**begin, "red_block": "gripper"}
    assert after(held, "open_drawer") is None  # the hand is full
    assert after(held, "stack_block") == {**held, "red_block": "stacked_top", "blue_block": "stacked_bottom"}
    assert after({**begin, "pink_block": "gripper"}, "stack_block") is None  # on which of the two?
    assert after(begin, "place_in_slider") is None  # nothing to place
    assert is_legal(begin, ("lift_red_block_table", "stack_block", "unstack_block"))
    assert not is_legal(begin, ("turn_on_led", "turn_on_lightbulb"))  # of one kind


def test_every_task_can_be_done_somewhere_and_a_block_is_one_thing_at_a_time() -> None:
    reached = {tuple(begin.items()) for begin in initial_scenes()}
    doable, frontier = set(), reached
    while frontier:
        following = set()
        for items in frontier:
            for task in INSTRUCTIONS:
                left = after(dict(items), task)
                if left is not None:
                    doable.add(task)
                    assert [left[block] for block in BLOCKS].count("gripper") <= 1
                    following.add(tuple(left.items()))
        frontier = following - reached
        reached |= frontier
    assert doable == set(INSTRUCTIONS)
