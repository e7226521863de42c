"""Looks at the sample tables of an MP4 or MOV before a demuxer does (ISO/IEC 14496-12, 4.2 and 8.7.3).

Where all samples have one size, a table of 20 bytes claims any number of them, and FFmpeg makes an entry for each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

from schemas.errors import DataError

_PARENTS = frozenset(
    (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"udta", b"gmhd", b"wave", b"tref")
)
_HEADER = struct.Struct(">I4s")
_TABLE = struct.Struct(">4xII")  # version and flags, size of a sample or 0, number of samples
_MOST_BOXES = 10_000
_MOST_LEVELS = 10


def check_sample_tables(handle: IO[bytes]) -> None:
    """Looks at every `stsz` in an MP4; does nothing with another file. Leaves the handle at the beginning.

    Args:
        handle: The file; it can seek.

    Raises:
        DataError: `too_many_frames` if a table claims more samples than the file has bytes for, `not_a_video` if the
            tables are compressed.
    """
    num_bytes = handle.seek(0, 2)
    for kind, start, end in _boxes(handle, 0, num_bytes, [_MOST_BOXES]):
        if kind == b"cmov":
            raise DataError("not_a_video", "expected a movie header as it is, found a compressed one")
        if kind == b"stsz" and end - start >= _TABLE.size:
            handle.seek(start)
            size, count = _TABLE.unpack(handle.read(_TABLE.size))
            if size * count > num_bytes:
                detail = f"expected at most as many samples of {size} bytes as {num_bytes} bytes hold, found {count}"
                raise DataError("too_many_frames", detail)
    handle.seek(0)


def _boxes(
    handle: IO[bytes], start: int, end: int, left: list[int], level: int = 0
) -> Iterator[tuple[bytes, int, int]]:
    """Type and half-open range of the content of each box, and of those inside; at most `left[0]` boxes."""
    while start + _HEADER.size <= end and left[0]:
        left[0] -= 1
        handle.seek(start)
        size, kind = _HEADER.unpack(handle.read(_HEADER.size).ljust(_HEADER.size, b"\0"))
        first = start + _HEADER.size
        if size == 1:
            size = int.from_bytes(handle.read(8), "big")
            first += 8
        last = min(start + size if size else end, end)
        if last < first:
            return
        yield kind, first, last
        if kind in _PARENTS and level < _MOST_LEVELS:
            yield from _boxes(handle, first, last, left, level + 1)
        start = last
