"""MetaWorld's 50 tasks as environments that render fast and upright, each with an instruction in words.

Source: Yu et al. 2019 (arXiv 1910.10897), package `metaworld` 3.x on MuJoCo.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from schemas.errors import UsageError

CONTROL_HZ = 80.0
"""Actions, and pictures, a second: five of MuJoCo's steps of 2.5 ms each."""

MAX_STEPS = 500
"""MetaWorld's time limit of an episode."""

PROPRIO_NAMES = ("hand_x", "hand_y", "hand_z", "gripper_opening")
"""What the robot knows of itself: the first numbers of an observation. The hand in metres, the gripper from 0 to 1."""

PROPRIO_DIM = len(PROPRIO_NAMES)

ACTION_NAMES = ("move_x", "move_y", "move_z", "close_gripper")
"""An action in [-1, 1]: the hand's displacement in centimetres and the fingers' effort, positive closes."""

CAMERAS = ("corner", "corner2", "corner3", "topview", "behindGripper", "gripperPOV")
_ROLLED_CAMERAS = ("corner", "corner2", "corner3")  # mounted upside down in MetaWorld's scenes
SEEDS_PER_DRAW = 50
"""How many places of objects and goal `metaworld.MT1` draws at a time."""

INSTRUCTIONS = {
    "assembly-v3": "put the ring on the peg",
    "basketball-v3": "drop the ball into the basket",
    "bin-picking-v3": "move the block to the other bin",
    "box-close-v3": "put the lid on the box",
    "button-press-topdown-v3": "press the button from above",
    "button-press-topdown-wall-v3": "press the button behind the wall from above",
    "button-press-v3": "press the button",
    "button-press-wall-v3": "press the button behind the wall",
    "coffee-button-v3": "press the button of the coffee machine",
    "coffee-pull-v3": "pull the mug away from the coffee machine",
    "coffee-push-v3": "push the mug under the coffee machine",
    "dial-turn-v3": "turn the dial",
    "disassemble-v3": "take the ring off the peg",
    "door-close-v3": "close the door",
    "door-lock-v3": "lock the door",
    "door-open-v3": "open the door",
    "door-unlock-v3": "unlock the door",
    "drawer-close-v3": "close the drawer",
    "drawer-open-v3": "open the drawer",
    "faucet-close-v3": "close the faucet",
    "faucet-open-v3": "open the faucet",
    "hammer-v3": "hammer the nail in",
    "hand-insert-v3": "put the hand into the hole",
    "handle-press-side-v3": "press the handle down from the side",
    "handle-press-v3": "press the handle down",
    "handle-pull-side-v3": "pull the handle up from the side",
    "handle-pull-v3": "pull the handle up",
    "lever-pull-v3": "pull the lever up",
    "peg-insert-side-v3": "insert the peg into the side hole",
    "peg-unplug-side-v3": "unplug the peg from the side",
    "pick-out-of-hole-v3": "pick the block out of the hole",
    "pick-place-v3": "pick up the block and move it to the goal",
    "pick-place-wall-v3": "pick up the block and move it over the wall to the goal",
    "plate-slide-back-side-v3": "slide the plate back out sideways",
    "plate-slide-back-v3": "slide the plate back out of the goal",
    "plate-slide-side-v3": "slide the plate sideways into the goal",
    "plate-slide-v3": "slide the plate into the goal",
    "push-back-v3": "push the block back to the goal",
    "push-v3": "push the block to the goal",
    "push-wall-v3": "push the block around the wall to the goal",
    "reach-v3": "reach the goal",
    "reach-wall-v3": "reach the goal behind the wall",
    "shelf-place-v3": "put the block on the shelf",
    "soccer-v3": "kick the ball into the goal",
    "stick-pull-v3": "pull the thermos with the stick",
    "stick-push-v3": "push the thermos with the stick",
    "sweep-into-v3": "sweep the block into the hole",
    "sweep-v3": "sweep the block off the table",
    "window-close-v3": "close the window",
    "window-open-v3": "open the window",
}


def check_task(task: str) -> None:
    """Raises `UsageError` for a task that MetaWorld does not have."""
    if task not in INSTRUCTIONS:
        raise UsageError(f"--tasks: unknown MetaWorld task {task!r}; known: {', '.join(INSTRUCTIONS)}")


class MetaWorldEnv:
    """One task with one or more cameras. What happens depends on the last seed and the actions since, on nothing else.

    Args:
        task: A name of `INSTRUCTIONS`.
        seed: Decides where objects and goal lie. Fifty seeds in a row come from one draw of MetaWorld, which is kept.
        cameras: Names of `CAMERAS`.
        image_size_px: Height and width of the pictures.
    """

    def __init__(self, task: str, seed: int, cameras: tuple[str, ...], image_size_px: int) -> None:
        check_task(task)
        self.task, self.cameras, self._seed = task, cameras, seed
        _choose_renderer()
        draw = _draw(task, seed // SEEDS_PER_DRAW)
        self._env: Any = draw.train_classes[task](
            render_mode="rgb_array", camera_name=cameras[0], width=image_size_px, height=image_size_px
        )
        self._make_rendering_fast()

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Starts an episode, with another seed if one is given; returns MetaWorld's observation float64 `[39]`."""
        self._seed = self._seed if seed is None else seed
        number, place = divmod(self._seed, SEEDS_PER_DRAW)
        self._env.set_task(_draw(self.task, number).train_tasks[place])
        return np.asarray(self._env.reset()[0])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, bool]:
        """Applies an action `[4]` in [-1, 1]; returns the observation and whether the task is solved."""
        observation, _, _, _, info = self._env.step(action)
        return np.asarray(observation), bool(info["success"])

    def render(self) -> dict[str, np.ndarray]:
        """One upright picture of each camera: uint8 `[H, W, 3]`."""
        pictures = {}
        for camera in self.cameras:
            self._env.mujoco_renderer.camera_id = self._env.model.camera(camera).id
            picture = self._env.render()
            pictures[camera] = np.ascontiguousarray(picture[::-1, ::-1] if camera in _ROLLED_CAMERAS else picture)
        return pictures

    def close(self) -> None:
        """Frees the rendering context."""
        self._env.close()

    def _make_rendering_fast(self) -> None:
        """Turns off multisampling and shadows, five times faster on a CPU; has to come before the first picture."""
        model = self._env.model
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0
        model.light_castshadow[:] = 0


def expert(task: str) -> Any:
    """MetaWorld's scripted policy of a task; `get_action(observation)` gives an action `[4]`."""
    from metaworld.policies import ENV_POLICY_MAP

    return ENV_POLICY_MAP[task]()


@contextlib.contextmanager
def environment(task: str, seed: int, cameras: tuple[str, ...], image_size_px: int) -> Iterator[MetaWorldEnv]:
    """A `MetaWorldEnv` that is closed at the end, and the simulator's routine warnings silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = MetaWorldEnv(task, seed, cameras, image_size_px)
        try:
            yield env
        finally:
            env.close()


@lru_cache(maxsize=4)
def _draw(task: str, number: int) -> Any:
    """MetaWorld's single-task benchmark, with `SEEDS_PER_DRAW` places of objects and goal."""
    import metaworld

    return metaworld.MT1(task, seed=number)


def _choose_renderer() -> None:
    """Without a display, renders through EGL; has to come before MuJoCo is imported."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("MUJOCO_GL", "egl")
