"""How a chain's initial scene becomes the numbers that CALVIN's simulator is reset to.

Source: `get_env_state_for_initial_condition` in the official repository at commit fa03f01. Where the blocks lie on the
table and how they are turned is random there, with a seed that is a hash of the scene: FNV-1 with an offset of 0, over
the UTF-16 of the scene as Python prints it (so does `pyhash.fnv1_32` 0.9.3, which the official code calls).
"""

from __future__ import annotations

import math

import numpy as np

from vpp.sim.calvin_rules import BLOCKS, Scene

# fmt: off
ROBOT_AT_REST = np.array([
    0.02586889, -0.2313129, 0.5712808,      # tool, metres
    3.09045411, -0.02908596, 1.50013585,    # its Euler angles, radians
    0.07999963,                             # gripper's opening, metres
    -1.21779124, 1.03987629, 2.11978254, -2.34205014, -0.87015899, 1.64119093, 0.55344928,  # joints, radians
    1.0,                                    # gripper's last command: open
])
# fmt: on
"""The `robot_obs` that every chain begins with: float64 `[15]`."""

_DOOR_LEFT, _DRAWER_OPEN, _SWITCH_ON = 0.28, 0.22, 0.088
_IN_CABINET = {
    "slider_left": (-2.40851662e-01, 9.24044687e-02, 4.60990009e-01),
    "slider_right": (7.03416330e-02, 9.24044687e-02, 4.60990009e-01),
}
_ON_TABLE = (
    (5.00000896e-02, -1.20000177e-01, 4.59990009e-01),
    (2.29995412e-01, -1.19995140e-01, 4.59990010e-01),
)
_TURN = (math.pi / 2 - math.pi / 8, math.pi / 2 + math.pi / 8)


def scene_obs(scene: Scene) -> np.ndarray:
    """The `scene_obs` of an initial scene: float64 `[24]`.

    Door, drawer, button, switch, light bulb, LED; then each block's position in metres and Euler angles in radians.
    """
    random = np.random.RandomState(_hash(scene))
    spots = list(_ON_TABLE)
    random.shuffle(spots)
    spot_of = {"red_block": 0, "blue_block": 1 if scene["red_block"] == "table" else 0, "pink_block": 1}
    numbers = [
        _DOOR_LEFT if scene["slider"] == "left" else 0.0,
        _DRAWER_OPEN if scene["drawer"] == "open" else 0.0,
        0.0,
        _SWITCH_ON if scene["lightbulb"] == "on" else 0.0,
        float(scene["lightbulb"] == "on"),
        float(scene["led"] == "on"),
    ]
    for block in BLOCKS:
        place = scene[block]
        numbers += spots[spot_of[block]] if place == "table" else _IN_CABINET[place]
        numbers += [0.0, 0.0, random.uniform(*_TURN)]
    return np.array(numbers)


def _hash(scene: Scene) -> int:
    """32 bits."""
    lights = [int(scene[light] == "on") for light in ("led", "lightbulb")]
    places = [scene[thing] for thing in ("slider", "drawer", *BLOCKS)]
    printed = f"dict_values({[*lights, *places, 0]})"  # the last: nothing is grasped
    value = 0
    for byte in printed.encode("utf-16-le"):
        value = (value * 0x01000193) % 2**32 ^ byte
    return value
