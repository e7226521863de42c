"""Our client: one action at a time, clear ends, and no model library."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from running import ROOT
from served import Running, StandIn, expected_actions, observation, serving

from schemas.errors import UsageError
from vpp.serve.client import ActionChunkBroker, PolicyClient, ServerGone

ONLY_WHAT_IT_NEEDS = """
import sys
allowed = set(sys.stdlib_module_names) | {"numpy", "msgpack", "websockets", "vpp", "schemas"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ImportError(f"a robot has no {name}")
sys.meta_path.insert(0, Refuse())
import numpy as np
from vpp.serve.client import ActionChunkBroker, PolicyClient
with PolicyClient(port=int(sys.argv[1])) as client:
    picture = np.full((64, 64, 3), 5, np.uint8)
    seen = {"observation.images.front": picture, "observation.images.wrist": picture + 1, "task": "task 5"}
    action = ActionChunkBroker(client).select_action({**seen, "observation.state": np.array([5.0, -5.0])})
print(action.tolist(), sorted({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)))
"""


@pytest.fixture
def running() -> Iterator[Running]:
    with serving(StandIn()) as server:
        yield server


@pytest.fixture
def client(running: Running) -> Iterator[PolicyClient]:
    with PolicyClient(port=running.port) as connected:
        yield connected


def test_a_robot_needs_only_numpy_msgpack_and_websockets(running: Running) -> None:
    command = [sys.executable, "-c", ONLY_WHAT_IT_NEEDS, str(running.port)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("[11.0, 5.0, 6.0] ")


def test_the_broker_gives_one_action_at_a_time_and_looks_when_they_are_used_up(client: PolicyClient) -> None:
    broker = ActionChunkBroker(client)  # the policy says: 2 of 4
    for step in range(6):
        assert broker.needs_observation == (step % 2 == 0)
        seen: dict[str, Any] = observation(step) if broker.needs_observation else {}
        expected = expected_actions(step - step % 2, chunk=step // 2)[step % 2]
        np.testing.assert_array_equal(broker.select_action(seen), expected)


def test_the_broker_executes_as_many_as_it_is_told_and_begins_anew(client: PolicyClient) -> None:
    broker = ActionChunkBroker(client, num_executed=4)
    for action in expected_actions(1):
        np.testing.assert_array_equal(broker.select_action(observation(1)), action)
    np.testing.assert_array_equal(broker.select_action(observation(2)), expected_actions(2, chunk=1)[0])
    broker.reset()
    np.testing.assert_array_equal(broker.select_action(observation(3)), expected_actions(3, chunk=0)[0])
    with pytest.raises(UsageError, match="num_executed: expected 0 to 4, found 5"):
        ActionChunkBroker(client, num_executed=5)


def test_a_refused_observation_does_not_use_up_a_chunks_number(client: PolicyClient) -> None:
    broker = ActionChunkBroker(client)
    with pytest.raises(ValueError, match="task: field required"):
        broker.select_action(observation(1, task=None))
    np.testing.assert_array_equal(broker.select_action(observation(1)), expected_actions(1)[0])


def test_an_answer_that_does_not_come_ends_the_connection() -> None:
    with (
        serving(StandIn(may_answer_at_first=False)) as running,
        PolicyClient(port=running.port, timeout_s=0.1) as client,
    ):
        with pytest.raises(ServerGone, match=r"expected an answer within 0\.1 s"):
            client.infer(observation())
        with pytest.raises(ServerGone, match="the connection is lost"):
            client.infer(observation())


@pytest.fixture
def interruption() -> Iterator[int]:
    """A signal that interrupts the main thread as Ctrl-C does, also where a shell has this process ignore Ctrl-C."""
    number = signal.SIGUSR1
    before = signal.signal(number, signal.default_int_handler)
    yield number
    signal.signal(number, before)


def test_an_answer_to_a_question_that_was_interrupted_is_not_taken_for_the_next(interruption: int) -> None:
    with (
        serving(StandIn(may_answer_at_first=False)) as running,
        PolicyClient(port=running.port, timeout_s=20.0) as client,
    ):
        this = threading.get_ident()

        def interrupt() -> None:
            running.wait_until(lambda: len(running.model.batches) == 1)
            signal.pthread_kill(this, interruption)

        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            client.infer(observation(1))
        interrupting.join()
        running.call(running.model.may_answer.set)
        with pytest.raises(ServerGone, match="the connection is lost"):
            client.infer(observation(2))


def test_it_waits_for_a_server_that_does_not_listen_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vpp.serve.client._TRY_AGAIN_S", 0.01)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ServerGone, match=f"ws://127.0.0.1:{port}: expected a policy server, found none"):
        PolicyClient(port=port, wait_s=0.0)
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(PolicyClient(port=port, wait_s=30.0)))
    waiting.start()
    with serving(StandIn(), port=port):
        waiting.join(30)
        np.testing.assert_array_equal(found[0].infer(observation(1))["actions"], expected_actions(1))
        found[0].close()


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"])
def test_a_proxy_whose_server_does_not_listen_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch, says: bytes) -> None:
    """Docker's proxy lets in and hangs up; others say 502."""
    monkeypatch.setattr("vpp.serve.client._TRY_AGAIN_S", 0.01)
    tries = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def refuse() -> None:
            for _ in range(2):
                connection, _address = proxy.accept()
                with connection:
                    tries.append(connection.recv(4096))
                    connection.sendall(says)
            proxy.close()

        refusing = threading.Thread(target=refuse)
        refusing.start()
        with pytest.raises(ServerGone, match="expected a policy server, found none"):
            PolicyClient("127.0.0.1", proxy.getsockname()[1], wait_s=1.0)
        refusing.join()
    assert len(tries) == 2


def test_a_wrong_token_is_told_at_once() -> None:
    with (
        serving(StandIn(), token="token") as running,
        pytest.raises(UsageError, match="HTTP 401: expected the header"),
    ):
        PolicyClient(f"ws://127.0.0.1:{running.port}", token="other")
