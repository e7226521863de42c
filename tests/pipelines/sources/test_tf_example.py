"""Examples read back whatever way they were encoded; no bytes raise anything but a fault of the data."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from examples import encode_example, field, varint
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipelines.sources.tf_example import parse_example
from schemas.errors import DataError

FEATURE = st.one_of(
    st.lists(st.binary(max_size=40), min_size=1, max_size=5),
    hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(width=32, allow_nan=False)),
    hnp.arrays(np.int64, st.integers(1, 20), elements=st.integers(-(2**63), 2**63 - 1)),
)


@given(features=st.dictionaries(st.text(max_size=12), FEATURE, max_size=5), packed=st.booleans())
def test_features_read_back(features: dict[str, object], packed: bool) -> None:
    parsed = parse_example(encode_example(features, packed))  # type: ignore[arg-type]
    assert parsed.keys() == features.keys()
    for name, value in features.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(parsed[name], value)
            assert parsed[name].dtype == value.dtype  # type: ignore[union-attr]
        else:
            assert [bytes(entry) for entry in parsed[name]] == value


@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_are_at_worst_a_fault_of_the_data(content: bytes) -> None:
    with contextlib.suppress(DataError):
        parse_example(content)


@given(position=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_changed_byte_is_at_worst_a_fault_of_the_data(position: int, value: int) -> None:
    content = bytearray(encode_example({"a": [b"xyz"], "b": np.arange(5), "c": np.ones(3, np.float32)}))
    content[position % len(content)] = value
    with contextlib.suppress(DataError):
        parse_example(bytes(content))


def test_a_cut_example_has_the_reason() -> None:
    content = encode_example({"a": [b"x" * 100]})
    with pytest.raises(DataError, match="bad_example"):
        parse_example(content[:-20])


def feature(content: bytes) -> bytes:
    return field(1, field(1, field(1, b"a") + field(2, content)))


def test_values_are_views_into_the_record_and_not_copies() -> None:
    content = encode_example({"a": [b"x" * 100], "b": np.ones(50, np.float32)})
    parsed = parse_example(content)
    assert [value.obj for value in parsed["a"]] == [content]
    assert parsed["a"][0].obj is content
    assert isinstance(parsed["b"], np.ndarray)
    assert not parsed["b"].flags.owndata


def test_packed_and_unpacked_pieces_may_alternate() -> None:
    numbers = field(1, varint(300) + varint(1)) + b"\x08" + varint(-5) + field(1, b"") + field(1, varint(7))
    assert parse_example(feature(field(3, numbers)))["a"].tolist() == [300, 1, -5, 7]  # type: ignore[union-attr]
    floats = field(1, np.array([1, 2], "<f4").tobytes()) + b"\x0d" + np.array(3, "<f4").tobytes()
    assert parse_example(feature(field(2, floats)))["a"].tolist() == [1, 2, 3]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "content",
    [
        field(3, field(1, b"\x80") + field(1, b"\x01")),  # a varint may not go on in the next piece
        field(3, field(1, b"\xff" * 10 + b"\x01")),
        field(2, field(1, b"abc")),
        field(2, b"\x08\x01"),
        field(4, b""),
        b"\x0b",
        b"\x0a" + b"\xff" * 9 + b"\x01",
    ],
    ids=["split varint", "long varint", "cut float", "integer as float", "no such list", "group", "hostile length"],
)
def test_what_is_no_feature_is_a_bad_example(content: bytes) -> None:
    with pytest.raises(DataError, match="bad_example"):
        parse_example(feature(content))


def test_empty_lists_keep_their_type() -> None:
    parsed = parse_example(encode_example({"a": [], "b": np.zeros(0, np.float32), "c": np.zeros(0, np.int64)}))
    assert parsed["a"] == []
    assert [getattr(parsed[name], "dtype", None) for name in "bc"] == [np.float32, np.int64]
