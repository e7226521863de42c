"""Examples read back whatever way they were encoded; no bytes raise anything but a fault of the data."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from examples import encode_example
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
