"""A policy server in a thread of its own, with a stand-in for the policy whose answers are easy to check."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vpp.policy.action_denoiser import ActionDenoiserConfig
from vpp.policy.batch_queue import BatchQueue
from vpp.policy.config import PolicyConfig, SamplerSettings
from vpp.serve.request import ChunkRequest, metadata
from vpp.serve.server import Limits, PolicyServer

SIZE, NUM_ACTIONS = 64, 4
CONFIG = PolicyConfig(
    cameras=("front", "wrist"),
    frame_size=SIZE,
    denoiser=ActionDenoiserConfig(action_dim=3, num_actions=NUM_ACTIONS, proprio_dim=2),
    sampler=SamplerSettings(num_executed=2),
    datasets=("robot",),
)


def observation(number: int = 0, **changes: Any) -> dict[str, Any]:
    """What a robot sees, different for each number below 128."""
    picture = np.full((SIZE, SIZE, 3), number, np.uint8)
    values = {
        "observation.images.front": picture,
        "observation.images.wrist": picture + 1,
        "observation.state": np.array([number, -number], np.float32),
        "task": f"task {number}",
    }
    return {key: value for key, value in (values | changes).items() if value is not None}


def expected_actions(number: int, chunk: int = 0) -> np.ndarray:
    """What the stand-in answers."""
    first = np.array([2 * number + 1, number + chunk, len(f"task {number}")], np.float32)
    return first + 100 * np.arange(NUM_ACTIONS, dtype=np.float32)[:, None]


def actions_of(request: ChunkRequest) -> np.ndarray:
    assert request.proprio is not None
    seen = float(request.frames[0, 0, 0, 0]) + float(request.frames[1, -1, -1, 2])
    first = np.array([seen, float(request.proprio[0]) + request.chunk, len(request.task)], np.float32)
    return first + 100 * np.arange(NUM_ACTIONS, dtype=np.float32)[:, None]


@dataclass
class StandIn:
    """Answers when it may, and remembers what it was asked."""

    batches: list[list[str]] = field(default_factory=list)
    failing: bool = False
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer_at_first: bool = True

    async def __call__(self, requests: Sequence[ChunkRequest]) -> list[np.ndarray]:
        self.batches.append([request.task for request in requests])
        if len(self.batches) == 1 and self.may_answer_at_first:
            self.may_answer.set()
        await self.may_answer.wait()
        if self.failing:
            raise FloatingPointError("secret detail")
        return [actions_of(request) for request in requests]


@dataclass
class Running:
    """A server that runs."""

    server: PolicyServer
    model: Any
    port: int
    loop: asyncio.AbstractEventLoop

    def call(self, work: Callable[[], Any]) -> Any:
        """Runs a function in the server's loop, where its state may be touched."""

        async def run() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Waits until something is so; gives up after a while."""
        for _ in range(500):
            if self.call(condition):
                return
            threading.Event().wait(0.01)
        raise AssertionError("it did not become so")

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stops the server, gracefully."""
        asyncio.run_coroutine_threadsafe(self.server.stop(timeout_s), self.loop).result(20)


@contextlib.contextmanager
def serving(
    model: Callable[[list[ChunkRequest]], Awaitable[Sequence[np.ndarray]]],
    *,
    config: PolicyConfig = CONFIG,
    batch_size: int = 16,
    num_at_once: int = 1,
    max_waiting: int = 32,
    max_clients: int = 32,
    max_message_bytes: int = 2**20,
    token: str = "",
    gather_s: float = 0.0,
    port: int = 0,
) -> Iterator[Running]:
    """Runs a server while the block runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[PolicyServer, int]:
        queue: BatchQueue[ChunkRequest, np.ndarray] = BatchQueue(model, batch_size, num_at_once, max_waiting)
        limits = Limits(max_clients, max_message_bytes)
        server = PolicyServer(config, queue, metadata(config, "robot"), limits, token, gather_s)
        return server, await server.start("127.0.0.1", port)

    server, found = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    running = Running(server, model, found, loop)
    try:
        yield running
    finally:
        running.stop(0.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
