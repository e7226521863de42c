"""Messages between a robot and a policy server: openpi's protocol, MessagePack with NumPy arrays over WebSocket.

The server sends its metadata first. Then each binary message of the client, an observation, is answered by one message:
a binary one with `actions` and `server_timing`, or a text, which is an error: `kind: what was expected and found`.

An array is a map with keys of type bytes: `__ndarray__`, `data` (C order), `dtype` (such as `<f4`) and `shape`; a NumPy
scalar is one with `__npgeneric__`, `data` and `dtype`. Only plain numbers and booleans pass: nothing is ever unpickled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from schemas.errors import VPPError

_ARRAY, _SCALAR, _DATA, _DTYPE, _SHAPE = b"__ndarray__", b"__npgeneric__", b"data", b"dtype", b"shape"
_NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_KINDS = "biuf"
_MAX_AXES = 8
_MOST_ITEMS = 1 << 16  # of a list or map: room is made for as many as it claims, at every level


class ServerError(VPPError):
    """What a server answers in the place of actions."""

    kind = "failed"


class InvalidRequest(ServerError, ValueError):
    """The message or the observation in it is not what the server's policy takes; asking again the same is no use."""

    kind = "invalid"


class ServerBusy(ServerError):
    """As many wait as may wait; the request was not begun and can be sent again."""

    kind = "busy"


class PolicyFailed(ServerError):
    """The policy could not answer; the server's log says why."""


def pack(values: Any) -> bytes:
    """Plain values, arrays and NumPy scalars as a message.

    Raises:
        TypeError: If something else is in it, or an array of anything but numbers and booleans.
    """
    packed: bytes = msgpack.packb(values, default=_to_plain)
    return packed


def unpack(message: bytes) -> Any:
    """The inverse of `pack`; arrays are writable, in the machine's byte order, and share no memory with the message.

    Raises:
        InvalidRequest: If the message is not MessagePack, or an array in it is not one of numbers.
    """
    try:
        return msgpack.unpackb(
            message, object_hook=_from_plain, max_array_len=_MOST_ITEMS, max_map_len=_MOST_ITEMS, max_ext_len=0
        )
    except InvalidRequest:
        raise
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        found = f"{type(error).__name__} ({error})" if str(error) else type(error).__name__
        raise InvalidRequest(f"message of {len(message)} bytes: expected MessagePack, found {found}") from error


def error_text(error: ServerError) -> str:
    """An error as a text message."""
    return f"{error.kind}: {error}"


def error_from_text(text: str) -> ServerError:
    """The inverse of `error_text`; a text of an unknown kind is a `PolicyFailed`."""
    kind, _, told = text.partition(": ")
    for error in (InvalidRequest, ServerBusy, PolicyFailed):
        if error.kind == kind:
            return error(told)
    return PolicyFailed(text)


def _to_plain(value: Any) -> Mapping[bytes, Any]:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in _KINDS:
        if isinstance(value, np.generic):
            return {_SCALAR: True, _DATA: value.item(), _DTYPE: value.dtype.str}
        return {_ARRAY: True, _DATA: value.tobytes(), _DTYPE: value.dtype.str, _SHAPE: value.shape}
    what = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    raise TypeError(f"message: expected plain values and arrays of numbers, found {what}")


def _from_plain(value: dict[Any, Any]) -> Any:
    if _ARRAY in value:
        return _array(value)
    if _SCALAR in value:
        number = value.get(_DATA)
        if not isinstance(number, bool | int | float):
            raise InvalidRequest(f"NumPy scalar: expected a number, found {type(number).__name__}")
        try:
            return _dtype(value.get(_DTYPE)).type(number)
        except OverflowError as error:
            raise InvalidRequest(f"NumPy scalar: {error}") from error
    return value


def _array(value: Mapping[bytes, Any]) -> np.ndarray:
    dtype, shape, data = _dtype(value.get(_DTYPE)), value.get(_SHAPE), value.get(_DATA)
    if not isinstance(shape, list) or len(shape) > _MAX_AXES or not all(_is_size(size) for size in shape):
        raise InvalidRequest(f"array: expected as shape a list of at most {_MAX_AXES} sizes, found {_short(shape)}")
    expected = math.prod(shape) * dtype.itemsize
    if not isinstance(data, bytes) or len(data) != expected:
        found = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise InvalidRequest(f"array {dtype.name} {_short(shape)}: expected {expected} bytes, found {found}")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _dtype(name: Any) -> np.dtype:
    if not isinstance(name, str) or not _NUMBERS.fullmatch(name):
        raise InvalidRequest(f"array: expected a dtype of numbers or booleans such as '<f4', found {_short(name)}")
    return np.dtype(name)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
