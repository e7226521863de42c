"""Any message of a client is an observation or is refused, and takes little more room than it has bytes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hostile import EFFORTS, mutants, survives
from hypothesis import strategies as st
from served import CONFIG, observation

from vpp.serve.protocol import InvalidRequest, pack, unpack
from vpp.serve.request import check_request, largest_request_bytes


def ask(message: bytes) -> None:
    check_request(unpack(message), CONFIG, 0)


@EFFORTS
def test_a_message(effort: int) -> None:
    survives(ask, mutants(pack(observation(1))), effort)
    small = {"task": "x", "chunk": 3, "observation.state": np.zeros(2, np.float32), "a": [1, None, {"b": b"c"}]}
    survives(ask, mutants(pack(small)), effort)
    survives(ask, st.binary(max_size=200), effort)


BOMBS = {
    "lists of four billion": b"\xdd\xff\xff\xff\xff" * 500,
    "lists of as many as there are bytes": b"\xdd\x00\x40\x00\x00" * 500,
    "maps of four billion": b"\xdf\xff\xff\xff\xff\xa1a" * 500,
    "an array of 2**62 numbers": b"\x84\xc4\x0b__ndarray__\xc3\xc4\x04data\xc4\x00\xc4\x05dtype\xa3<f8"
    b"\xc4\x05shape\x92\xce\x7f\xff\xff\xff\xce\x7f\xff\xff\xff",
    "text of four billion letters": b"\xdb\xff\xff\xff\xff",
    "nested lists": b"\x91" * 100_000,
    "nested maps": b"\x81\xa1a" * 100_000,
    "an extension": b"\xc7\x05\x01hello",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_and_takes_no_memory(name: str) -> None:
    message = BOMBS[name].ljust(4 << 20, b"\xc0")
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest):
            ask(message)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 400 << 20  # lists with room for as many as they may claim, at every level that MessagePack admits


def test_the_largest_message_is_one_of_our_own_size() -> None:
    assert largest_request_bytes(CONFIG) < 1 << 20
