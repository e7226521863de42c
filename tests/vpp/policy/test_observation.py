"""A policy takes LeRobot's observations, and says what is wrong with others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vpp.policy.observation import ObservationError, check_observation


def observation(**changes: Any) -> dict[str, Any]:
    image = np.zeros((2, 256, 256, 3), np.uint8)
    values = {
        "observation.images.front": image, "observation.images.wrist": image + 1,
        "observation.state": np.zeros((2, 3), np.float32), "task": ["push", "pull"],
    }  # fmt: skip
    return values | changes


def test_views_are_in_the_order_of_the_policy() -> None:
    seen = check_observation(observation(), ("wrist", "front"), proprio_dim=3)
    assert seen.frames.shape == (2, 2, 256, 256, 3)
    assert seen.frames[:, 0].unique().tolist() == [1]
    assert seen.tasks == ("push", "pull")


def test_a_float_picture_is_the_same_as_its_bytes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)
    floats = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    changed = observation(**{"observation.images.front": floats})
    assert np.array_equal(check_observation(changed, ("front",), 0).frames[:, 0].numpy(), pixels)


def test_one_observation_needs_no_batch_axis() -> None:
    values = {
        "observation.images.front": np.zeros((256, 256, 3), np.uint8), "observation.state": np.ones(3), "task": "push",
    }  # fmt: skip
    seen = check_observation(values, ("front",), proprio_dim=3)
    assert (tuple(seen.frames.shape), seen.tasks) == ((1, 1, 256, 256, 3), ("push",))
    assert seen.proprio is not None
    assert seen.proprio.tolist() == [[1.0, 1.0, 1.0]]


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in observation().items() if name != key}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (without("observation.images.wrist"), "observation.images.wrist: expected it in the observation, found only"),
        (
            observation(**{"observation.images.front": np.zeros((2, 200, 200, 3), np.uint8)}),
            r"observation.images.front: expected uint8 \[B, 256, 256, 3\] or .*found uint8 \[2, 200, 200, 3\]",
        ),
        (observation(**{"observation.images.front": np.zeros((2, 256, 256, 3), np.int64)}), "found int64"),
        (observation(**{"observation.images.front": np.full((2, 3, 256, 256), 255.0)}), "from 255 to 255"),
        (observation(**{"observation.images.front": np.full((2, 3, 256, 256), np.nan)}), "from nan to nan"),
        (observation(**{"observation.images.front": "picture.png"}), "found str"),
        (without("observation.state"), "observation.state: expected it"),
        (
            observation(**{"observation.state": np.zeros((2, 7))}),
            r"observation.state: expected \[2, 3\], found \[2, 7\]",
        ),
        (observation(**{"observation.state": np.full((2, 3), np.inf)}), "expected finite numbers"),
        (observation(task=["push"]), "task: expected an instruction, or 2 of them"),
        (without("task"), "task: expected an instruction"),
    ],
)
def test_what_is_wrong_is_said_by_its_key(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ObservationError, match=said):
        check_observation(values, ("front", "wrist"), proprio_dim=3)
