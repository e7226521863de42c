"""TFRecord files: framed records with two checksums each, read without TensorFlow.

A record is: length (uint64, little-endian), masked CRC32C of those 8 bytes, the payload, masked CRC32C of the
payload. A mask is a rotation by 15 bits plus a constant (TensorFlow, `lib/io/record_writer.h` and `lib/hash/crc32c.h`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import google_crc32c

from schemas.errors import DataError
from schemas.storage import open_read, read_bytes, size_bytes

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


@dataclass(frozen=True)
class Record:
    """A record's place and payload. `number` counts from 0; `num_bytes` is the payload's size."""

    number: int
    offset: int
    num_bytes: int
    payload: bytes


def masked_crc32c(data: bytes) -> int:
    """The checksum that TFRecord stores.

    >>> hex(masked_crc32c(b""))
    '0xa282ead8'
    """
    crc = google_crc32c.value(data)
    return int(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def read_records(url: str) -> Iterator[Record | DataError]:
    """Reads a file front to back; yields each good record, and the fault of each bad one.

    A bad payload costs one record, since its length is known to be right; a bad length or a cut file costs the rest.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    file_size = size_bytes(url)
    with open_read(url) as handle:
        number = offset = 0
        while offset < file_size:
            try:
                num_bytes = _read_length(handle, url, number, offset, file_size)
            except DataError as error:
                yield error
                return
            payload, footer = handle.read(num_bytes), handle.read(_FOOTER.size)
            try:
                _check_payload(payload, footer, url, number, offset)
                yield Record(number, offset, num_bytes, payload)
            except DataError as error:
                yield error
            number += 1
            offset += _HEADER.size + num_bytes + _FOOTER.size


def read_record(url: str, offset: int, num_bytes: int) -> bytes:
    """Reads the payload of the record at `offset` with one request, checking both checksums again.

    Raises:
        DataError: `bad_crc`, `truncated_record`, or `record_changed` if another record now lies there.
        FileNotFoundError: If there is no such file.
    """
    content = read_bytes(url, offset, offset + _HEADER.size + num_bytes + _FOOTER.size)
    found_bytes = _parse_length(content[: _HEADER.size], url, -1, offset)
    if found_bytes != num_bytes:
        sizes = f"expected {num_bytes} bytes as when the file was listed, found {found_bytes}; list it again"
        raise DataError("record_changed", f"{_place(url, -1, offset)}: {sizes}")
    payload = content[_HEADER.size : _HEADER.size + num_bytes]
    _check_payload(payload, content[_HEADER.size + num_bytes :], url, -1, offset)
    return payload


def write_record(handle: IO[bytes], payload: bytes) -> None:
    """Appends one record."""
    length = struct.pack("<Q", len(payload))
    handle.write(length + _FOOTER.pack(masked_crc32c(length)) + payload + _FOOTER.pack(masked_crc32c(payload)))


def _read_length(handle: IO[bytes], url: str, number: int, offset: int, file_size: int) -> int:
    num_bytes = _parse_length(handle.read(_HEADER.size), url, number, offset)
    left = file_size - offset - _HEADER.size  # bounds what is read next, whatever the record claims
    if num_bytes + _FOOTER.size > left:
        expected = f"expected {num_bytes + _FOOTER.size} more bytes, found {left}"
        raise DataError("truncated_record", f"{_place(url, number, offset)}: {expected}")
    return num_bytes


def _parse_length(header: bytes, url: str, number: int, offset: int) -> int:
    if len(header) < _HEADER.size:
        expected = f"expected {_HEADER.size} bytes of header, found {len(header)}"
        raise DataError("truncated_record", f"{_place(url, number, offset)}: {expected}")
    num_bytes, crc = _HEADER.unpack(header)
    if masked_crc32c(header[:8]) != crc:
        rest = "; the rest is not read" if number >= 0 else ""
        raise DataError("bad_crc", f"{_place(url, number, offset)}: the checksum of the length is wrong{rest}")
    return int(num_bytes)


def _check_payload(payload: bytes, footer: bytes, url: str, number: int, offset: int) -> None:
    if len(footer) < _FOOTER.size:
        raise DataError("truncated_record", f"{_place(url, number, offset)}: the file ends inside the record")
    if masked_crc32c(payload) != _FOOTER.unpack(footer[: _FOOTER.size])[0]:
        raise DataError("bad_crc", f"{_place(url, number, offset)}: the checksum of the payload is wrong")


def _place(url: str, number: int, offset: int) -> str:
    return f"record {number} at byte {offset} of {url}" if number >= 0 else f"record at byte {offset} of {url}"
