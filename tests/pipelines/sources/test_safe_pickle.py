"""Annotations load, and no pickle runs anything."""

from __future__ import annotations

import builtins
import copyreg
import io
import os
import pickle
import tracemalloc
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


def fault(content: bytes) -> str:
    """The reason for which a file is turned away, or empty."""
    try:
        load_pickled_npy(content, "x")
    except DataError as error:
        return error.reason
    return ""


def same(found: object, expected: object) -> bool:
    """Equal, of the same types, all the way down."""
    if type(found) is not type(expected):
        return False
    if isinstance(expected, np.ndarray):
        if expected.dtype == object:
            return found.shape == expected.shape and all(map(same, found.ravel(), expected.ravel()))
        return found.dtype == expected.dtype and np.array_equal(found, expected)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(map(same, found.values(), expected.values()))
    return found == expected


@given(value=PLAIN, protocol=st.sampled_from(range(pickle.HIGHEST_PROTOCOL + 1)))
def test_plain_values_load_unchanged(value: object, protocol: int) -> None:
    assert same(load_pickled_npy(npy(value), "x"), value)
    assert same(load_pickled_npy(pickle.dumps(value, protocol), "x"), value)


TYPES = [np.float32, np.float64, np.int64, np.uint8, np.bool_, np.complex64, "U4", "S3", ">f8", ">i2"]


@given(
    array=hnp.arrays(
        st.sampled_from(TYPES), hnp.array_shapes(min_dims=0, min_side=0, max_side=5), elements={"allow_nan": False}
    ),
    protocol=st.sampled_from(range(pickle.HIGHEST_PROTOCOL + 1)),
    turned=st.booleans(),
)
def test_arrays_and_scalars_inside_load_unchanged(array: np.ndarray, protocol: int, turned: bool) -> None:
    array = array.T if turned else array
    value = {"a": array, "b": [(scalar, 3) for scalar in array.ravel()[:2]], "c": array.dtype, "again": array}
    assert same(load_pickled_npy(npy(value), "x"), value)
    loaded = load_pickled_npy(pickle.dumps(value, protocol), "x")
    assert same(loaded, value)
    assert loaded["a"] is loaded["again"]


def test_the_spelling_of_numpy_1_loads_too() -> None:
    value = {"a": np.arange(3.0), "b": np.int64(5)}
    for protocol in (0, 2):  # names in plain text
        content = pickle.dumps(value, protocol)
        assert b"numpy._core.multiarray" in content
        assert same(load_pickled_npy(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"), "x"), value)


def test_arrays_of_objects_and_of_numbers_load_from_their_own_files() -> None:
    objects = np.array([[1, "a", None], [(2, 3), [4], np.float32(5)]], object)
    numbers = np.arange(6, dtype=np.int64).reshape(3, 2)
    for array in (objects, numbers, np.asfortranarray(objects)):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=True)
        assert same(load_pickled_npy(buffer.getvalue(), "x"), array)


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
    "getattr of a module": Calls(getattr, Calls(__import__, "os"), "system"),
    "exec": Calls(exec, "open('PWNED', 'w')"),
    "numpy's own loader": Calls(np.load, "PWNED", None, True),
    "numpy.f2py": Calls(np.f2py.run_main, ["-c", "PWNED"]),
    "a class": np.ndarray,
    "a set": {1, 2},
    "a structured array": np.zeros(2, [("a", "f8"), ("b", "i4")]),
    "a date": np.datetime64("2024-01-01"),
    "as a key": {Calls(os.system, "touch PWNED"): 1},
    "an object in an array": np.array([Calls(os.system, "touch PWNED")], object),
    "pickle in a pickle": Calls(pickle.loads, pickle.dumps(Calls(os.system, "touch PWNED"))),
    "a bomb of memory": Calls(bytearray, 10**13),
    "another one": Calls(bytes, 10**13),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_hostile_pickle_is_refused_and_runs_nothing(name: str, protocol: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="unsafe_pickle"):
        load_pickled_npy(header_and(pickle.dumps(HOSTILE[name], protocol)), "x")
    assert list(tmp_path.iterdir()) == []


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def plain(value: object) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


RECONSTRUCT = name("numpy._core.multiarray", "_reconstruct")
EMPTY_ARRAY = RECONSTRUCT + name("numpy", "ndarray") + plain((0,)) + b"C\x01b\x87R"
FLOATS = (
    name("numpy", "dtype") + plain(("f8", False, True)) + b"R" + plain((3, "<", None, None, None, -1, -1, 0)) + b"b"
)
OBJECTS = (
    name("numpy", "dtype") + plain(("O", False, True)) + b"R" + plain((3, "|", None, None, None, -1, -1, 63)) + b"b"
)


def forged_dtype(inner: bytes, offset: int) -> bytes:
    """A dtype of 8 bytes that holds no objects, it says, with one field."""
    fields = b"}" + text("a") + inner + plain(offset) + b"\x86s"
    state = b"(" + plain(3) + plain("|") + b"N" + plain(("a",)) + fields + plain(8) + plain(1) + plain(0) + b"t"
    return name("numpy", "dtype") + plain(("V8", False, True)) + b"R" + state + b"b"


def array_of(dtype: bytes, shape: object = (1,), content: bytes = b"C\x08AAAAAAAA") -> bytes:
    return EMPTY_ARRAY + b"(K\x01" + plain(shape) + dtype + b"\x89" + content + b"tb."


def test_a_hand_made_array_loads() -> None:
    assert load_pickled_npy(array_of(FLOATS), "x").tobytes() == b"AAAAAAAA"
    assert load_pickled_npy(array_of(OBJECTS, (2,), b"]q\x01(K\x05Ne"), "x").tolist() == [5, None]


UNSAFE = {
    "a global in plain text": b"cos\nsystem\n(S'touch PWNED'\ntR.",
    "the operation that makes instances": b"(S'touch PWNED'\nios\nsystem\n.",
    "the other one": b"(cos\nsystem\nS'touch PWNED'\no.",
    "a dotted name": b"\x80\x04" + text("builtins") + text("getattr.__call__") + b"\x93.",
    "a dotted name below one on the list": b"\x80\x04" + text("numpy") + text("ndarray.__init__") + b"\x93.",
    "a dotted name to a module": b"\x80\x04"
    + text("numpy")
    + text("f2py.os.system")
    + b"\x93"
    + text("touch PWNED")
    + b"\x85R.",
    "a name that is a tuple": b"\x80\x04" + text("numpy") + b")\x93.",
    "the registry of extensions": b"\x80\x02\x82\xf0.",
    "a persistent id": b"Psomething\n.",
    "a new object": name("numpy", "ndarray") + plain((2**31 - 1, 2**31 - 1)) + b"\x85\x81.",
    "copyreg": name("copyreg", "_reconstructor") + name("numpy", "ndarray") + name("builtins", "object") + b"N\x87R.",
    "an array of another type": RECONSTRUCT + text("x") + plain((0,)) + b"C\x01b\x87R.",
    "an array of a huge shape": RECONSTRUCT + name("numpy", "ndarray") + plain((2**40,)) + b"C\x01b\x87R.",
    "an unfinished array": EMPTY_ARRAY + b".",
    "an unfinished array in a list": b"]" + EMPTY_ARRAY + b"a.",
    "a bare name in a nested tuple": name("numpy", "dtype") + b"\x85\x85.",
    "bytes as object pointers": array_of(forged_dtype(OBJECTS, 0)),
    "a field beyond the bytes": array_of(forged_dtype(FLOATS, 10**9)),
    "bytes as an array of objects": array_of(OBJECTS),
    "a negative shape": array_of(FLOATS, (-1, -1)),
    "a scalar of an object": name("numpy.core.multiarray", "scalar") + OBJECTS + b"C\x08AAAAAAAA\x86R.",
    "a type of many parts": name("numpy", "dtype")
    + plain(("(9,9)f8", False, True))
    + b"R"
    + plain((3, "<", None, None, None, -1, -1, 0))
    + b"b.",
    "a state for a dict": b"}" + b"}" + text("__class__") + text("x") + b"sb.",
    "a state for a name": name("numpy", "dtype") + b"}" + text("name") + text("scalar") + b"sb.",
    "items for a tuple": b"(t(K\x01e.",
    "a key that takes for ever to hash": b"}" + b")q\x00" + b"h\x00h\x00\x86q\x00" * 100 + b"Ns.",
}


@pytest.mark.parametrize("opcodes", UNSAFE.values(), ids=UNSAFE)
def test_hand_made_opcodes_are_refused_and_run_nothing(opcodes: bytes, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (header_and(opcodes), opcodes):
        with pytest.raises(DataError, match="unsafe_pickle"):
            load_pickled_npy(content, "x")
    assert list(tmp_path.iterdir()) == []


def test_an_extension_that_python_already_knows_is_refused() -> None:
    copyreg.add_extension("os", "system", 0xF1)
    try:
        pickle.loads(b"\x80\x02\x82\xf1.")  # noqa: S301 - fills the cache that lets an Unpickler pass by `find_class`
        with pytest.raises(DataError, match="unsafe_pickle"):
            load_pickled_npy(b"\x80\x02\x82\xf1" + text("touch PWNED") + b"\x85R.", "x")
    finally:
        copyreg.remove_extension("os", "system", 0xF1)


HUGE = io.BytesIO()
np.lib.format.write_array_header_1_0(HUGE, {"descr": "<f8", "fortran_order": False, "shape": (10**11,)})
DAMAGED = {
    "nothing": b"",
    "no pickle": b"garbage",
    "a shape that the file cannot hold": HUGE.getvalue() + b"12345678",
    "an array of more than its bytes": array_of(FLOATS, (10**12,)),
    "any number of empty strings": array_of(
        name("numpy", "dtype") + plain(("S0", False, True)) + b"R" + plain((3, "|", None, None, None, 0, 1, 0)) + b"b",
        (10**12,),
        b"C\0",
    ),
    "an item from an empty stack": b"\x86.",
    "an unknown memo": b"h\x05.",
    "no end": plain([1, 2]),
    "an uneven dict": b"(NNNd.",
    "a header that nests too deep": b"\x93NUMPY\x01\x00" + (9000).to_bytes(2, "little") + b"(" * 9000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_has_its_reason(content: bytes) -> None:
    with pytest.raises(DataError, match="decode_error"):
        load_pickled_npy(content, "x")


AMPLIFIERS = {
    "a large memo key": b"Nr\xff\xff\xff\x7f.",
    "the same bytes in many arrays": b"".join(
        [b"B", (10**5).to_bytes(4, "little"), bytes(10**5), b"q\x00", FLOATS, b"q\x01](",
         *[EMPTY_ARRAY + b"(K\x01" + plain((12_500,)) + b"h\x01\x89h\x00tb"] * 2000, b"e."]
    ),
    "the same text encoded often": b"".join([text("a" * 10**5), b"q\x00](", *[name("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R"] * 2000, b"e."]),
    "the same list in many arrays": b"".join(
        [b"](", b"N" * 10**5, b"eq\x00", OBJECTS, b"q\x01](", *[EMPTY_ARRAY + b"(K\x01" + plain((10**5,)) + b"h\x01\x89h\x00tb"] * 2000, b"e."]
    ),
}  # fmt: skip


@pytest.mark.parametrize("content", AMPLIFIERS.values(), ids=AMPLIFIERS)
def test_memory_stays_within_a_small_multiple_of_the_file(content: bytes) -> None:
    tracemalloc.start()
    reason = fault(content)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reason in ("unsafe_pickle", "")
    assert peak_bytes < 30 * len(content) + 2**20


def test_a_value_that_would_print_without_end_does_not_hang() -> None:
    bomb = b")q\x00" + b"h\x00h\x00\x86q\x00" * 100
    for opcodes in (
        text("numpy") + bomb + b"\x93.",
        name("numpy", "dtype") + bomb + b"R.",
        array_of(FLOATS)[:-2] + bomb + b"b.",
    ):
        with pytest.raises(DataError) as error:
            load_pickled_npy(opcodes, "x")
        assert len(error.value.detail) < 1000


@given(data=st.data())
def test_a_damaged_pickle_is_at_worst_a_fault_of_the_data(data: st.DataObject) -> None:
    content = bytearray(
        npy({"language": {"ann": ["a", "b"]}, "info": {"indx": [(np.int64(1), np.int64(2))]}, "x": np.zeros((2, 3))})
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    assert fault(bytes(content)) in ("unsafe_pickle", "decode_error", "")


@given(content=st.binary(max_size=120))
def test_arbitrary_pickles_are_at_worst_a_fault_of_the_data(content: bytes) -> None:
    assert fault(header_and(content)) in ("unsafe_pickle", "decode_error", "")


def test_a_fault_names_the_file_and_what_was_found() -> None:
    with pytest.raises(DataError, match=r"expected numbers.*found the name posix\.system in annotations/x\.npy"):
        load_pickled_npy(pickle.dumps(HOSTILE["os.system"]), "annotations/x.npy")


def test_the_hostile_sample_is_refused(shared_data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="unsafe_pickle"):
        load_pickled_npy((shared_data / "broken" / "evil_lang_ann.npy").read_bytes(), "evil")
    assert list(tmp_path.iterdir()) == []
