"""CALVIN as the rollout loop sees it: chains of tasks in environment D, by the official protocol.

Source: Mees et al. 2022 (arXiv 2112.03227), `calvin_env` at commit 797142c, and `evaluate_policy.py` of the official
repository at commit fa03f01: 360 actions a task, solved when the simulator's own judge says so after any of them.

Three things differ from the official loop. It renders both cameras at every step; here a picture is rendered when
someone looks, which changes no state and makes a step without a look dozens of times as fast. A chain begins there with
what the one before left in the simulator: contacts, the gripper's last command, a button held down; here nothing is
left, so that a chain is the same whichever process runs it and whatever came before. And actions outside [-1, 1], which
no data set holds, are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from schemas.shard import FRAME_SIZE_PX
from vpp.sim.calvin_rules import BLOCKS
from vpp.sim.calvin_scene import ROBOT_AT_REST, scene_obs
from vpp.sim.calvin_tasks import INSTRUCTIONS
from vpp.sim.calvin_world import open_world
from vpp.sim.simulator import EpisodePlan
from vpp.sim.stored_picture import StoredPicture

CAMERAS = ("rgb_static", "rgb_gripper")
"""Named as in the data set."""

PROPRIO_DIM = 15
"""`robot_obs`: tool position and Euler angles, gripper's opening, seven joints, gripper's last command."""

ACTION_DIM = 7
"""`rel_actions`: the tool's displacement in 2 cm and 0.05 rad, and the gripper, open where positive."""

MAX_STEPS = 360
CONTROL_HZ = 30.0

_NUM_WRONG_PICTURES = 2  # that a process draws first, of whatever camera: they are lit otherwise than all that follow
_FAR_AWAY = np.zeros(6 + 6 * len(BLOCKS))
_FAR_AWAY[6::6], _FAR_AWAY[8::6] = 10.0, 10.0 * (1 + np.arange(len(BLOCKS)))


class CalvinSimulator:
    """Implements `vpp.sim.simulator.Simulator`.

    Args:
        cameras: Names of `CAMERAS`.
        make: Gives the environment and its judge.
        frame_size: Height and width of what is observed, in pixels.
    """

    max_steps = MAX_STEPS
    control_hz = CONTROL_HZ

    def __init__(
        self,
        cameras: Sequence[str],
        make: Callable[[], tuple[Any, Any]] = open_world,
        frame_size: int = FRAME_SIZE_PX,
    ) -> None:
        self._env, self._judge = make()
        by_name = {f"rgb_{camera.name}": camera for camera in self._env.cameras}
        self._cameras = {name: by_name[name] for name in cameras}
        self._env.cameras = []  # it renders them all at every step
        # the environment asks for this order of contacts and forgets it when it loads its models
        self._env.p.setPhysicsEngineParameter(deterministicOverlappingPairs=1, physicsClientId=self._env.cid)
        for _ in range(_NUM_WRONG_PICTURES):
            by_name[CAMERAS[0]].render()
        self._stored = StoredPicture(frame_size)
        self._task, self._begun = "", None

    def reset(self, episode: EpisodePlan) -> None:
        """Lays out the scene that a chain begins with."""
        self.reset_to(ROBOT_AT_REST, scene_obs(episode.scene))

    def reset_to(self, robot: np.ndarray, scene: np.ndarray) -> None:
        """Sets the robot and the things.

        Args:
            robot: `robot_obs` of a frame, float64 `[15]`.
            scene: Its `scene_obs`, float64 `[24]`.
        """
        self._forget()
        self._env.reset(robot_obs=robot, scene_obs=scene)
        self._env.robot.gripper_action = int(robot[-1])

    def begin(self, task: str) -> str:
        """Begins a task from where the scene stands; returns the official instruction."""
        self._task, self._begun = task, self._env.get_info()
        return INSTRUCTIONS[task]

    def observe(self) -> dict[str, np.ndarray]:
        """Renders: `observation.images.<camera>` uint8 `[S, S, 3]` and `observation.state` float32 `[15]`."""
        seen = {f"observation.images.{name}": self._stored(picture) for name, picture in self.render().items()}
        return seen | {"observation.state": self._env.get_state_obs()["robot_obs"].astype(np.float32)}

    def render(self) -> dict[str, np.ndarray]:
        """One picture of each camera as the data set has it: uint8 `[200, 200, 3]` or `[84, 84, 3]`."""
        return {name: np.asarray(camera.render()[0]) for name, camera in self._cameras.items()}

    def step(self, action: np.ndarray) -> bool:
        """Applies an action `[7]`, cut to [-1, 1], the gripper to open or shut; returns whether the task is solved."""
        command = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        command[-1] = 1.0 if command[-1] > 0 else -1.0
        _, _, _, now = self._env.step(command)
        return bool(self._judge.get_task_info_for_set(self._begun, now, {self._task}))

    def expert_action(self) -> None:
        """CALVIN has no scripted expert."""

    def close(self) -> None:
        """Frees the simulation and its rendering context."""
        self._env.close()
        self._env.ownsPhysicsClient = False  # or it is closed again when it is forgotten

    def _forget(self) -> None:
        """Parts whatever touches, and releases what is held down.

        A step with the blocks far from everything and from each other empties Bullet's cache of contacts, which a
        reset to other places leaves as it is and with which the same scene would settle otherwise.
        """
        self._env.scene.reset(_FAR_AWAY)
        self._env.robot.reset(ROBOT_AT_REST)
        self._env.p.stepSimulation(physicsClientId=self._env.cid)
        for button in self._env.scene.buttons:
            button.prev_is_pressed = False
