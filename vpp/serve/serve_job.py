"""Runs a policy server until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import torch

from runtime.stop_signals import stop_event
from schemas.errors import UsageError
from vpp.policy.batch_queue import BatchQueue
from vpp.policy.policy_folder import read_config
from vpp.serve.request import ChunkRequest, largest_request_bytes, metadata
from vpp.serve.served_policy import ServedPolicy
from vpp.serve.server import Limits, PolicyServer
from vpp.serve.settings import TOKEN_VARIABLE, ServeSettings

_log = logging.getLogger(__name__)

Answer = Callable[[Sequence[ChunkRequest]], Awaitable[Sequence[np.ndarray]]]
_MESSAGE_BYTES = 4 * 2**20
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(settings: ServeSettings, when_ready: Callable[[str], None] = _log.info) -> None:
    """Runs the job.

    Args:
        settings: What is served.
        when_ready: Told the address when the policy is warm and the server listens.

    Raises:
        UsageError: If the policy cannot be loaded or the address cannot be had.
    """
    logging.getLogger("websockets.server").setLevel(logging.WARNING)  # it tells each look at /healthz
    config = read_config(settings.policy_folder)
    dataset = settings.dataset or (config.datasets[0] if config.datasets else "")
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token and settings.host not in _LOOPBACK:
        _log.warning("%s is not set: whoever reaches %s can ask the policy", TOKEN_VARIABLE, settings.host)
    with ExitStack() as resources:
        answer, num_at_once, has_gpu = _load(settings, resources)
        queue = BatchQueue(answer, settings.batch(has_gpu), num_at_once, settings.max_waiting)
        message_bytes = settings.max_message_bytes or max(_MESSAGE_BYTES, largest_request_bytes(config))
        limits = Limits(settings.max_clients, message_bytes)
        gather_s = settings.gather_ms / 1000
        server = PolicyServer(config, queue, metadata(config, dataset), limits, token, gather_s)
        asyncio.run(_run(server, settings, when_ready))


async def _run(server: PolicyServer, settings: ServeSettings, when_ready: Callable[[str], None]) -> None:
    stop = stop_event()
    try:
        port = await server.start(settings.host, settings.port)
    except OSError as error:
        raise UsageError(f"--host {settings.host} --port {settings.port}: {error.strerror or error}") from error
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    when_ready(f"ready: ws://{host}:{port}")
    await stop.wait()
    _log.info("stopping")
    await server.stop(settings.stop_timeout_s)


def _load(settings: ServeSettings, resources: ExitStack) -> tuple[Answer, int, bool]:
    """Who answers, how many batches at a time, and whether on a GPU."""
    if settings.replicas > 1:
        from vpp.serve.replicas import start_replicas

        return start_replicas(settings, resources)
    threads = resources.enter_context(ThreadPoolExecutor(settings.num_at_once))
    policy = ServedPolicy.load(settings, settings.num_at_once)

    async def answer(requests: Sequence[ChunkRequest]) -> Sequence[np.ndarray]:
        return await asyncio.get_running_loop().run_in_executor(threads, policy.chunks, requests)

    return answer, settings.num_at_once, torch.cuda.is_available()
