"""The robot's side: asks a policy server, and hands out one action at a time.

Needs NumPy, msgpack and websockets, and nothing else of what this project depends on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.frames import CloseCode
from websockets.sync.client import ClientConnection, connect

from schemas.errors import UsageError
from vpp.serve.protocol import InvalidRequest, ServerError, error_from_text, pack, unpack

_MAX_ANSWER_BYTES = 64 * 2**20
_TRY_AGAIN_S = 0.5
_NOT_YET = (502, 503, 504)  # what a proxy says for a server that does not listen


class ServerGone(ServerError):
    """The connection is lost, or no answer came in time; connect again."""


class PolicyClient:
    """A connection to a policy server. For one thread, and to be closed: best used with `with`.

    Args:
        host: Name or address, or a URL that begins with ws:// or wss://.
        port: Port; by default 8000, and behind a URL what it tells.
        token: The server's, if it wants one.
        wait_s: So long is waited for a server that does not listen yet.
        timeout_s: So long is waited for an answer.

    Raises:
        ServerGone: If there is no server by then.
        UsageError: If the server does not let the client in.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int | None = None,
        token: str = "",
        wait_s: float = 60.0,
        timeout_s: float = 60.0,
    ) -> None:
        self.url = _url(host, port)
        self._timeout_s = timeout_s
        self._chunk = 0
        self._resources = ExitStack()
        self._connection = self._connect(token, time.monotonic() + wait_s)
        try:
            self.metadata: dict[str, Any] = unpack(self._receive())
        except BaseException:
            self.close()
            raise

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """A chunk of actions and how long it took.

        Args:
            observation: By LeRobot's keys, without a batch axis: `observation.images.<camera>` uint8 `[S, S, 3]`,
                `observation.state` `[P]`, `task`; `metadata["observation_keys"]` names those that the policy needs.

        Returns:
            `actions` float32 `[H, A]` and `server_timing` (`infer_ms`, `wait_ms`, `batch`, `prev_total_ms`).

        Raises:
            InvalidRequest: If the observation is not what the policy takes.
            ServerBusy: If too many wait; ask again with what the robot then sees.
            PolicyFailed: If the policy could not answer.
            ServerGone: If the connection is lost, as it is once a call was interrupted.
        """
        message = pack({"chunk": self._chunk, **observation})
        try:
            self._connection.send(message)
            answer = self._receive()
        except ConnectionClosed as error:
            raise self._gone(error) from error
        self._chunk += 1
        values: dict[str, Any] = unpack(answer)
        return values

    def reset(self) -> None:
        """Begins an episode: the noise of its chunks begins anew, as `VideoPredictionPolicy.reset` does."""
        self._chunk = 0

    def close(self) -> None:
        """Says goodbye."""
        self._resources.close()

    def __enter__(self) -> PolicyClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self, token: str, deadline: float) -> ClientConnection:
        headers = {"Authorization": f"Api-Key {token}"} if token else None
        while True:
            try:
                connecting = connect(self.url, compression=None, max_size=_MAX_ANSWER_BYTES, additional_headers=headers)
                return self._resources.enter_context(connecting)
            except (OSError, InvalidMessage, InvalidStatus) as error:  # nobody listens yet, here or behind a proxy
                found = str(error)
                if isinstance(error, InvalidStatus):
                    status, body = error.response.status_code, error.response.body or b""
                    found = f"HTTP {status}: {body.decode(errors='replace').strip()}"
                    if status not in _NOT_YET:
                        raise UsageError(f"{self.url}: {found}") from error
                if time.monotonic() >= deadline:
                    raise ServerGone(f"{self.url}: expected a policy server, found none: {found}") from error
                time.sleep(_TRY_AGAIN_S)

    def _receive(self) -> bytes:
        try:
            answer = self._connection.recv(timeout=self._timeout_s)
        except TimeoutError as error:
            self.close()  # an answer that came later would be taken for that to the next question
            raise ServerGone(f"{self.url}: expected an answer within {self._timeout_s:g} s, found none") from error
        except ConnectionClosed as error:
            raise self._gone(error) from error
        except BaseException:  # Ctrl-C in a notebook, an alarm: likewise
            self.close()
            raise
        if isinstance(answer, str):
            raise error_from_text(answer)
        return answer

    def _gone(self, error: ConnectionClosed) -> ServerError:
        if error.rcvd is not None and error.rcvd.code == CloseCode.MESSAGE_TOO_BIG:
            return InvalidRequest(f"{self.url}: message too big: {error.rcvd.reason}")
        return ServerGone(f"{self.url}: the connection is lost: {error}")


class ActionChunkBroker:
    """Hands out the actions of a chunk one at a time, and asks again when those that are to be executed are used up.

    Args:
        client: Whom to ask.
        num_executed: Actions of a chunk that are executed before the robot looks again; 0 for what the policy says.
    """

    def __init__(self, client: PolicyClient, num_executed: int = 0) -> None:
        num_actions = client.metadata["num_actions"]
        if not 0 <= num_executed <= num_actions:
            raise UsageError(f"num_executed: expected 0 to {num_actions}, found {num_executed}")
        self._client, self._num_executed = client, num_executed or client.metadata["num_executed"]
        self._chunk = np.zeros((0, client.metadata["action_dim"]), np.float32)
        self._next = 0

    @property
    def needs_observation(self) -> bool:
        """Whether the next call looks at its observation: pictures that nobody looks at need not be taken."""
        return self._next >= min(self._num_executed, len(self._chunk))

    def select_action(self, observation: Mapping[str, Any]) -> np.ndarray:
        """The next action, float32 `[A]`; see `PolicyClient.infer` for the observation and the errors."""
        if self.needs_observation:
            self._chunk, self._next = self._client.infer(observation)["actions"], 0
        action: np.ndarray = self._chunk[self._next]
        self._next += 1
        return action

    def reset(self) -> None:
        """Begins an episode: forgets the actions that are left."""
        self._next = len(self._chunk)
        self._client.reset()


def _url(host: str, port: int | None) -> str:
    """Where to connect to.

    >>> _url("10.0.0.7", None), _url("::1", 80), _url("wss://robots.example/vpp", None), _url("ws://a", 80)
    ('ws://10.0.0.7:8000', 'ws://[::1]:80', 'wss://robots.example/vpp', 'ws://a:80')
    """
    if "://" not in host:
        host = f"ws://[{host}]" if host.count(":") > 1 else f"ws://{host}"
        port = 8000 if port is None else port
    return host if port is None else f"{host}:{port}"
