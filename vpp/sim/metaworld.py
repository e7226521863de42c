"""MetaWorld's tasks as environments that render fast and upright.

Source: Yu et al. 2019 (arXiv 1910.10897), package `metaworld` 3.x on MuJoCo.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from vpp.sim.headless import choose_renderer
from vpp.sim.metaworld_tasks import check_task

CONTROL_HZ = 80.0
"""Actions, and pictures, a second: five of MuJoCo's steps of 2.5 ms each."""

MAX_STEPS = 500
"""MetaWorld's time limit of an episode."""

PROPRIO_NAMES = ("hand_x", "hand_y", "hand_z", "gripper_opening")
"""What the robot knows of itself: the first numbers of an observation. The hand in metres, the gripper from 0 to 1."""

PROPRIO_DIM = len(PROPRIO_NAMES)

ACTION_NAMES = ("move_x", "move_y", "move_z", "close_gripper")
"""An action in [-1, 1]: the hand's displacement in centimetres and the fingers' effort, positive closes."""

NEAR = "near"
"""A camera of ours: `corner2` moved to where it sees the table larger (the place is that of Seo et al., arXiv
2206.14244), without the coloured marks of goals: some tell what is to be done, and that of `reach-v3` where."""

CAMERAS = ("corner", "corner2", "corner3", "topview", "behindGripper", "gripperPOV", NEAR)
_ROLLED_CAMERAS = ("corner", "corner2", "corner3", NEAR)  # mounted upside down in MetaWorld's scenes
_NEAR_PLACE_M = (0.75, 0.075, 0.7)
SEEDS_PER_DRAW = 50
"""How many places of objects and goal `metaworld.MT1` draws at a time."""


class MetaWorldEnv:
    """One task with one or more cameras. What happens depends on the last seed and the actions since, on nothing else.

    Args:
        task: A name of `vpp.sim.metaworld_tasks.INSTRUCTIONS`.
        seed: Decides where objects and goal lie. Fifty seeds in a row come from one draw of MetaWorld, which is kept.
        cameras: Names of `CAMERAS`.
        image_size_px: Height and width of the pictures.
    """

    def __init__(self, task: str, seed: int, cameras: tuple[str, ...], image_size_px: int) -> None:
        check_task(task)
        self.task, self.cameras, self._seed = task, cameras, seed
        choose_renderer()
        draw = _draw(task, seed // SEEDS_PER_DRAW)
        self._env: Any = draw.train_classes[task](
            render_mode="rgb_array", camera_name=_mounted(cameras[0]), width=image_size_px, height=image_size_px
        )
        self._make_rendering_fast()

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Starts an episode, with another seed if one is given; returns MetaWorld's observation float64 `[39]`."""
        self._seed = self._seed if seed is None else seed
        number, place = divmod(self._seed, SEEDS_PER_DRAW)
        self._env.set_task(_draw(self.task, number).train_tasks[place])
        observation = np.asarray(self._env.reset()[0])
        _forward(self._env)
        return observation

    def step(self, action: np.ndarray) -> tuple[np.ndarray, bool]:
        """Applies an action `[4]` in [-1, 1]; returns the observation and whether the task is solved."""
        observation, _, _, _, info = self._env.step(action)
        return np.asarray(observation), bool(info["success"])

    def render(self) -> dict[str, np.ndarray]:
        """One upright picture of each camera: uint8 `[H, W, 3]`."""
        pictures = {}
        for camera in self.cameras:
            with self._near() if camera == NEAR else contextlib.nullcontext():
                self._env.mujoco_renderer.camera_id = self._env.model.camera(_mounted(camera)).id
                picture = self._env.render()
            pictures[camera] = np.ascontiguousarray(picture[::-1, ::-1] if camera in _ROLLED_CAMERAS else picture)
        return pictures

    def close(self) -> None:
        """Frees the rendering context."""
        self._env.close()

    @contextlib.contextmanager
    def _near(self) -> Iterator[None]:
        """Moves the camera and hides the marks for one picture; the simulation knows neither."""
        place, colours = self._env.data.cam_xpos[self._env.model.camera(_mounted(NEAR)).id], self._env.model.site_rgba
        kept_place, kept_colours = place.copy(), colours.copy()
        place[:], colours[:, 3] = _NEAR_PLACE_M, 0.0
        try:
            yield
        finally:
            place[:], colours[:] = kept_place, kept_colours

    def _make_rendering_fast(self) -> None:
        """Turns off multisampling and shadows, five times faster on a CPU; has to come before the first picture."""
        model = self._env.model
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0
        model.light_castshadow[:] = 0


def _forward(env: Any) -> None:
    """Brings what is drawn to where things are: some tasks move objects after MuJoCo has computed their places, and the
    first picture of an episode would show them where the last one left them."""
    import mujoco

    mujoco.mj_forward(env.model, env.data)


def _mounted(camera: str) -> str:
    """The camera's name in MetaWorld's scenes."""
    return "corner2" if camera == NEAR else camera


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
