"""A request is what the policy takes, or is refused by name before it waits with others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from served import CONFIG, SIZE, observation

from vpp.serve.protocol import InvalidRequest, pack
from vpp.serve.request import check_request, example_request, largest_request_bytes, metadata

FRONT, STATE = "observation.images.front", "observation.state"


def test_a_request_holds_what_was_seen_in_the_policys_order() -> None:
    request = check_request(observation(5, other=[1, 2]), CONFIG, next_chunk=3)
    assert request.frames.shape == (2, SIZE, SIZE, 3)
    assert request.frames[:, 0, 0, 0].tolist() == [5, 6]
    assert request.proprio is not None
    assert request.proprio.tolist() == [5, -5]
    assert (request.task, request.chunk) == ("task 5", 3)


def test_openpis_prompt_a_batch_of_one_pictures_as_numbers_and_a_chunks_number_are_taken() -> None:
    values = observation(5, task=None, prompt="task 5", chunk=9)
    values[FRONT] = (values[FRONT].transpose(2, 0, 1) / 255)[None]
    request = check_request(values, CONFIG, 0)
    assert request.frames[:, 0, 0, 0].tolist() == [5, 6]
    assert (request.task, request.chunk) == ("task 5", 9)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task": None}, "task: field required, found observation.images.front"),
        ({"task": 5}, "task: input should be a valid string, found 5"),
        ({"task": ["a"]}, "task: input should be a valid string, found list"),
        ({"task": "a" * 1001}, "task: string should have at most 1000 characters, found 1001 characters"),
        ({"chunk": -1}, "chunk: input should be greater than or equal to 0, found -1"),
        ({"chunk": "1"}, "chunk: input should be a valid integer, found 1 characters"),
        ({FRONT: None}, f"{FRONT}: expected it in the observation, found only"),
        ({FRONT: np.zeros((480, 640, 3), np.uint8)}, f"{FRONT}: expected uint8 [B, 64, 64, 3]"),
        ({FRONT: np.zeros((SIZE, SIZE, 4), np.uint8)}, f"{FRONT}: expected uint8"),
        ({FRONT: np.zeros((SIZE, SIZE, 3), np.int32)}, "found int32 [1, 64, 64, 3]"),
        ({FRONT: np.full((3, SIZE, SIZE), np.nan)}, "from nan to nan"),
        ({FRONT: np.zeros((0, 3, SIZE, SIZE))}, f"{FRONT}: expected"),
        ({FRONT: np.float32(1)}, "found float32"),
        ({FRONT: "picture"}, f"{FRONT}: expected an array or tensor of numbers, found str"),
        ({FRONT: np.zeros(3, bool)}, f"{FRONT}: expected an array or tensor of numbers, found an array of bool"),
        (
            {FRONT: np.zeros((2, SIZE, SIZE, 3), np.uint8)},
            "as many pictures of every camera, found 2 of front, 1 of wrist",
        ),
        ({STATE: None}, f"{STATE}: expected it"),
        ({STATE: np.zeros(3)}, f"{STATE}: expected [1, 2], found [1, 3]"),
        ({STATE: np.array([1, np.inf])}, f"{STATE}: expected finite numbers"),
    ],
)
def test_what_the_policy_does_not_take_is_refused_by_name(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        check_request(observation(5, **changes), CONFIG, 0)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("values", [None, 5, [observation()], {b"task": "a"}])
def test_what_is_no_observation_is_refused(values: Any) -> None:
    with pytest.raises(InvalidRequest, match="message: expected a map with keys of text"):
        check_request(values, CONFIG, 0)


def test_several_observations_are_refused() -> None:
    values = observation(5)
    batch = {key: value if isinstance(value, str) else np.stack([value, value]) for key, value in values.items()}
    with pytest.raises(InvalidRequest, match="expected one observation, found a batch of 2"):
        check_request(batch, CONFIG, 0)


def test_the_largest_request_fits_into_the_largest_message() -> None:
    values = {key: np.zeros((3, SIZE, SIZE), np.float32) for key in (FRONT, "observation.images.wrist")}
    message = pack({**values, STATE: np.zeros(2, np.float32), "task": "ä" * 1000, "chunk": 2**62})
    assert len(message) <= largest_request_bytes(CONFIG)


def test_a_policy_without_proprioception_is_not_asked_for_it() -> None:
    config = replace(CONFIG, denoiser=replace(CONFIG.denoiser, proprio_dim=0))
    assert check_request(observation(5, **{STATE: None}), config, 0).proprio is None
    assert example_request(config).proprio is None
    assert STATE not in metadata(config, "robot")["observation_keys"]
