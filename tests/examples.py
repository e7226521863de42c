"""Encodes `tf.train.Example`s and writes RLDS files for tests; the reader's counterpart, written apart from it."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from pipelines.sources.tfrecord import write_record

Feature = Sequence[bytes] | np.ndarray


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    result = b""
    while value >= 0x80:
        result += bytes([value & 0x7F | 0x80])
        value >>= 7
    return result + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def encode_feature(values: Feature, packed: bool = True) -> bytes:
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        flat = values.astype("<f4").ravel()
        inner = field(1, flat.tobytes()) if packed else b"".join(b"\x0d" + struct.pack("<f", value) for value in flat)
        return field(2, inner)
    if isinstance(values, np.ndarray):
        numbers = [varint(int(value)) for value in values.ravel()]
        inner = field(1, b"".join(numbers)) if packed else b"".join(b"\x08" + number for number in numbers)
        return field(3, inner)
    return field(1, b"".join(field(1, bytes(value)) for value in values))


def encode_example(features: dict[str, Feature], packed: bool = True) -> bytes:
    entries = [
        field(1, field(1, name.encode()) + field(2, encode_feature(values, packed)))
        for name, values in features.items()
    ]
    return field(1, b"".join(entries))


def picture(value: int, size: int = 32, kind: str = "PNG") -> bytes:
    pixels = np.full((size, size, 3), value % 256, np.uint8)
    pixels[: size // 2] = 255 - value % 256
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def write_rlds(path: Path, episodes: Sequence[dict[str, Feature]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as handle:
        for features in episodes:
            write_record(handle, encode_example(features))
    return path
