"""Answers depend on the evaluation's seed and the request, not on what else is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from tiny_policy import NUM_ACTIONS, write_policy

from vpp.policy.policy import VideoPredictionPolicy
from vpp.sim.policy_server import BatchedPolicy, ChunkRequest, RequestQueue
from vpp.sim.rollout import Moment

TEXTS = ("open the drawer", "press the button")


@pytest.fixture(scope="module", params=[0, None], ids=["fixed view noise", "fresh view noise"])
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VideoPredictionPolicy:
    url = write_policy(tmp_path_factory.mktemp("policy"), feature_seed=request.param)
    return VideoPredictionPolicy.load(url, device="cpu")


def requests(count: int) -> list[ChunkRequest]:
    random = np.random.default_rng(0)
    return [
        ChunkRequest(
            {
                "observation.images.corner2": random.integers(0, 256, (256, 256, 3), np.uint8),
                "observation.images.topview": np.zeros(1),  # which this policy does not look at
                "observation.state": random.normal(size=4).astype(np.float32),
            },
            TEXTS[number % 2],
            Moment(episode_seed=number // 2, position=0, chunk=number),
        )
        for number in range(count)
    ]


def test_the_same_bits_come_whatever_else_is_asked(policy: VideoPredictionPolicy) -> None:
    asked = requests(5)
    alone = BatchedPolicy(policy, 0, 1)
    expected = [alone.chunks([request])[0] for request in asked]
    assert expected[0].shape == (NUM_ACTIONS, 4)

    async def all_at_once() -> list[np.ndarray]:
        queue = RequestQueue(alone, num_threads=2)
        return list(await asyncio.gather(*(queue.chunk(request) for request in reversed(asked))))

    for chunk, again in zip(expected, reversed(asyncio.run(all_at_once())), strict=True):
        np.testing.assert_array_equal(chunk, again)


def test_a_batch_of_one_size_gives_a_row_the_same_bits_at_every_place(policy: VideoPredictionPolicy) -> None:
    """With one thread, as the tests have; with more it does not hold on a CPU."""
    first, *others = requests(4)
    batched = BatchedPolicy(policy, 0, 3)
    (expected,) = batched.chunks([first])
    np.testing.assert_array_equal(batched.chunks([others[0], first])[1], expected)
    np.testing.assert_array_equal(batched.chunks([others[1], others[2], first])[2], expected)
    np.testing.assert_allclose(BatchedPolicy(policy, 0, 1).chunks([first])[0], expected, atol=1e-4)


def test_noise_differs_by_seed_and_moment(policy: VideoPredictionPolicy) -> None:
    (asked,) = requests(1)
    moments = [Moment(0, 0, 0), Moment(1, 0, 0), Moment(0, 1, 0), Moment(0, 0, 1)]
    chunks = [BatchedPolicy(policy, 0, 1).chunks([replace(asked, moment=moment)])[0] for moment in moments]
    chunks.append(BatchedPolicy(policy, 1, 1).chunks([asked])[0])
    assert len({chunk.tobytes() for chunk in chunks}) == 5


class Faulty:
    """Answers batches but those that hold chunk 0; remembers their sizes."""

    batch_size = 2

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def chunks(self, requests: Sequence[ChunkRequest]) -> list[np.ndarray]:
        self.sizes.append(len(requests))
        if any(request.moment.chunk == 0 for request in requests):
            raise ValueError("no")
        return [np.array(request.moment.chunk) for request in requests]


def test_a_fault_reaches_those_who_asked_and_the_next_are_answered() -> None:
    faulty = Faulty()

    async def ask() -> list[object]:
        queue = RequestQueue(faulty, num_threads=1)  # type: ignore[arg-type]
        asked = [queue.chunk(request) for request in requests(6)]
        return list(await asyncio.gather(*asked, return_exceptions=True))

    first, *others = asyncio.run(ask())
    assert isinstance(first, ValueError)
    assert others == [1, 2, 3, 4, 5]
    assert faulty.sizes == [1, 2, 2, 1]  # the first was answered at once, while the others came
