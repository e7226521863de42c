"""A served policy answers what the policy itself says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from served import serving
from tiny_policy import NUM_ACTIONS, write_policy

from vpp.policy.policy import VideoPredictionPolicy
from vpp.serve.client import ActionChunkBroker, PolicyClient
from vpp.serve.request import ChunkRequest, check_request
from vpp.serve.served_policy import ServedPolicy, compiled_sizes
from vpp.serve.settings import ServeSettings

NUM_ROBOTS, NUM_CHUNKS = 4, 2


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def policy(url: str) -> VideoPredictionPolicy:
    return VideoPredictionPolicy.load(url, device="cpu")


def seen(robot: int) -> dict[str, object]:
    random = np.random.default_rng(robot)
    return {
        "observation.images.corner2": random.integers(0, 256, (256, 256, 3), np.uint8),
        "observation.state": random.normal(size=4).astype(np.float32),
        "task": f"task {robot % 2}",
    }


def local_chunks(policy: VideoPredictionPolicy, robot: int) -> list[np.ndarray]:
    policy.reset()
    return [policy.predict_action_chunk(seen(robot))[0].numpy() for _ in range(NUM_CHUNKS)]


def test_robots_get_over_the_network_the_bits_that_the_policy_gives_each_alone(policy: VideoPredictionPolicy) -> None:
    expected = [local_chunks(policy, robot) for robot in range(NUM_ROBOTS)]
    served, threads = ServedPolicy(policy), ThreadPoolExecutor(2)

    async def answer(requests: Sequence[ChunkRequest]) -> list[np.ndarray]:
        return await asyncio.get_running_loop().run_in_executor(threads, served.chunks, requests)

    with (
        serving(answer, config=policy.config, batch_size=1, num_at_once=2) as running,
        ThreadPoolExecutor(NUM_ROBOTS) as robots,
    ):

        def act(robot: int) -> None:
            with PolicyClient(port=running.port) as client:
                broker = ActionChunkBroker(client)
                for chunk in expected[robot]:
                    assert chunk.shape == (NUM_ACTIONS, 4)
                    np.testing.assert_array_equal([broker.select_action(seen(robot)) for _ in chunk], chunk)

        list(robots.map(act, range(NUM_ROBOTS)))


def test_a_batch_gives_each_its_own_up_to_rounding(policy: VideoPredictionPolicy) -> None:
    requests = [check_request(seen(robot), policy.config, 0) for robot in range(3)]
    for robot, chunk in enumerate(ServedPolicy(policy).chunks(requests)):
        np.testing.assert_allclose(chunk, local_chunks(policy, robot)[0], atol=1e-4)


def test_batches_on_a_gpu_have_few_sizes_since_each_is_compiled(
    policy: VideoPredictionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [check_request(seen(robot), policy.config, 0) for robot in range(3)]
    sizes, real = [], policy.predict_action_chunk

    def predict(observation: Mapping[str, Any], noise: torch.Tensor | None = None) -> torch.Tensor:
        sizes.append(len(observation["task"]))
        return real(observation, noise)

    monkeypatch.setattr(policy, "predict_action_chunk", predict)
    served = ServedPolicy(policy, compiled_sizes(5))
    for count in (3, 1, 2):
        answers = served.chunks(requests[:count])
        assert len(answers) == count
        for robot, chunk in enumerate(answers):
            np.testing.assert_allclose(chunk, real(seen(robot), noise=policy.chunk_noise(0)[None])[0], atol=1e-4)
    assert sizes == [4, 1, 2]


def test_a_runs_folder_is_as_good_as_the_policys(url: str) -> None:
    assert ServeSettings(policy=str(Path(url).parent)).policy_folder == url
    assert ServeSettings(policy=url).policy_folder == url


@pytest.mark.parametrize("change", [{"port": 65536}, {"port": -1}, {"replicas": 0}, {"stop_timeout_s": float("nan")}])
def test_settings_outside_their_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"--.*: expected at (least|most)"):
        ServeSettings(**change)  # type: ignore[arg-type]
