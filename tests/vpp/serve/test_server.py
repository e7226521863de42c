"""Many clients, right answers; what is malformed, too large, too much or gone costs nobody else anything."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgpack
import numpy as np
import pytest
from served import Running, StandIn, expected_actions, observation, serving
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from vpp.serve.client import PolicyClient, ServerGone
from vpp.serve.protocol import InvalidRequest, PolicyFailed, ServerBusy, pack, unpack


@pytest.fixture
def running() -> Iterator[Running]:
    with serving(StandIn()) as server:
        yield server


def client(running: Running, **options: Any) -> PolicyClient:
    return PolicyClient(port=running.port, **({"wait_s": 0.0, "timeout_s": 20.0} | options))


def raw(running: Running, **options: Any) -> ClientConnection:
    """A connection that says what it likes; the server has greeted it."""
    connection = connect(f"ws://127.0.0.1:{running.port}", compression=None, legacy=True, **options)
    connection.recv(timeout=10)
    return connection


def send_and_receive(connection: ClientConnection, message: Any) -> str | bytes:
    connection.send(message)
    return connection.recv(timeout=10)


def get(running: Running, path: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{running.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def counted(running: Running, name: str) -> float:
    lines = get(running, "/metrics")[1].splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


def outcome(running: Running, name: str) -> float:
    return counted(running, f'vpp_serve_requests_total{{outcome="{name}"}}')


# --- right answers --------------------------------------------------------------------------------


def test_sixteen_clients_get_each_its_own_answers() -> None:
    with serving(StandIn(), batch_size=8) as running:

        def ask(robot: int) -> None:
            with client(running) as asking:
                for chunk in range(5):
                    actions = asking.infer(observation(robot))["actions"]
                    np.testing.assert_array_equal(actions, expected_actions(robot, chunk))

        with ThreadPoolExecutor(16) as robots:
            list(robots.map(ask, range(16)))
        running.wait_until(lambda: not running.server._clients)
        assert outcome(running, "answered") == 80
        assert counted(running, "vpp_serve_actions_total") == 80 * 4


def test_what_comes_while_the_policy_is_busy_is_answered_in_one_batch() -> None:
    with serving(StandIn(may_answer_at_first=False)) as running, ThreadPoolExecutor(6) as robots:
        with contextlib.ExitStack() as clients:
            asking = [clients.enter_context(client(running)) for _ in range(6)]
            first = robots.submit(asking[0].infer, observation(0))
            running.wait_until(lambda: len(running.model.batches) == 1)
            others = [robots.submit(asking[robot].infer, observation(robot)) for robot in range(1, 6)]
            running.wait_until(lambda: running.server._queue.num_waiting == 5)
            assert counted(running, "vpp_serve_waiting") == 5
            running.call(running.model.may_answer.set)
            for robot, answer in enumerate([first, *others]):
                np.testing.assert_array_equal(answer.result()["actions"], expected_actions(robot))
            assert answer.result()["server_timing"]["batch"] == 5
        assert [len(batch) for batch in running.model.batches] == [1, 5]


def test_a_client_is_told_what_the_policy_is_and_how_long_it_took(running: Running) -> None:
    with client(running) as asking:
        assert asking.metadata["observation_keys"] == [
            "observation.images.front", "observation.images.wrist", "observation.state", "task",
        ]  # fmt: skip
        assert (asking.metadata["num_actions"], asking.metadata["num_executed"]) == (4, 2)
        timing = asking.infer(observation())["server_timing"]
        assert set(timing) == {"infer_ms", "wait_ms", "batch"}
        assert "prev_total_ms" in asking.infer(observation())["server_timing"]


# --- what is refused ------------------------------------------------------------------------------

MALFORMED = {
    "text": ("hello", "invalid: message: expected a binary one, found text"),
    "no MessagePack": (b"\xc1", "invalid: message of 1 bytes: expected MessagePack"),
    "nothing": (b"", "invalid: message of 0 bytes: expected MessagePack"),
    "a list": (pack([1]), "invalid: message: expected a map with keys of text, found list"),
    "a lying array": (
        msgpack.packb({"a": {b"__ndarray__": True, b"data": b"", b"dtype": "<f4", b"shape": [2**30]}}),
        "invalid: array float32 [1073741824]: expected 4294967296 bytes, found 0 bytes",
    ),
    "objects": (
        msgpack.packb({"a": {b"__ndarray__": True, b"data": b"", b"dtype": "|O", b"shape": [1]}}),
        "invalid: array: expected a dtype of numbers",
    ),
    "another picture": (
        pack(observation(**{"observation.images.wrist": np.zeros((128, 128, 3), np.uint8)})),
        "invalid: observation.images.wrist: expected uint8 [B, 64, 64, 3]",
    ),
    "no instruction": (pack(observation(task=None)), "invalid: task: field required"),
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_answered_by_an_error_and_the_connection_goes_on(
    running: Running, message: tuple[str | bytes, str]
) -> None:
    connection = raw(running)
    told = send_and_receive(connection, message[0])
    assert isinstance(told, str)
    assert told.startswith(message[1])
    answer = unpack(send_and_receive(connection, pack(observation(7))))  # type: ignore[arg-type]
    np.testing.assert_array_equal(answer["actions"], expected_actions(7))
    assert outcome(running, "invalid") == 1
    connection.close()


def test_a_message_over_the_limit_ends_its_connection_and_no_other(running: Running) -> None:
    with client(running) as good:
        good.infer(observation(1))
        with client(running) as bad, pytest.raises(InvalidRequest, match="message too big"):
            bad.infer(observation(**{"observation.images.front": np.zeros((1080, 1920, 3), np.uint8)}))
        np.testing.assert_array_equal(good.infer(observation(1))["actions"], expected_actions(1, 1))
    running.wait_until(lambda: not running.server._clients)
    assert outcome(running, "invalid") == 1


def test_fragments_do_not_get_round_the_limit(running: Running) -> None:
    with pytest.raises(ConnectionClosed, match="1009"):
        send_and_receive(raw(running), (bytes(300_000) for _ in range(10)))


def test_one_request_too_many_is_refused_at_once() -> None:
    with serving(StandIn(may_answer_at_first=False), max_waiting=2) as running, ThreadPoolExecutor(3) as robots:
        with contextlib.ExitStack() as clients:
            asking = [clients.enter_context(client(running)) for _ in range(4)]
            first = robots.submit(asking[0].infer, observation(0))
            running.wait_until(lambda: len(running.model.batches) == 1)
            others = [robots.submit(asking[robot].infer, observation(robot)) for robot in (1, 2)]
            running.wait_until(lambda: running.server._queue.num_waiting == 2)
            with pytest.raises(ServerBusy, match="at most 2 requests to wait"):
                asking[3].infer(observation(3))
            running.call(running.model.may_answer.set)
            for robot, answer in enumerate([first, *others]):
                np.testing.assert_array_equal(answer.result()["actions"], expected_actions(robot))
            np.testing.assert_array_equal(asking[3].infer(observation(3))["actions"], expected_actions(3))
        assert outcome(running, "busy") == 1


def test_one_client_too_many_is_sent_away() -> None:
    with serving(StandIn(), max_clients=1) as running, client(running) as first:
        with pytest.raises(ServerGone, match=r"1013.*at most 1 clients"):
            client(running)
        first.infer(observation())


def test_a_web_page_is_not_let_in(running: Running) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        raw(running, origin="http://somewhere.example")


@pytest.mark.parametrize("shown", ["", "wrong", "token2", "tokeñ"])
def test_without_the_token_nobody_gets_in(shown: str) -> None:
    headers = {"Authorization": f"Api-Key {shown}".encode().decode("latin-1")} if shown else {}
    with serving(StandIn(), token="token") as running:
        with pytest.raises(InvalidStatus, match="401"):
            raw(running, additional_headers=headers)
        assert get(running, "/metrics", **headers) == (
            401, "expected the header 'Authorization: Api-Key TOKEN' with the server's token\n",
        )  # fmt: skip
        assert get(running, "/healthz") == (200, "OK\n")
        with client(running, token="token") as allowed:
            allowed.infer(observation())
        assert get(running, "/metrics", Authorization="Api-Key token")[0] == 200


# --- who leaves, what fails, how it ends ------------------------------------------------------------


def cut(connection: ClientConnection) -> None:
    """Loses a connection as a robot that is switched off does: without a goodbye."""
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.socket.shutdown(socket.SHUT_RDWR)
    connection.socket.close()


@pytest.mark.parametrize("leave", [ClientConnection.close, cut])
def test_a_client_that_leaves_while_it_waits_is_forgotten(leave: Any) -> None:
    with (
        serving(StandIn(may_answer_at_first=False)) as running,
        ThreadPoolExecutor(1) as robots,
        client(running) as staying,
    ):
        answer = robots.submit(staying.infer, observation(1))
        running.wait_until(lambda: len(running.model.batches) == 1)
        leaving = raw(running)
        leaving.send(pack(observation(2)))
        running.wait_until(lambda: running.server._queue.num_waiting == 1)
        leave(leaving)
        running.wait_until(lambda: running.server._queue.num_waiting == 0)
        running.call(running.model.may_answer.set)
        np.testing.assert_array_equal(answer.result()["actions"], expected_actions(1))
        np.testing.assert_array_equal(staying.infer(observation(1))["actions"], expected_actions(1, 1))
        assert running.model.batches == [["task 1"], ["task 1"]]
        running.wait_until(lambda: len(running.server._clients) == 1)
        assert outcome(running, "gone") == 1


def test_a_client_that_leaves_while_it_is_answered_disturbs_nobody() -> None:
    with serving(StandIn(may_answer_at_first=False)) as running:
        leaving = raw(running)
        leaving.send(pack(observation(2)))
        running.wait_until(lambda: len(running.model.batches) == 1)
        cut(leaving)
        running.wait_until(lambda: not running.server._clients)
        running.call(running.model.may_answer.set)
        with client(running) as other:
            np.testing.assert_array_equal(other.infer(observation(1))["actions"], expected_actions(1))


def test_bytes_that_are_no_websocket_disturb_nobody(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port)) as stranger:
        stranger.sendall(b"\x16\x03\x01\x02\x00 this is not HTTP\r\n\r\n")
        while stranger.recv(4096):
            pass
    connection = raw(running)
    connection.socket.sendall(b"\xff" * 100)  # no frame
    with pytest.raises(ConnectionClosed):
        connection.recv(timeout=10)
    with client(running) as other:
        other.infer(observation())


def test_a_policy_that_fails_is_told_without_its_secrets_and_in_healthz() -> None:
    with serving(StandIn(failing=True)) as running, client(running) as asking:
        for failures in range(1, 4):
            with pytest.raises(PolicyFailed) as error:
                asking.infer(observation())
            assert str(error.value) == "the policy failed (FloatingPointError); the server's log says why"
            assert get(running, "/healthz")[0] == (200 if failures < 3 else 503)
        running.model.failing = False
        asking.infer(observation())
        assert get(running, "/healthz") == (200, "OK\n")
        assert outcome(running, "failed") == 3


def test_a_batch_that_fails_is_one_failure(caplog: pytest.LogCaptureFixture) -> None:
    with (
        serving(StandIn(failing=True, may_answer_at_first=False)) as running,
        ThreadPoolExecutor(5) as robots,
        contextlib.ExitStack() as clients,
    ):
        asking = [clients.enter_context(client(running)) for _ in range(5)]
        first = robots.submit(asking[0].infer, observation(0))
        running.wait_until(lambda: len(running.model.batches) == 1)
        others = [robots.submit(asking[robot].infer, observation(robot)) for robot in range(1, 5)]
        running.wait_until(lambda: running.server._queue.num_waiting == 4)
        running.call(running.model.may_answer.set)
        for answer in (first, *others):
            assert isinstance(answer.exception(), PolicyFailed)
        assert get(running, "/healthz") == (200, "OK\n")
        assert outcome(running, "failed") == 5
        assert [record.message for record in caplog.records].count("the policy failed") == 2


def test_a_server_that_stops_answers_what_was_asked_and_says_goodbye() -> None:
    with serving(StandIn(may_answer_at_first=False), batch_size=1) as running, ThreadPoolExecutor(3) as robots:
        idle, *asking = (client(running) for _ in range(3))
        answers = [robots.submit(asking[robot].infer, observation(robot)) for robot in range(2)]
        running.wait_until(lambda: running.server._queue.num_waiting == 1)
        stopping = robots.submit(running.stop)
        with pytest.raises(ConnectionClosedOK, match=r"1001.*the server stops"):
            idle._connection.recv(timeout=10)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", running.port))
        running.call(running.model.may_answer.set)
        for robot, answer in enumerate(answers):
            np.testing.assert_array_equal(answer.result()["actions"], expected_actions(robot))
        stopping.result()
        with pytest.raises(ServerGone, match="1001"):
            asking[0].infer(observation())


def test_a_server_does_not_wait_forever_for_its_policy() -> None:
    with serving(StandIn(may_answer_at_first=False)) as running, ThreadPoolExecutor(1) as robots:
        answer = robots.submit(client(running).infer, observation())
        running.wait_until(lambda: len(running.model.batches) == 1)
        running.stop(0.1)
        with pytest.raises(ServerGone):
            answer.result()


def test_sixteen_clients_of_every_kind_at_once_leave_a_server_that_answers() -> None:
    """Good ones, malformed ones, too large ones, and those that leave: all at the same time."""
    with serving(StandIn(), batch_size=4, max_waiting=4, max_clients=16) as running:
        begin = threading.Barrier(16)

        def good(robot: int) -> None:
            with client(running) as asking:
                begin.wait()
                chunk = 0
                while chunk < 10:
                    with contextlib.suppress(ServerBusy):
                        np.testing.assert_array_equal(
                            asking.infer(observation(robot))["actions"], expected_actions(robot, chunk)
                        )
                        chunk += 1

        def malformed(robot: int) -> None:
            connection = raw(running)
            begin.wait()
            for message, told in [*MALFORMED.values()] * 2:
                assert str(send_and_receive(connection, message)).startswith(told)
            connection.close()

        def too_large(robot: int) -> None:
            connection = raw(running)
            begin.wait()
            with pytest.raises(ConnectionClosed, match="1009"):
                send_and_receive(connection, bytes(2**21))

        def leaving(robot: int) -> None:
            connection = raw(running)
            begin.wait()
            connection.send(pack(observation(robot)))
            cut(connection)

        with ThreadPoolExecutor(16) as robots:
            kinds = (good, malformed, too_large, leaving)
            for ended in [robots.submit(kinds[robot % 4], robot) for robot in range(16)]:
                ended.result()
        running.wait_until(lambda: not running.server._clients)
        assert running.server._queue.num_waiting == 0
        assert get(running, "/healthz") == (200, "OK\n")
        with client(running) as after:
            np.testing.assert_array_equal(after.infer(observation(9))["actions"], expected_actions(9))
