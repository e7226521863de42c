"""Reads the pickled objects that NumPy writes into `.npy` files, running nothing that stands in them.

A pickle is a program for a small stack machine, whose operations `pickletools` documents. This machine knows those that
make numbers, strings, tuples, lists and dicts, and the few names with which a NumPy array or scalar is written.

Why not `pickle.Unpickler` with a `find_class` that admits only these names: the state that a pickle hands to a NumPy
dtype can claim that raw bytes are object pointers, which is as good as running code, and a single operation can make
the Unpickler's memo take gigabytes. Here NumPy gets plain dtypes and the right number of bytes, and memory stays within
a small multiple of the file's size.
"""

from __future__ import annotations

import io
import math
import pickletools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from schemas.errors import DataError

_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NAMES = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",  # with this one, protocols 0 to 2 write bytes,
    ("__builtin__", "bytes"): "bytes",  # and with this one, none
}
for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    _NAMES |= {(f"{_core}.multiarray", name): name for name in ("_reconstruct", "scalar")}
    _NAMES[f"{_core}.numeric", "_frombuffer"] = "_frombuffer"

_KEYS = (bool, int, float, str, bytes, type(None), np.generic)  # no tuples: hashing nested ones can take for ever
_VALUES = (*_KEYS, list, dict, np.ndarray, np.dtype)


class _RefusedError(Exception):
    """The pickle asks for something that is not on the list; the text says what."""


@dataclass(frozen=True)
class _Name:
    """One of `_NAMES`."""

    name: str


class _Arguments(tuple[Any, ...]):
    """A tuple with something inside that may be an argument but not a value."""

    __slots__ = ()


@dataclass
class _Unfilled:
    """A dtype (with its type code) or an array whose state the pickle has yet to tell."""

    type_code: str | None
    memo_keys: list[int] = field(default_factory=list)


def load_pickled_npy(content: bytes, where: str) -> Any:
    """The object in a `.npy` file that NumPy wrote with `allow_pickle`, or in a bare pickle.

    Args:
        content: The file.
        where: Its name, for messages.

    Returns:
        Numbers, strings, bytes, None, tuples, lists, dicts and NumPy arrays, scalars and dtypes; an array of no
        dimension is unwrapped.

    Raises:
        DataError: `unsafe_pickle` if the file asks for anything else, `decode_error` if it is damaged.
    """
    try:
        if not content.startswith(np.lib.format.MAGIC_PREFIX):
            return _Machine(content).run()
        handle = io.BytesIO(content)
        version = np.lib.format.read_magic(handle)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(handle)
        body = content[handle.tell() :]
        if not dtype.hasobject:
            if math.prod(shape) * dtype.itemsize != len(body):
                raise ValueError(f"{len(body)} bytes for an array of {dtype} of shape {shape}")
            return np.load(io.BytesIO(content), allow_pickle=False)
        loaded = _Machine(body).run()
    except _RefusedError as error:
        raise DataError("unsafe_pickle", f"expected numbers, strings and arrays, found {error} in {where}") from error
    except Exception as error:  # whatever a damaged file led to; nothing in here reads a file or a network
        found = f"{type(error).__name__}: {error}"[:200]
        raise DataError("decode_error", f"expected an object pickled by NumPy, found {found} in {where}") from error
    return loaded.item() if isinstance(loaded, np.ndarray) and loaded.shape == () == shape else loaded


class _Machine:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._budget = 2 * len(content)  # what is copied: each byte once as encoded text and once into an array

    def run(self) -> Any:
        for operation, argument, _ in pickletools.genops(self._content):
            if operation.name == "STOP":
                return _values([self._stack.pop()])[0]
            self._step(operation.name, argument)
        raise ValueError("a pickle without end")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            stack.append(_tuple(self._pop(_TUPLES[name])))
        else:
            match name:
                case "PROTO" | "FRAME":
                    pass
                case "MEMOIZE" | "PUT" | "BINPUT" | "LONG_BINPUT":
                    key = len(self._memo) if name == "MEMOIZE" else argument
                    self._memo[key] = stack[-1]
                    if isinstance(stack[-1], _Unfilled):
                        stack[-1].memo_keys.append(key)
                case "GET" | "BINGET" | "LONG_BINGET":
                    stack.append(self._memo[argument])
                case "MARK":
                    self._marks.append(len(stack))
                case "POP":
                    self._pop(1)
                case "POP_MARK":
                    self._pop_to_mark()
                case "EMPTY_TUPLE":
                    stack.append(())
                case "TUPLE":
                    stack.append(_tuple(self._pop_to_mark()))
                case "EMPTY_LIST":
                    stack.append([])
                case "LIST":
                    stack.append(_values(self._pop_to_mark()))
                case "APPEND" | "APPENDS":
                    items = self._pop(1) if name == "APPEND" else self._pop_to_mark()
                    _of_type(stack[-1], list).extend(_values(items))
                case "EMPTY_DICT":
                    stack.append({})
                case "DICT":
                    stack.append(_pairs(self._pop_to_mark()))
                case "SETITEM" | "SETITEMS":
                    items = self._pop(2) if name == "SETITEM" else self._pop_to_mark()
                    _of_type(stack[-1], dict).update(_pairs(items))
                case "GLOBAL":
                    stack.append(_name(*argument.split(" ", 1)))
                case "STACK_GLOBAL":
                    stack.append(_name(*self._pop(2)))
                case "REDUCE":
                    function, arguments = self._pop(2)
                    stack.append(self._made(_of_type(function, _Name).name, _of_type(arguments, tuple, _Arguments)))
                case "BUILD":
                    unfilled, state = self._pop(2)
                    stack.append(self._filled(_of_type(unfilled, _Unfilled), _of_type(state, tuple)))
                    self._memo |= dict.fromkeys(unfilled.memo_keys, stack[-1])
                    unfilled.memo_keys.clear()
                case _:
                    raise _RefusedError(f"the pickle operation {name}")

    def _pop(self, count: int) -> list[Any]:
        if count > len(self._stack):
            raise IndexError("an empty stack")
        items = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return items

    def _pop_to_mark(self) -> list[Any]:
        return self._pop(len(self._stack) - self._marks.pop())

    def _made(self, function: str, arguments: tuple[Any, ...]) -> Any:
        """What a call of one of the names means."""
        match function, arguments:
            case "dtype", (str() as code, *_):
                return _Unfilled(code)
            case "_reconstruct", (_Name("ndarray"), (0,), _):
                return _Unfilled(None)
            case "scalar", (np.dtype() as dtype, (bytes() | str()) as raw):
                return self._array((), dtype, False, raw)[()]
            case "_frombuffer", ((bytes() | bytearray()) as raw, np.dtype() as dtype, tuple() as shape, str() as order):
                return self._array(shape, dtype, order == "F", raw)
            case "encode", (str() as text, "latin1"):
                self._spend(len(text))
                return text.encode("latin1")
            case "bytes", ():
                return b""
        raise _RefusedError(f"a call of {function} with {_told(*arguments)}")

    def _filled(self, unfilled: _Unfilled, state: tuple[Any, ...]) -> np.dtype | np.ndarray:
        """The dtype or array with its state."""
        match unfilled.type_code, state:
            case str() as code, (int(), ("<" | ">" | "=" | "|") as order, None, None, None, int(), int(), int()):
                dtype = np.dtype(code)
                if dtype.kind in "biufcSUO" and dtype.names is None and dtype.subdtype is None:
                    return dtype.newbyteorder(order)
            case None, (1, tuple() as shape, np.dtype() as dtype, fortran, (bytes() | str() | list()) as content):
                return self._array(shape, dtype, bool(fortran), content)
        raise _RefusedError(f"{'an array' if unfilled.type_code is None else 'a dtype'} made of {_told(*state)}")

    def _array(self, shape: tuple[Any, ...], dtype: np.dtype, fortran: bool, content: Any) -> np.ndarray:
        """An array whose dtype and shape agree with the content that the pickle brings."""
        if not all(type(length) is int and length >= 0 for length in shape):
            raise _RefusedError(f"an array of shape {_told(*shape)}")
        if dtype.hasobject != isinstance(content, list):
            raise _RefusedError(f"an array of {dtype} made of {_told(content)}")
        self._spend(len(content))
        size, item_size = math.prod(shape), 1 if dtype.hasobject else dtype.itemsize
        if size * item_size != len(content) or (size > 1 and not item_size):  # nothing would hold any number of ""
            raise ValueError(f"{len(content)} items or bytes for an array of {dtype} of shape {shape}")
        if dtype.hasobject:
            flat, fortran = np.empty(size, dtype), False  # NumPy lists objects row by row, however they lay in memory
            for position, item in enumerate(content):
                flat[position] = item
        elif item_size:
            flat = np.frombuffer(content.encode("latin1") if isinstance(content, str) else content, dtype).copy()
        else:
            flat = np.zeros(size, dtype)
        return flat.reshape(shape, order="F" if fortran else "C")

    def _spend(self, num_bytes: int) -> None:
        self._budget -= num_bytes
        if self._budget < 0:
            raise _RefusedError("the same bytes used again and again")


def _is_value(item: Any) -> bool:
    return isinstance(item, _VALUES) or type(item) is tuple


def _values(items: list[Any]) -> list[Any]:
    for item in items:
        if not _is_value(item):
            raise _RefusedError(f"{_told(item)} as a value")
    return items


def _tuple(items: list[Any]) -> tuple[Any, ...]:
    return tuple(items) if all(map(_is_value, items)) else _Arguments(items)


def _pairs(items: list[Any]) -> dict[Any, Any]:
    keys, values = items[::2], _values(items[1::2])
    for key in keys:
        if not isinstance(key, _KEYS):
            raise _RefusedError(f"{_told(key)} as a key")
    return dict(zip(keys, values, strict=True))


def _name(module: Any, name: Any) -> _Name:
    if not (isinstance(module, str) and isinstance(name, str)):
        raise _RefusedError(f"a name made of {_told(module, name)}")
    if (module, name) not in _NAMES:
        raise _RefusedError(f"the name {module[:100]}.{name[:100]}")
    return _Name(_NAMES[module, name])


def _of_type(item: Any, *types: type) -> Any:
    if type(item) not in types:
        raise _RefusedError(f"an operation on {_told(item)}")
    return item


def _told(*items: Any) -> str:
    """Types only: the text of a hostile value can be of any length."""
    return f"({', '.join(type(item).__name__.lstrip('_').lower() for item in items[:10])})"
