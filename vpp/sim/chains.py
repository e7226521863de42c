"""CALVIN's 1,000 chains of five tasks, the same and in the same order as those that published numbers are of.

The official generator (`multistep_sequences.py` at commit fa03f01) shares the chains out among all scenes an episode
may begin with, draws five different tasks at a time until they are legal in that scene and of five kinds, each scene
with a generator of its own that its number seeds, and shuffles what it has found. These chains come from the same
draws: NumPy never changes what a `RandomState` gives.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from schemas.errors import UsageError
from vpp.sim.calvin_rules import BLOCKS, Scene, after
from vpp.sim.calvin_tasks import INSTRUCTIONS, KINDS
from vpp.sim.simulator import EpisodePlan

NUM_CHAINS = 1000
CHAIN_LENGTH = 5

_TASKS = tuple(INSTRUCTIONS)
_KINDS = np.unique([KINDS[task] for task in _TASKS], return_inverse=True)[1]
_DRAWS_AT_A_TIME = 4096
_SHUFFLE_SEED = 0


def plan_chains(num_chains: int) -> list[EpisodePlan]:
    """The first chains; the whole benchmark takes 1,000.

    Raises:
        UsageError: If there are not so many.
    """
    if num_chains > NUM_CHAINS:
        raise UsageError(f"--episodes: expected at most CALVIN's {NUM_CHAINS} chains, found {num_chains}")
    chains = official_chains()[:num_chains]
    return [EpisodePlan(number, tasks, number, scene) for number, (scene, tasks) in enumerate(chains)]


@lru_cache(maxsize=1)
def official_chains() -> tuple[tuple[Scene, tuple[str, ...]], ...]:
    """Initial scene and tasks of each chain. It takes some ten seconds: one draw in 7,000 is a chain."""
    scenes = initial_scenes()
    few, more = divmod(NUM_CHAINS, len(scenes))
    chains = [
        (scene, tasks)
        for number, scene in enumerate(scenes)
        for tasks in itertools.islice(chains_of(scene, number), few + (number < more))
    ]
    return tuple(chains[place] for place in np.random.RandomState(_SHUFFLE_SEED).permutation(NUM_CHAINS))


def initial_scenes() -> list[Scene]:
    """All that a chain may begin with: one or two blocks on the table, each of the others on a side of the cabinet.

    >>> len(initial_scenes())
    192
    """
    states = {
        "led": ("off", "on"),
        "lightbulb": ("off", "on"),
        "slider": ("right", "left"),
        "drawer": ("closed", "open"),
        **dict.fromkeys(BLOCKS, ("table", "slider_right", "slider_left")),
    }
    scenes = [dict(zip(states, combination, strict=True)) for combination in itertools.product(*states.values())]
    return [scene for scene in scenes if _is_initial([scene[block] for block in BLOCKS])]


def _is_initial(places: Sequence[str]) -> bool:
    return places.count("table") in (1, 2) and places.count("slider_right") < 2 and places.count("slider_left") < 2


def chains_of(scene: Scene, seed: int) -> Iterator[tuple[str, ...]]:
    """Draws chains without end for a scene."""
    random = np.random.RandomState(seed)
    can_begin = np.array([after(scene, task) is not None for task in _TASKS])
    while True:
        draws = np.tile(np.arange(len(_TASKS)), (_DRAWS_AT_A_TIME, 1))
        for draw in draws:
            random.shuffle(draw)
        heads = draws[:, :CHAIN_LENGTH]
        kinds = np.sort(_KINDS[heads], axis=1)
        hopeful = can_begin[heads[:, 0]] & np.all(kinds[:, 1:] != kinds[:, :-1], axis=1)
        for head in heads[hopeful]:
            tasks = tuple(_TASKS[place] for place in head)
            if is_legal(scene, tasks):
                yield tasks


def is_legal(scene: Scene, tasks: Sequence[str]) -> bool:
    """Whether tasks of different kinds can be done one after another, each in exactly one way."""
    for task in tasks:
        following = after(scene, task)
        if following is None:
            return False
        scene = following
    return len({KINDS[task] for task in tasks}) == len(tasks)
