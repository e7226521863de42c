"""Reads a `tf.train.Example`, a small protobuf, without TensorFlow.

    Example  { Features features = 1; }
    Features { map<string, Feature> feature = 1; }
    Feature  { oneof { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; } }
    any List { repeated value = 1; }  floats and integers packed or not

Bytes values are views into the record, not copies: images are most of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from schemas.errors import DataError

Value = list[memoryview] | np.ndarray
"""A list of bytes, float32 `[N]` or int64 `[N]`."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def parse_example(payload: bytes | memoryview) -> dict[str, Value]:
    """Parses an `Example` into its features by name.

    Raises:
        DataError: `bad_example` if the bytes are no such message.
    """
    features: dict[str, Value] = {}
    try:
        for field, wire, value in _fields(memoryview(payload)):
            if field == 1 and wire == _BYTES:
                for inner, inner_wire, entry in _fields(value):
                    if inner == 1 and inner_wire == _BYTES:
                        name, feature = _entry(entry)
                        features[name] = feature
    except (ValueError, IndexError, UnicodeDecodeError, OverflowError) as error:
        raise DataError("bad_example", f"expected a tf.train.Example: {error}") from error
    return features


def _entry(entry: memoryview) -> tuple[str, Value]:
    name, feature = "", memoryview(b"")
    for field, wire, value in _fields(entry):
        if wire != _BYTES:
            raise ValueError(f"a map entry with wire type {wire}")
        if field == 1:
            name = bytes(value).decode()
        elif field == 2:
            feature = value
    return name, _feature(feature)


def _feature(feature: memoryview) -> Value:
    result: Value = []
    for field, wire, value in _fields(feature):
        if wire != _BYTES or field not in (1, 2, 3):
            raise ValueError(f"a feature with field {field} of wire type {wire}")
        result = (_bytes_list, _float_list, _int64_list)[field - 1](value)
    return result


def _bytes_list(content: memoryview) -> list[memoryview]:
    values = []
    for field, wire, value in _fields(content):
        if field != 1 or wire != _BYTES:
            raise ValueError(f"a bytes list with field {field} of wire type {wire}")
        values.append(value)
    return values


def _float_list(content: memoryview) -> np.ndarray:
    pieces = []
    for field, wire, value in _fields(content):
        if field != 1 or wire not in (_BYTES, _FIXED32) or len(value) % 4:
            raise ValueError(f"a float list with field {field} of wire type {wire} and {len(value)} bytes")
        pieces.append(value)
    return np.frombuffer(_joined(pieces), "<f4").astype(np.float32, copy=False)


def _int64_list(content: memoryview) -> np.ndarray:
    pieces = []
    for field, wire, value in _fields(content):
        if field != 1 or wire not in (_BYTES, _VARINT):
            raise ValueError(f"an integer list with field {field} of wire type {wire}")
        if len(value) and value[-1] >= 0x80:
            raise ValueError("a cut varint")
        pieces.append(value)
    return _varints(np.frombuffer(_joined(pieces), np.uint8))


def _joined(pieces: list[memoryview]) -> memoryview | bytes:
    """All pieces in a row: a packed list has one, which is not copied, an unpacked one a piece for each value."""
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _varints(content: np.ndarray) -> np.ndarray:
    """Decodes concatenated, whole varints of up to 10 bytes, without a loop over the values."""
    ends = np.flatnonzero(content < 0x80)
    if len(ends) == len(content):  # flags and other small numbers, most of what there is
        return content.astype(np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if int((ends - starts).max()) > 9:
        raise ValueError("a varint of more than 10 bytes")
    position = np.arange(len(content)) - np.repeat(starts, ends - starts + 1)
    parts = (content & 0x7F).astype(np.uint64) << (7 * position).astype(np.uint64)
    return np.bitwise_or.reduceat(parts, starts).astype(np.int64)


def _fields(content: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yields field number, wire type and content of each field; of a varint its own bytes."""
    position, end = 0, len(content)
    while position < end:
        tag, position = _varint(content, position)
        field, wire = tag >> 3, tag & 7
        start = position
        if wire == _BYTES:
            length, start = _varint(content, position)
            position = start + length
        elif wire == _VARINT:
            _, position = _varint(content, position)
        elif wire in (_FIXED32, _FIXED64):
            position += 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        if position > end:
            raise ValueError(f"a field of {position - start} bytes where {end - start} are left")
        yield field, wire, content[start:position]


def _varint(content: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than 10 bytes")
