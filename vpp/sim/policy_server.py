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
    """Collects requests while all threads are busy; a thread that is free takes what waits by then.

    Args:
        policy: Who answers.
        num_threads: Batches that are answered at the same time.
    """

    def __init__(self, policy: BatchedPolicy, num_threads: int) -> None:
        self._policy, self._free = policy, num_threads
        self._waiting: list[tuple[ChunkRequest, asyncio.Future[np.ndarray]]] = []
        self._threads = ThreadPoolExecutor(max_workers=num_threads)
        self._answering: set[asyncio.Task[None]] = set()  # the loop itself keeps no task alive

    async def chunk(self, request: ChunkRequest) -> np.ndarray:
        """The answer `[H, A]` to a request."""
        answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        self._dispatch()
        return await answer

    async def run(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """Has one of the threads do something else."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _dispatch(self) -> None:
        size = self._policy.batch_size
        while self._waiting and self._free:
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            self._free -= 1
            task = asyncio.get_running_loop().create_task(self._answer(batch))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, batch: list[tuple[ChunkRequest, asyncio.Future[np.ndarray]]]) -> None:
        try:
            chunks = await self.run(self._policy.chunks, [request for request, _ in batch])
        except Exception as error:  # whatever it is, those who wait have to know
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
        else:
            for (_, answer), chunk in zip(batch, chunks, strict=True):
                if not answer.done():  # an environment that died waits no more
                    answer.set_result(chunk)
        finally:
            self._free += 1
            self._dispatch()
