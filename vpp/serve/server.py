"""The policy server: many robots, one queue; see `vpp.serve.protocol` for what is said.

A request that cannot be taken is answered by an error and the connection goes on. One that is too large for a message,
or one client too many, ends the connection with WebSocket's own codes 1009 and 1013, a server that stops with 1001.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from vpp.policy.batch_queue import Answered, BatchQueue, QueueFull
from vpp.policy.config import PolicyConfig
from vpp.serve.metrics import CONTENT_TYPE, Metrics
from vpp.serve.protocol import InvalidRequest, PolicyFailed, ServerBusy, ServerError, error_text, pack, unpack
from vpp.serve.request import ChunkRequest, check_request

_log = logging.getLogger(__name__)

_SICK_AFTER = 3
"""Failures of the policy in a row after which `/healthz` says so."""


@dataclass(frozen=True)
class Limits:
    """What a client may cost.

    Attributes:
        max_clients: Connected at the same time.
        max_message_bytes: Of one message.
    """

    max_clients: int
    max_message_bytes: int


class PolicyServer:
    """Answers clients out of a queue.

    Args:
        config: Of the policy, which says what a request must hold.
        queue: Who answers; actions `[H, A]` for each request.
        metadata: What a client is told when it connects.
        limits: What a client may cost.
        token: What clients must show; empty for none.
        gather_s: A batch that is not full waits so long for the other clients.
    """

    def __init__(
        self,
        config: PolicyConfig,
        queue: BatchQueue[ChunkRequest, np.ndarray],
        metadata: Mapping[str, Any],
        limits: Limits,
        token: str = "",
        gather_s: float = 0.0,
    ) -> None:
        self._config, self._queue, self._limits, self._token = config, queue, limits, token
        self._greeting = pack(dict(metadata))
        self._clients: set[ServerConnection] = set()
        self._answering: set[ServerConnection] = set()
        queue.gather(gather_s, lambda: len(self._clients))
        self._failures = 0
        self._failure: BaseException | None = None
        self._server: Server | None = None
        self._is_stopping = False
        self.metrics = Metrics()
        self.metrics.waiting.set_function(lambda: queue.num_waiting)
        self.metrics.clients.set_function(lambda: len(self._clients))

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port, which the system chooses where 0 is given.

        Raises:
            OSError: If the address cannot be had.
        """
        self._server = await serve(
            self._handle,
            host,
            port,
            process_request=self._respond,
            origins=[None],  # robots send none; a web page in somebody's browser cannot help sending its own
            compression=None,
            max_size=self._limits.max_message_bytes,
            max_queue=1,
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self, timeout_s: float) -> None:
        """Takes no more, answers what was asked, and says goodbye; after the timeout without ceremony."""
        assert self._server is not None
        self._is_stopping = True
        self._server.close(close_connections=False)
        idle = self._clients - self._answering
        goodbyes = [asyncio.ensure_future(self._say_goodbye(client)) for client in idle]
        deadline = time.monotonic() + timeout_s
        while self._clients and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for client in self._clients:
            client.transport.abort()
        await asyncio.gather(*goodbyes, self._server.wait_closed())

    # --- plain HTTP -----------------------------------------------------------------------------------

    def _respond(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answers what is no WebSocket; None lets a client in."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            if self._failures >= _SICK_AFTER:
                told = f"the policy failed {self._failures} times in a row\n"
                return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, told)
            return connection.respond(HTTPStatus.OK, "OK\n")
        if not self._is_allowed(request.headers):
            expected = "expected the header 'Authorization: Api-Key TOKEN' with the server's token"
            return connection.respond(HTTPStatus.UNAUTHORIZED, f"{expected}\n")
        if path == "/metrics":
            response = connection.respond(HTTPStatus.OK, self.metrics.text())
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = CONTENT_TYPE
            return response
        return None

    def _is_allowed(self, headers: Headers) -> bool:
        expected = f"Api-Key {self._token}"
        shown = headers.get_all("Authorization")
        return not self._token or (len(shown) == 1 and hmac.compare_digest(_bytes(shown[0]), _bytes(expected)))

    # --- a client -------------------------------------------------------------------------------------

    async def _handle(self, client: ServerConnection) -> None:
        if len(self._clients) >= self._limits.max_clients:
            reason = f"expected at most {self._limits.max_clients} clients, found as many; try again later"
            await client.close(CloseCode.TRY_AGAIN_LATER, reason)
            return
        self._clients.add(client)
        _log.info("%s connected, %d clients", client.remote_address, len(self._clients))
        try:
            await client.send(self._greeting)
            await self._answer_all(client)
        except ConnectionClosed as error:
            if error.sent is not None and error.sent.code == CloseCode.MESSAGE_TOO_BIG:
                self.metrics.requests["invalid"].inc()
        finally:
            self._clients.discard(client)
            _log.info("%s left, %d clients", client.remote_address, len(self._clients))

    async def _answer_all(self, client: ServerConnection) -> None:
        next_chunk, previous_ms = 0, None
        while not self._is_stopping:
            message = await client.recv()
            arrived = time.perf_counter()
            self._answering.add(client)
            try:
                answered = await self._answer(client, message, next_chunk)
                if answered is None:
                    self.metrics.requests["gone"].inc()
                    return
                await client.send(_reply(answered, previous_ms))
            except ServerError as error:
                self.metrics.requests[error.kind].inc()
                await client.send(error_text(error))
                continue
            finally:
                self._answering.discard(client)
            next_chunk += 1
            total_s = time.perf_counter() - arrived
            previous_ms = total_s * 1000
            self._count(answered, total_s)
        await self._say_goodbye(client)

    async def _answer(
        self, client: ServerConnection, message: str | bytes, next_chunk: int
    ) -> Answered[np.ndarray] | None:
        """Asks the policy; None if the client leaves before it has answered.

        Raises:
            ServerError: To be told to the client.
        """
        if isinstance(message, str):
            raise InvalidRequest("message: expected a binary one, found text")
        request = check_request(unpack(message), self._config, next_chunk)
        asked = asyncio.ensure_future(self._queue.ask(request))
        left = asyncio.ensure_future(client.wait_closed())
        try:
            await asyncio.wait({asked, left}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                return None
            answered = asked.result()
        except QueueFull as error:
            raise ServerBusy(str(error)) from error
        except Exception as error:  # the model's own, of any kind
            if error is not self._failure:  # a batch fails once, and all who are in it get the same error
                self._failure = error
                self._failures += 1
                _log.exception("the policy failed")
            raise PolicyFailed(f"the policy failed ({type(error).__name__}); the server's log says why") from error
        finally:
            asked.cancel()
            left.cancel()
        self._failures, self._failure = 0, None
        return answered

    async def _say_goodbye(self, client: ServerConnection) -> None:
        await client.close(CloseCode.GOING_AWAY, "the server stops")

    def _count(self, answered: Answered[np.ndarray], total_s: float) -> None:
        metrics = self.metrics
        metrics.requests["answered"].inc()
        metrics.actions.inc(len(answered.value))
        metrics.batch.observe(answered.batch)
        for histogram, seconds in (
            (metrics.wait_s, answered.waited_s), (metrics.infer_s, answered.took_s), (metrics.total_s, total_s),
        ):  # fmt: skip
            histogram.observe(seconds)


def _reply(answered: Answered[np.ndarray], previous_ms: float | None) -> bytes:
    timing = {"infer_ms": answered.took_s * 1000, "wait_ms": answered.waited_s * 1000, "batch": answered.batch}
    if previous_ms is not None:
        timing["prev_total_ms"] = previous_ms
    return pack({"actions": answered.value, "server_timing": timing})


def _bytes(header: str) -> bytes:
    return header.encode("utf-8", "surrogateescape")
