"""openpi's own client and broker, as they are on PyPI, talk to the server."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from served import Running, StandIn, expected_actions, observation, serving

PolicyOverWebsocket = pytest.importorskip(
    "openpi_client.websocket_client_policy", reason="`make` installs openpi-client"
).WebsocketClientPolicy
Broker = pytest.importorskip("openpi_client.action_chunk_broker").ActionChunkBroker


@pytest.fixture
def running() -> Iterator[Running]:
    with serving(StandIn(), token="token") as server:
        yield server


@pytest.fixture
def theirs(running: Running) -> PolicyOverWebsocket:
    return PolicyOverWebsocket("127.0.0.1", running.port, api_key="token")


def test_it_gets_metadata_actions_and_timing(theirs: PolicyOverWebsocket) -> None:
    assert theirs.get_server_metadata()["num_actions"] == 4
    for chunk in range(3):
        answer = theirs.infer(observation(7))
        np.testing.assert_array_equal(answer["actions"], expected_actions(7, chunk))
        assert answer["server_timing"]["infer_ms"] >= 0
    assert answer["server_timing"]["prev_total_ms"] > 0


def test_its_name_for_the_instruction_is_taken(theirs: PolicyOverWebsocket) -> None:
    answer = theirs.infer(observation(7, task=None, prompt="task 7"))
    np.testing.assert_array_equal(answer["actions"], expected_actions(7))


def test_it_reports_an_error_and_can_go_on(theirs: PolicyOverWebsocket) -> None:
    with pytest.raises(RuntimeError, match=r"observation.state: expected \[1, 2\], found \[1, 3\]"):
        theirs.infer(observation(7, **{"observation.state": np.zeros(3)}))
    np.testing.assert_array_equal(theirs.infer(observation(7))["actions"], expected_actions(7))


def test_its_broker_takes_chunks_apart(theirs: PolicyOverWebsocket) -> None:
    broker = Broker(theirs, action_horizon=3)
    for step in range(6):
        np.testing.assert_array_equal(
            broker.infer(observation(7))["actions"], expected_actions(7, chunk=step // 3)[step % 3]
        )
