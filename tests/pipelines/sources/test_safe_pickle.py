"""Annotations load, and no pickle runs anything."""

from __future__ import annotations

import builtins
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipelines.sources.safe_pickle import load_pickled_npy
from schemas.errors import DataError

PLAIN = st.recursive(
    st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.booleans(), st.none(), st.binary(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner, inner), st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


def npy(value: object) -> bytes:
    buffer = io.BytesIO()
    array = np.empty((), object)
    array[()] = value
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def header_and(pickled: bytes) -> bytes:
    plain = npy(0)
    return plain[: plain.index(b"\n") + 1] + pickled


@given(value=PLAIN)
def test_plain_values_load_unchanged(value: object) -> None:
    assert load_pickled_npy(npy(value), "x") == value


@given(array=hnp.arrays(st.sampled_from([np.float32, np.int64, np.uint8, "U4"]), hnp.array_shapes(max_side=5)))
def test_arrays_and_scalars_inside_load_unchanged(array: np.ndarray) -> None:
    loaded = load_pickled_npy(npy({"a": array, "b": (array.ravel()[0], 3)}), "x")
    np.testing.assert_array_equal(loaded["a"], array)
    np.testing.assert_array_equal(loaded["b"][0], array.ravel()[0])


class Calls:
    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


HOSTILE = {
    "os.system": Calls(os.system, "touch PWNED"),
    "eval": Calls(eval, "open('PWNED', 'w')"),
    "getattr": Calls(getattr, "x", "upper"),
    "open": Calls(builtins.open, "PWNED", "w"),
    "nested": {"language": {"ann": [Calls(os.system, "touch PWNED")]}},
    "class": Calls(type, "X", (), {}),
    "import": Calls(__import__, "os"),
    "an object in an array": np.array([Calls(os.system, "touch PWNED")], object),
    "pickle in a pickle": Calls(pickle.loads, pickle.dumps(Calls(os.system, "touch PWNED"))),
    "a bomb of memory": Calls(bytearray, 10**13),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_hostile_pickle_is_refused_and_runs_nothing(name: str, protocol: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="unsafe_pickle"):
        load_pickled_npy(header_and(pickle.dumps(HOSTILE[name], protocol)), "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cos\nsystem\n(S'touch PWNED'\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x0fgetattr.__call__\x93.",
        b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
        b"\x80\x02\x82\x01.",  # extension registry
        b"\x80\x04\x8c\x16numpy.core.multiarray\x8c\x0c_reconstruct\x93\x8c\x01x\x85R.",
        b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft\x85\x81.",
        b"garbage",
        b"",
    ],
)
def test_hand_made_opcodes_end_as_a_fault_of_the_data(opcodes: bytes, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError):
        load_pickled_npy(header_and(opcodes), "x")
    assert list(tmp_path.iterdir()) == []


@given(content=st.binary(max_size=120))
def test_arbitrary_pickles_are_at_worst_a_fault_of_the_data(content: bytes) -> None:
    try:
        load_pickled_npy(header_and(content), "x")
    except DataError:
        return


def test_the_hostile_sample_is_refused(shared_data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="unsafe_pickle"):
        load_pickled_npy((shared_data / "broken" / "evil_lang_ann.npy").read_bytes(), "evil")
    assert list(tmp_path.iterdir()) == []
