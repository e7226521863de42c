"""One policy for many environments: batches of waiting requests whose answers do not depend on the batch.

All noise of an answer follows from the evaluation's seed and the request's moment. Arithmetic is another matter: the
last bits of a row depend on the size of its batch. So every batch has one size, filled up with copies of its first
row. Then a row's answer is the same at every place and beside any others; a test shows it for the processor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from vpp.policy.observation import TASK
from vpp.policy.policy import VideoPredictionPolicy
from vpp.sim.rollout import Moment
from vpp.video.objective import sample_generator


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
    """Collects requests while a batch is being computed; the next batch takes what waits by then.

    Args:
        policy: Who answers; only ever called by one thread.
    """

    def __init__(self, policy: BatchedPolicy) -> None:
        self._policy = policy
        self._waiting: list[tuple[ChunkRequest, asyncio.Future[np.ndarray]]] = []
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._serving: asyncio.Task[None] | None = None

    async def chunk(self, request: ChunkRequest) -> np.ndarray:
        """The answer `[H, A]` to a request."""
        answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        return await answer

    async def _serve(self) -> None:
        size = self._policy.batch_size
        while self._waiting:
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            requests = [request for request, _ in batch]
            loop = asyncio.get_running_loop()
            try:
                chunks = await loop.run_in_executor(self._thread, self._policy.chunks, requests)
            except Exception as error:  # whatever it is, those who wait have to know
                for _, answer in batch:
                    answer.set_exception(error)
                continue
            for (_, answer), chunk in zip(batch, chunks, strict=True):
                answer.set_result(chunk)
