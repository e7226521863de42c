"""Messages come back as they were, are openpi's own, and nothing but plain values is ever made of one."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vpp.serve.protocol import InvalidRequest, PolicyFailed, ServerBusy, error_from_text, error_text, pack, unpack

NUMBERS = st.one_of(
    arrays.boolean_dtypes(),
    arrays.integer_dtypes(),
    arrays.unsigned_integer_dtypes(),
    arrays.floating_dtypes(sizes=(16, 32, 64)),
)
ARRAYS = arrays.arrays(NUMBERS, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0))
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text(), st.binary()
)


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype.newbyteorder("=")
        assert found.flags.writeable
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected
        assert type(found) is type(expected)


@settings(max_examples=40)
@given(st.recursive(PLAIN | ARRAYS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_what_is_packed_comes_back(values: Any) -> None:
    assert_same(unpack(pack(values)), values)


@pytest.mark.parametrize("number", [np.float32(1.5), np.int16(-3), np.bool_(True), np.uint64(2**63)])
def test_scalars_keep_their_type(number: np.generic) -> None:
    assert_same(unpack(pack({"number": number})), {"number": number})


def test_parts_of_arrays_and_big_endian_ones_come_back_as_plain_ones() -> None:
    big = np.arange(12, dtype=">i4").reshape(3, 4)
    assert_same(unpack(pack(big[:, ::2])), np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2])


@pytest.mark.parametrize(
    "value", [np.array([object()]), np.array([1j]), np.zeros(2, "i4,f4"), np.array(["a"]), object()]
)
def test_what_is_no_number_is_not_packed(value: Any) -> None:
    with pytest.raises(TypeError, match="expected plain values and arrays of numbers, found"):
        pack({"value": value})


def array(**changes: Any) -> dict[bytes, Any]:
    values = {"__ndarray__": True, "data": b"\0" * 8, "dtype": "<f4", "shape": [2]} | changes
    return {key.encode(): value for key, value in values.items()}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (array(dtype="|O", data=pickle.dumps(print)), "dtype of numbers or booleans such as '<f4', found '|O'"),
        (array(dtype="|V4"), "found '|V4'"),
        (array(dtype="i4,O"), "found 'i4,O'"),
        (array(dtype="M8[s]"), "found"),
        (array(dtype=[["a", "<f4"]]), "found"),
        (array(dtype=None), "found None"),
        (array(shape=[3]), "array float32 [3]: expected 12 bytes, found 8 bytes"),
        (array(shape=[1]), "expected 4 bytes, found 8 bytes"),
        (array(shape=[-1]), "list of at most 8 sizes, found [-1]"),
        (array(shape=[2**40, 2**40]), "list of at most 8 sizes"),
        (array(shape=[2**63, 0], data=b""), "list of at most 8 sizes"),
        (array(shape=[1] * 9), "list of at most 8 sizes"),
        (array(shape=[True, 2]), "list of at most 8 sizes"),
        (array(shape=2), "found 2"),
        (array(data="text"), "expected 8 bytes, found str"),
        ({b"__ndarray__": True}, "dtype of numbers or booleans such as '<f4', found None"),
        ({b"__npgeneric__": True, b"dtype": "<f4", b"data": [1]}, "NumPy scalar: expected a number, found list"),
        ({b"__npgeneric__": True, b"dtype": "|i1", b"data": 300}, "NumPy scalar"),
        ({b"__npgeneric__": True, b"dtype": "<i4", b"data": float("nan")}, "NaN"),
    ],
)  # fmt: skip
def test_an_array_that_is_none_is_refused(values: Any, told: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        unpack(msgpack.packb({"image": values}))
    assert told in str(error.value)


@pytest.mark.parametrize(
    "message",
    [b"", b"\xc1", b"\x80\x80", b"hello", msgpack.packb([1])[:-1], b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 5000,
     msgpack.packb({1: 2}), b"\xa1\xff", pickle.dumps({"a": 1})],
)  # fmt: skip
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidRequest, match="expected MessagePack, found"):
        unpack(message)


@given(st.binary(max_size=200))
def test_whatever_comes_is_unpacked_or_refused(message: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        unpack(message)


def test_messages_are_openpis_own() -> None:
    theirs = pytest.importorskip("openpi_client.msgpack_numpy", reason="make installs openpi-client")
    values = {
        "image": np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
        "state": np.float32(0.5),
        "task": "open",
        "n": [1, 2.5],
    }
    assert pack(values) == theirs.packb(values)
    assert_same(unpack(theirs.packb(values)), values)
    for key, value in theirs.unpackb(pack(values)).items():
        np.testing.assert_array_equal(value, values[key])


@pytest.mark.parametrize("error", [InvalidRequest("a: b"), ServerBusy("c"), PolicyFailed("d")])
def test_errors_come_back(error: Exception) -> None:
    found = error_from_text(error_text(error))  # type: ignore[arg-type]
    assert type(found) is type(error)
    assert str(found) == str(error)


def test_an_unknown_error_is_a_failure() -> None:
    assert isinstance(error_from_text("Traceback (most recent call last)"), PolicyFailed)
