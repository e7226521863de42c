"""One policy for many environments: batches of waiting requests whose answers do not depend on the batch.

All noise of an answer follows from the evaluation's seed and the request's moment. Arithmetic is another matter: its
last bits depend on the size of the batch and, with several threads, on the number of threads and even on the place in
the batch (measured: 2 threads, batches of 3). Hence

- on a CPU every request is a batch of its own for one thread, and several threads answer several requests: the same
  bits whatever else is asked, and faster than batches (measured on two cores: 0.10 s a request against 0.12 to 0.14)
- on a GPU every batch has one size, filled up with copies of its first row, so that nothing depends on how many ask;
  that a row is the same at every place of it is what kernels of one shape do, and is not proved here
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from vpp.policy.batch_queue import BatchQueue
from vpp.policy.observation import TASK
from vpp.policy.policy import VideoPredictionPolicy
from vpp.sim.rollout import Moment
from vpp.video.objective import sample_generator

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class ChunkRequest:
    """What an environment asks.

    Attributes:
        observation: What it sees, by LeRobot's keys, without a batch axis.
        instruction: What is to be done.
        moment: When.
    """

    observation: Mapping[str, np.ndarray]
    instruction: str
    moment: Moment


class BatchedPolicy:
    """Answers requests in batches of one size.

    Args:
        policy: The policy.
        seed: Of the evaluation.
        batch_size: Rows of every batch.
    """

    def __init__(self, policy: VideoPredictionPolicy, seed: int, batch_size: int) -> None:
        self.batch_size = batch_size
        self._policy, self._seed = policy, seed

    def chunks(self, requests: Sequence[ChunkRequest]) -> list[np.ndarray]:
        """Chunks of actions `[H, A]` in the units of the dataset, one for each of at most `batch_size` requests."""
        filled = [*requests, *[requests[0]] * (self.batch_size - len(requests))]
        observation: dict[str, object] = {
            key: np.stack([request.observation[key] for request in filled])
            for key in self._policy.observation_keys
            if key != TASK
        }
        observation[TASK] = [request.instruction for request in filled]
        chunk = self._policy.predict_action_chunk(
            observation,
            noise=self._draw(filled, self._policy.noise_shape, "actions"),
            view_noise=self._draw(filled, self._policy.view_noise_shape, "views"),
        )
        return list(chunk.numpy()[: len(requests)])

    def _draw(
        self, requests: Sequence[ChunkRequest], shape: tuple[int, ...] | None, purpose: str
    ) -> torch.Tensor | None:
        if shape is None:
            return None
        moments = [request.moment for request in requests]
        generators = [
            sample_generator(self._seed, at.chunk, at.position, f"evaluation/{at.episode_seed}/{purpose}")
            for at in moments
        ]
        return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


class RequestQueue:
    """Requests of many environments, answered by several threads.

    Args:
        policy: Who answers.
        num_threads: Batches that are answered at the same time.
    """

    def __init__(self, policy: BatchedPolicy, num_threads: int) -> None:
        self._policy, self._threads = policy, ThreadPoolExecutor(max_workers=num_threads)
        self._queue: BatchQueue[ChunkRequest, np.ndarray] = BatchQueue(self._chunks, policy.batch_size, num_threads)

    async def chunk(self, request: ChunkRequest) -> np.ndarray:
        """The answer `[H, A]` to a request."""
        return (await self._queue.ask(request)).value

    async def run(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """Has one of the threads do something else."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _chunks(self, requests: list[ChunkRequest]) -> list[np.ndarray]:
        return await self.run(self._policy.chunks, requests)
