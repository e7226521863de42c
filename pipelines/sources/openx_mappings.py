"""Which features of an Open X-Embodiment dataset are pictures, instruction, action and state.

The registry holds the sets that arXiv 2412.14803 trains on, by their TFDS names. Keys and control rates are those of
the datasets' `features.json` and of Octo's dataset configurations (octo-models/octo, `octo/data/oxe`, and Octo's
standardisation transforms). For any other set a mapping is found from `features.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from schemas.errors import UsageError

OBSERVATION = "steps/observation/"


@dataclass(frozen=True)
class Column:
    """A numeric feature; only its first `width` numbers of each step are taken, 0 for all."""

    key: str
    width: int = 0


@dataclass(frozen=True)
class Mapping:
    """Feature names below `steps/`, and the control rate in Hz (0 if unknown)."""

    images: tuple[str, ...] = ()
    instruction: str = ""
    action: tuple[Column, ...] = ()
    state: tuple[Column, ...] = ()
    fps: float = 0.0


_NATURAL = f"{OBSERVATION}natural_language_instruction"
REGISTRY = {
    "fractal20220817_data": Mapping(
        images=(f"{OBSERVATION}image",),
        instruction=_NATURAL,
        action=(
            Column("steps/action/world_vector", 3),
            Column("steps/action/rotation_delta", 3),
            Column("steps/action/gripper_closedness_action", 1),
        ),
        state=(Column(f"{OBSERVATION}base_pose_tool_reached", 7), Column(f"{OBSERVATION}gripper_closed", 1)),
        fps=3.0,
    ),
    "bridge_dataset": Mapping(
        images=tuple(f"{OBSERVATION}image_{number}" for number in range(4)),
        instruction="steps/language_instruction",
        action=(Column("steps/action", 7),),
        state=(Column(f"{OBSERVATION}state", 7),),
        fps=5.0,
    ),
    "bc_z": Mapping(
        images=(f"{OBSERVATION}image",),
        instruction=_NATURAL,
        action=(
            Column("steps/action/future/xyz_residual", 3),
            Column("steps/action/future/axis_angle_residual", 3),
            Column("steps/action/future/target_close", 1),
        ),
        state=(
            Column(f"{OBSERVATION}present/xyz", 3),
            Column(f"{OBSERVATION}present/axis_angle", 3),
            Column(f"{OBSERVATION}present/sensed_close", 1),
        ),
        fps=10.0,
    ),
    "taco_play": Mapping(
        images=(f"{OBSERVATION}rgb_static", f"{OBSERVATION}rgb_gripper"),
        instruction=_NATURAL,
        action=(Column("steps/action/rel_actions_world", 7),),
        state=(Column(f"{OBSERVATION}robot_obs", 15),),
        fps=15.0,
    ),
    "jaco_play": Mapping(
        images=(f"{OBSERVATION}image", f"{OBSERVATION}image_wrist"),
        instruction=_NATURAL,
        action=(Column("steps/action/world_vector", 3), Column("steps/action/gripper_closedness_action", 1)),
        state=(Column(f"{OBSERVATION}end_effector_cartesian_pos", 7),),
        fps=10.0,
    ),
}


def find_mapping(features: dict[str, Any]) -> Mapping:
    """Finds a mapping from `features.json`: every colour image, the first instruction text, `action`, `state`.

    Args:
        features: The parsed file.

    Raises:
        UsageError: If it names no image below `steps/`.
    """
    found = dict(_leaves(features, ""))
    images = sorted(name for name, leaf in found.items() if _is_colour_image(leaf) and name.startswith(OBSERVATION))
    texts = sorted((name for name, leaf in found.items() if "text" in leaf), key=lambda name: (len(name), name))
    instruction = next((name for name in texts if name.startswith("steps/") and "instruction" in name), "")
    numeric = sorted(name for name, leaf in found.items() if "tensor" in leaf)
    action = [name for name in numeric if name == "steps/action" or name.startswith("steps/action/")]
    state = [name for name in numeric if name in (f"{OBSERVATION}state", f"{OBSERVATION}proprio")]
    if not images:
        raise UsageError("features.json names no colour image below steps/observation/; give #images=KEY,...")
    columns = tuple(Column(name) for name in action if "terminate" not in name)
    return Mapping(tuple(images), instruction, columns, tuple(Column(name) for name in state))


def override(mapping: Mapping, images: str, instruction: str, action: str, state: str, fps: float) -> Mapping:
    """Puts the user's keys, comma-separated and relative to `steps/`, in the place of found ones."""
    changes: dict[str, Any] = {}
    if images:
        changes["images"] = tuple(_below_steps(key) for key in images.split(","))
    if instruction:
        changes["instruction"] = _below_steps(instruction)
    for name, keys in (("action", action), ("state", state)):
        if keys:
            changes[name] = tuple(Column(_below_steps(key)) for key in keys.split(","))
    if fps:
        changes["fps"] = fps
    return replace(mapping, **changes)


def _below_steps(key: str) -> str:
    return key if key.startswith("steps/") else f"steps/{key}"


def _leaves(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every feature that is no dictionary, by the path that TFDS flattens it to."""
    if not isinstance(node, dict):
        return
    if "featuresDict" in node:
        for name, child in node["featuresDict"].get("features", {}).items():
            yield from _leaves(child, f"{path}/{name}".lstrip("/"))
    elif "sequence" in node:
        yield from _leaves(node["sequence"].get("feature"), path)
    else:
        yield path, node


def _is_colour_image(leaf: dict[str, Any]) -> bool:
    dimensions = leaf.get("image", {}).get("shape", {}).get("dimensions", [])
    return bool(dimensions) and str(dimensions[-1]) == "3"
