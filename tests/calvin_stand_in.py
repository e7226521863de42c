"""A stand-in for `calvin_env`: the parts of its interface that the adapter uses, without physics.

A tool moves as it is told. Any task is solved once the tool is 5 cm to the right of where the task began. What a chain
leaves behind shows: contacts push the tool a little at the next reset, until a step with the blocks apart parts them.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class StandInCamera:
    """Shows the tool's place as a brightness, but for the first two pictures of all, which are black."""

    def __init__(self, name: str, size_px: int, env: StandInPlayTable) -> None:
        self.name, self._size_px, self._env = name, size_px, env
        self.num_renderings = 0

    def render(self) -> tuple[np.ndarray, np.ndarray]:
        self.num_renderings += 1
        self._env.num_pictures += 1
        brightness = int(100 + 200 * self._env.tool[0]) if self._env.num_pictures > 2 else 0
        picture = np.full((self._size_px, self._size_px, 4), brightness, np.uint8)[..., :3]
        return picture, np.zeros((self._size_px, self._size_px))


class StandInButton:
    prev_is_pressed = False


class StandInScene:
    def __init__(self) -> None:
        self.buttons = [StandInButton()]
        self.numbers = np.zeros(24)

    def reset(self, scene_obs: np.ndarray) -> None:
        self.numbers = np.array(scene_obs)


class StandInRobot:
    def __init__(self) -> None:
        self.numbers, self.gripper_action = np.zeros(15), 1

    def reset(self, robot_obs: np.ndarray) -> None:
        self.numbers = np.array(robot_obs)  # not the gripper's last command, as in the original


class StandInPlayTable:
    """Stands in for `PlayTableSimEnv`, and for the physics client that it holds."""

    cid = 0

    def __init__(self) -> None:
        self.p = self
        self.scene, self.robot = StandInScene(), StandInRobot()
        self.cameras = [StandInCamera("static", 200, self), StandInCamera("gripper", 84, self)]
        self.ownsPhysicsClient, self.parameters = True, {}
        self.commands: list[np.ndarray] = []
        self.in_contact, self.num_pictures = False, 0

    @property
    def tool(self) -> np.ndarray:
        return self.robot.numbers[:3]

    def setPhysicsEngineParameter(self, physicsClientId: int, **parameters: Any) -> None:
        self.parameters |= parameters

    def stepSimulation(self, physicsClientId: int) -> None:
        heights = sorted(self.scene.numbers[8::6])
        if min(np.diff(heights)) > 1 and heights[0] > 1:
            self.in_contact = False

    def reset(self, robot_obs: np.ndarray, scene_obs: np.ndarray) -> None:
        self.scene.reset(scene_obs)
        self.robot.reset(robot_obs)
        self.robot.numbers[:3] += 0.001 * self.in_contact

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], int, bool, dict[str, Any]]:
        assert action[-1] in (-1, 1)
        self.commands.append(action)
        self.robot.numbers[:3] += 0.02 * action[:3]
        self.robot.gripper_action = int(action[-1])
        self.scene.buttons[0].prev_is_pressed = self.in_contact = True
        pictures = {f"rgb_{camera.name}": camera.render()[0] for camera in self.cameras}
        return {"rgb_obs": pictures}, 0, False, self.get_info()

    def get_info(self) -> dict[str, Any]:
        return {"tool": self.tool.copy()}

    def get_state_obs(self) -> dict[str, np.ndarray]:
        robot = np.append(self.robot.numbers[:-1], self.robot.gripper_action)
        return {"robot_obs": robot, "scene_obs": self.scene.numbers}

    def close(self) -> None:
        assert self.ownsPhysicsClient


class StandInJudge:
    """Stands in for `Tasks`."""

    def get_task_info_for_set(self, start: dict[str, Any], end: dict[str, Any], tasks: set[str]) -> set[str]:
        return tasks if end["tool"][0] - start["tool"][0] > 0.05 else set()


def open_stand_in() -> tuple[StandInPlayTable, StandInJudge]:
    """As `vpp.sim.calvin_world.open_world`."""
    return StandInPlayTable(), StandInJudge()
