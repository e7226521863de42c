"""Several copies of a policy behind one server, with Ray Serve: it places them, watches them and replaces the dead.

The server keeps the queue and hands each batch to Serve, which picks a copy that is free. Serve's own HTTP proxy is not
started.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
from ray import serve
from ray.exceptions import RayActorError

from runtime.ray_cluster import find_cluster, start_ray
from schemas.errors import UsageError
from vpp.serve.request import ChunkRequest
from vpp.serve.served_policy import ServedPolicy
from vpp.serve.settings import ServeSettings

_TRIES = 3


class PolicyReplica:
    """The process in which a copy of the policy is.

    Args:
        settings: What is served.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._policy = ServedPolicy.load(settings, settings.num_at_once)
        self._threads = ThreadPoolExecutor(settings.num_at_once)

    async def chunks(self, requests: list[ChunkRequest]) -> list[np.ndarray]:
        """Actions `[H, A]` for each request."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._policy.chunks, requests)


def start_replicas(
    settings: ServeSettings, resources: ExitStack
) -> tuple[Callable[[Sequence[ChunkRequest]], Awaitable[Sequence[np.ndarray]]], int, bool]:
    """Starts the copies and waits until all are warm.

    Args:
        settings: What is served.
        resources: Takes what has to be done at the end.

    Returns:
        What answers a batch; how many it answers at a time; whether on GPUs.

    Raises:
        UsageError: If the copies cannot be started, or the cluster can never hold them.
    """
    start_ray()
    cluster = find_cluster()
    has_gpu = cluster.total("GPU") >= 1
    needed = {"CPU": 1.0, "GPU": 1.0} if has_gpu else {"CPU": 1.0}
    cluster.check_holds("copies of the policy", needed, settings.replicas, "lower --replicas")
    serve.start(proxy_location="Disabled")
    name = f"policy-{uuid.uuid4().hex[:8]}"
    resources.callback(serve.delete, name)
    deployment: Any = serve.deployment(PolicyReplica).options(
        num_replicas=settings.replicas,
        max_ongoing_requests=settings.num_at_once,
        ray_actor_options={"num_gpus": needed.get("GPU", 0.0), "num_cpus": needed["CPU"]},
    )
    try:
        handle = serve.run(deployment.bind(settings), name=name, route_prefix=None)
    except RuntimeError as error:
        raise UsageError(f"--replicas {settings.replicas}: {str(error).strip().splitlines()[-1]}") from error

    async def answer(requests: Sequence[ChunkRequest]) -> Sequence[np.ndarray]:
        for attempt in range(1, _TRIES + 1):
            try:
                chunks: list[np.ndarray] = await handle.chunks.remote(list(requests))
                return chunks
            except RayActorError:  # its copy died; asking another changes nothing, the noise is the same
                if attempt == _TRIES:
                    raise
        raise AssertionError("the last attempt returns or raises")

    return answer, settings.replicas * settings.num_at_once, has_gpu
