"""What each of CALVIN's tasks needs of the scene and what it leaves, so that a chain of tasks can be told legal.

Source: the table in `multistep_sequences.py` of the official repository at commit fa03f01. It is kept to the letter,
so that chains are the official ones, also where it looks odd: a block placed in the cabinet lies on the side where the
door stands, and is lifted from the other side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vpp.sim.calvin_tasks import INSTRUCTIONS

Scene = Mapping[str, str]
"""Where each thing is or how it stands, such as `{"drawer": "open", "red_block": "table", ...}`."""

BLOCKS = ("red_block", "blue_block", "pink_block")
_HELD = "gripper"


@dataclass(frozen=True)
class Way:
    """One way to do a task.

    Attributes:
        needs: Which states of things it can begin with.
        leaves: What things are afterwards; others stay as they are.
    """

    needs: Mapping[str, tuple[str, ...]]
    leaves: Scene

    def is_open(self, scene: Scene) -> bool:
        """Whether the scene has what it needs. What needs no block in the gripper needs an empty one."""
        is_holding = _HELD in scene.values()
        needs_holding = (_HELD,) in self.needs.values()
        return is_holding == needs_holding and all(scene[thing] in states for thing, states in self.needs.items())


def after(scene: Scene, task: str) -> Scene | None:
    """The scene when a task has been done; None where it cannot be, or not in exactly one way.

    >>> after({"drawer": "closed"}, "open_drawer")
    {'drawer': 'open'}
    >>> after({"drawer": "open"}, "open_drawer")
    """
    open_ways = [way for way in WAYS[task] if way.is_open(scene)]
    return {**scene, **open_ways[0].leaves} if len(open_ways) == 1 else None


def _ways() -> dict[str, tuple[Way, ...]]:
    ways: dict[str, list[Way]] = {task: [] for task in INSTRUCTIONS}

    def add(task: str, needs: Mapping[str, str | tuple[str, ...]], leaves: Scene) -> None:
        ways[task].append(Way({thing: (s,) if isinstance(s, str) else s for thing, s in needs.items()}, leaves))

    add("move_slider_left", {"slider": "right"}, {"slider": "left"})
    add("move_slider_right", {"slider": "left"}, {"slider": "right"})
    add("open_drawer", {"drawer": "closed"}, {"drawer": "open"})
    add("close_drawer", {"drawer": "open"}, {"drawer": "closed"})
    for light in ("lightbulb", "led"):
        add(f"turn_on_{light}", {light: "off"}, {light: "on"})
        add(f"turn_off_{light}", {light: "on"}, {light: "off"})
    for block in BLOCKS:
        others = [other for other in BLOCKS if other != block]
        for side in ("left", "right"):
            add(f"rotate_{block}_{side}", {block: "table"}, {})
            add(f"push_{block}_{side}", {block: "table"}, {})
            add("place_in_slider", {block: _HELD, "slider": side}, {block: f"slider_{side}"})
        add(f"lift_{block}_table", {block: "table"}, {block: _HELD})
        add(f"lift_{block}_slider", {block: "slider_left", "slider": "right"}, {block: _HELD})
        add(f"lift_{block}_slider", {block: "slider_right", "slider": "left"}, {block: _HELD})
        add(f"lift_{block}_drawer", {block: "drawer", "drawer": "open"}, {block: _HELD})
        add("place_in_drawer", {block: _HELD, "drawer": "open"}, {block: "drawer"})
        hidden = dict.fromkeys(others, ("slider_left", "slider_right"))
        add("push_into_drawer", {block: "table", "drawer": "open", **hidden}, {block: "drawer"})
        for other in others:
            add("stack_block", {block: _HELD, other: "table"}, {block: "stacked_top", other: "stacked_bottom"})
            add("unstack_block", {block: "stacked_top", other: "stacked_bottom"}, {block: "table", other: "table"})
    return {task: tuple(found) for task, found in ways.items()}


WAYS = _ways()
"""By task."""
