"""Which features of an Open X-Embodiment dataset are pictures, instruction, action and state.

The registry holds the sets that arXiv 2412.14803 trains on, by their TFDS names. Keys and shapes are those of the TFDS
catalogue (tensorflow.org/datasets/catalog: `bridge`, `bc_z`, `taco_play`, `jaco_play`), of `features.json` of
`bridge_dataset`, and of Octo (octo-models/octo, `octo/data/oxe/oxe_dataset_configs.py` and
`oxe_standardization_transforms.py`: which action and state features, and that only the first of the ten future steps
of BC-Z is taken). Values are as recorded: no gripper is inverted and none made absolute. Control rates are those of
RDT (thu-ml/RoboticsDiffusionTransformer, `configs/dataset_control_freq.json`). For any other set a mapping is found
from `features.json`, or from an episode.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines.sources.tf_example import Value
from schemas.errors import UsageError

OBSERVATION = "steps/observation/"
_COLOUR_TYPES = (b"\x02", b"\x03", b"\x06")  # RGB, palette, RGBA: byte 25 of a PNG
_TEXT_TYPES = ("string", "object", "bytes")
_STATE = (f"{OBSERVATION}state", f"{OBSERVATION}proprio")


@dataclass(frozen=True)
class Column:
    """A numeric feature.

    Attributes:
        key: Its flattened name.
        size: How many numbers it has at each step, 0 if unknown.
        width: Only its first `width` numbers of each step are taken, 0 for all.
    """

    key: str
    size: int = 0
    width: int = 0


@dataclass(frozen=True)
class Mapping:
    """Flattened feature names, and the control rate in Hz (0 if unknown)."""

    images: tuple[str, ...] = ()
    instruction: str = ""
    action: tuple[Column, ...] = ()
    state: tuple[Column, ...] = ()
    control_hz: float = 0.0


_NATURAL = f"{OBSERVATION}natural_language_instruction"
_BRIDGE_V2 = Mapping(
    images=tuple(f"{OBSERVATION}image_{number}" for number in range(4)),
    instruction="steps/language_instruction",
    action=(Column("steps/action", 7),),
    state=(Column(f"{OBSERVATION}state", 7),),
    control_hz=5.0,
)
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
        control_hz=3.0,
    ),
    "bridge_dataset": _BRIDGE_V2,  # the authors' own, newer copy; OpenVLA calls it bridge_orig
    "bridge_orig": _BRIDGE_V2,
    "bridge": Mapping(  # the copy that Open X-Embodiment publishes
        images=(f"{OBSERVATION}image",),
        instruction=_NATURAL,
        action=(
            Column("steps/action/world_vector", 3),
            Column("steps/action/rotation_delta", 3),
            Column("steps/action/open_gripper", 1),
        ),
        state=(Column(f"{OBSERVATION}state", 7),),
        control_hz=5.0,
    ),
    "bc_z": Mapping(
        images=(f"{OBSERVATION}image",),
        instruction=_NATURAL,
        action=(
            Column("steps/action/future/xyz_residual", 30, 3),
            Column("steps/action/future/axis_angle_residual", 30, 3),
            Column("steps/action/future/target_close", 10, 1),
        ),
        state=(
            Column(f"{OBSERVATION}present/xyz", 3),
            Column(f"{OBSERVATION}present/axis_angle", 3),
            Column(f"{OBSERVATION}present/sensed_close", 1),
        ),
        control_hz=10.0,
    ),
    "taco_play": Mapping(
        images=(f"{OBSERVATION}rgb_static", f"{OBSERVATION}rgb_gripper"),
        instruction=_NATURAL,
        action=(Column("steps/action/rel_actions_world", 7),),
        state=(Column(f"{OBSERVATION}robot_obs", 15),),
        control_hz=15.0,
    ),
    "jaco_play": Mapping(
        images=(f"{OBSERVATION}image", f"{OBSERVATION}image_wrist"),
        instruction=_NATURAL,
        action=(Column("steps/action/world_vector", 3), Column("steps/action/gripper_closedness_action", 1)),
        state=(Column(f"{OBSERVATION}end_effector_cartesian_pos", 7),),
        control_hz=10.0,
    ),
}


def find_mapping(features: dict[str, Any], name: str = "") -> Mapping:
    """Finds a mapping from `features.json`: the registry's, if the file names all of it, or else by name and kind.

    By kind: every colour image, the shortest text named instruction, `action`, `state`.

    Args:
        features: The parsed file.
        name: The TFDS name.
    """
    leaves = leaves_of(features)
    known = REGISTRY.get(name)
    if known and leaves.keys() >= set(keys_of(known)):
        return known
    images = sorted(key for key, leaf in leaves.items() if _is_colour_image(leaf) and key.startswith(OBSERVATION))
    texts = [key for key, leaf in leaves.items() if "text" in leaf or _dtype(leaf) in _TEXT_TYPES]
    numbers = [key for key, leaf in leaves.items() if "tensor" in leaf and _is_plain_number(leaf)]
    return _by_name(images, texts, numbers, known.control_hz if known else 0.0)


def guess_mapping(example: dict[str, Value]) -> Mapping:
    """Guesses a mapping from one episode, by what looks like pictures, a text and numbers.

    Args:
        example: The parsed episode.
    """
    lists = {key: value for key, value in example.items() if isinstance(value, list) and value}
    images = sorted(key for key, value in lists.items() if key.startswith(OBSERVATION) and _looks_coloured(value[0]))
    numbers = {key: len(value) for key, value in example.items() if isinstance(value, np.ndarray) and len(value)}
    found = _by_name(images, list(lists.keys() - set(images)), list(numbers), 0.0)
    num_steps = len(lists[images[0]]) if images else 1

    def sized(columns: tuple[Column, ...]) -> tuple[Column, ...]:
        return tuple(replace(column, size=numbers[column.key] // num_steps) for column in columns)

    return replace(found, action=sized(found.action), state=sized(found.state))


def with_sizes(mapping: Mapping, features: dict[str, Any]) -> Mapping:
    """Notes how many numbers a step has by `features.json`, so that an episode of another length is noticed."""
    leaves = leaves_of(features)

    def sized(columns: tuple[Column, ...]) -> tuple[Column, ...]:
        return tuple(replace(column, size=_size(leaves.get(column.key, {}))) for column in columns)

    return replace(mapping, action=sized(mapping.action), state=sized(mapping.state))


def override(mapping: Mapping, images: str, instruction: str, action: str, state: str, control_hz: float) -> Mapping:
    """Puts the user's keys, comma-separated and relative to `steps/`, in the place of found ones."""
    changes: dict[str, Any] = {}
    if images:
        changes["images"] = tuple(_below_steps(key) for key in images.split(","))
    if instruction:
        changes["instruction"] = _below_steps(instruction)
    for field, keys in (("action", action), ("state", state)):
        if keys:
            changes[field] = tuple(Column(_below_steps(key)) for key in keys.split(","))
    if control_hz:
        changes["control_hz"] = control_hz
    return replace(mapping, **changes)


def keys_of(mapping: Mapping) -> list[str]:
    """Every feature that a mapping names."""
    columns = [column.key for column in (*mapping.action, *mapping.state)]
    return [key for key in (*mapping.images, mapping.instruction, *columns) if key]


def leaves_of(features: Any) -> dict[str, dict[str, Any]]:
    """Every feature of `features.json` that is no dictionary, by the name that TFDS flattens it to.

    Raises:
        UsageError: If it is no `features.json`.
    """
    if not isinstance(features, dict):
        raise UsageError(f"expected features.json as TFDS writes it, found a {type(features).__name__}")
    try:
        return dict(_leaves(features, ""))
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"expected features.json as TFDS writes it: {error}") from error


def _leaves(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if "featuresDict" in node:
        for name, child in node["featuresDict"].get("features", {}).items():
            yield from _leaves(child, f"{path}/{name}".lstrip("/"))
    elif "sequence" in node and path == "steps":
        yield from _leaves(node["sequence"].get("feature", {}), path)
    elif "sequence" in node:
        yield path, {}  # a list within a step: of no fixed size
    elif path:
        yield path, dict(node)


def _by_name(images: list[str], texts: list[str], numbers: list[str], control_hz: float) -> Mapping:
    texts = [key for key in texts if key.startswith("steps/") and "instruction" in key]
    action = [key for key in numbers if key == "steps/action" or key.startswith("steps/action/")]
    columns = tuple(Column(key) for key in sorted(action) if "terminate" not in key)
    state = tuple(Column(key) for key in sorted(numbers) if key in _STATE)
    instruction = min(texts, key=lambda key: (len(key), key), default="")
    return Mapping(tuple(images), instruction, columns, state, control_hz)


def _below_steps(key: str) -> str:
    key = key.strip()
    return key if key.startswith("steps/") else f"steps/{key}"


def _dtype(leaf: dict[str, Any]) -> str:
    """The type of a tensor: many Open-X sets keep their instruction as a string tensor and not as a text."""
    return str(_inside(leaf, "tensor").get("dtype", ""))


def _is_plain_number(leaf: dict[str, Any]) -> bool:
    """Whether a tensor is stored as numbers; with an encoding (`zlib`, `bytes`) it is stored as bytes."""
    encoding = _inside(leaf, "tensor").get("encoding", "none")
    return _dtype(leaf) not in _TEXT_TYPES and str(encoding).lower() == "none"


def _dimensions(leaf: dict[str, Any], kind: str) -> list[str]:
    dimensions = _inside(leaf, kind, "shape").get("dimensions")
    return [str(size) for size in dimensions] if isinstance(dimensions, list) else []


def _inside(leaf: dict[str, Any], *names: str) -> dict[str, Any]:
    """The object at a path of names; empty where the file has none or something else there."""
    for name in names:
        inner = leaf.get(name)
        leaf = inner if isinstance(inner, dict) else {}
    return leaf


def _is_colour_image(leaf: dict[str, Any]) -> bool:
    return _dimensions(leaf, "image")[-1:] == ["3"]


def _size(leaf: dict[str, Any]) -> int:
    """Numbers of one step; 0 for a tensor of unknown shape or what is no tensor."""
    sizes = _dimensions(leaf, "tensor")
    return (
        math.prod(map(int, sizes))
        if "tensor" in leaf and all(size.isdecimal() and len(size) < 10 for size in sizes)
        else 0
    )


def _looks_coloured(content: memoryview) -> bool:
    """Whether bytes begin like a JPEG or like a PNG of a colour type; depth is often a grey PNG."""
    head = bytes(content[:26])
    return head.startswith(b"\xff\xd8\xff") or (head.startswith(b"\x89PNG\r\n\x1a\n") and head[25:] in _COLOUR_TYPES)
