"""Reads members of clips out of tar shards by byte range: near ranges of a shard together, with one request."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.errors import DataError
from schemas.storage import filesystem, is_local, read_bytes, size_bytes
from schemas.store_faults import retry_passing_faults
from vpp.data.clip_index import ClipIndex

MAX_GAP_BYTES = 256 << 10
"""Unwanted bytes between two ranges that are read with them: a store sends so many in less time than it takes to answer
another request."""

MAX_READ_BYTES = 8 << 20
"""A read is not made longer than this by merging, so that threads share the work and memory stays bounded."""


@dataclass(frozen=True)
class MemberRange:
    """Half-open range `[start, end)` of a member in a shard, in bytes."""

    start: int
    end: int


@dataclass(frozen=True)
class RangeRead:
    """One request: half-open range `[start, end)` of a shard.

    Attributes:
        shard_code: The shard, in the index.
        start: First byte.
        end: Byte behind the last.
        samples: For each clip in it, its place among the wanted rows, and the ranges of its members.
    """

    shard_code: int
    start: int
    end: int
    samples: tuple[tuple[int, tuple[MemberRange, ...]], ...]


def plan_reads(
    index: ClipIndex,
    rows: np.ndarray,
    members: Sequence[str],
    max_gap_bytes: int = MAX_GAP_BYTES,
    max_read_bytes: int = MAX_READ_BYTES,
) -> list[RangeRead]:
    """Decides which requests bring the wanted members of clips; those for the first rows come first.

    Args:
        index: The clips.
        rows: The wanted ones, in the order in which they are needed; repeats are fine.
        members: Names of members, such as `text.npy`.
        max_gap_bytes: Ranges of a shard that are at most so far apart are read together.
        max_read_bytes: Merging makes no longer reads than this.

    Raises:
        DataError: `missing_member` if a clip does not have one.
    """
    starts, sizes = index.ranges(rows, members)
    if (starts < 0).any():
        member, place = (int(axis[0]) for axis in np.nonzero(starts < 0))
        clip = index.clip_ids(rows[place : place + 1])[0]
        raise DataError("missing_member", f"expected {members[member]} in clip {clip}, found none")
    ends = starts + sizes
    first, last, shards = starts.min(axis=0).tolist(), ends.max(axis=0).tolist(), index.shard_codes[rows].tolist()
    ranges = [
        tuple(MemberRange(*pair) for pair in zip(of_start, of_end, strict=True))
        for of_start, of_end in zip(starts.T.tolist(), ends.T.tolist(), strict=True)
    ]
    reads: list[RangeRead] = []
    for place in sorted(range(len(rows)), key=lambda place: (shards[place], first[place], place)):
        sample = ((place, ranges[place]),)
        if reads:
            before = reads[-1]
            end = max(before.end, last[place])
            is_near = before.shard_code == shards[place] and first[place] - before.end <= max_gap_bytes
            if is_near and end - before.start <= max_read_bytes:
                reads[-1] = RangeRead(before.shard_code, before.start, end, before.samples + sample)
                continue
        reads.append(RangeRead(shards[place], first[place], last[place], sample))
    return sorted(reads, key=lambda read: min(place for place, _ in read.samples))


class RangeReader:
    """Reads from the shards of an index; for any number of threads.

    Args:
        index: The clips.
        retry_s: How long a store that does not answer is asked again.
    """

    def __init__(self, index: ClipIndex, retry_s: float) -> None:
        self._index, self._retry_s = index, retry_s
        self._is_local = is_local(index.url)
        self._places: dict[int, tuple[str, str]] = {}
        self.closed = threading.Event()
        """When set, a store that does not answer is not asked again."""

    def read(self, read: RangeRead, clip_id: str) -> bytes:
        """The bytes of one request.

        Args:
            read: What to read.
            clip_id: A clip in it, for the message.

        Raises:
            DataError: `missing_file` or `truncated_shard`, with clip and shard.
        """
        if read.shard_code not in self._places:
            url = self._index.shard_url(read.shard_code)
            self._places[read.shard_code] = url, filesystem(url)[1] if self._is_local else ""
        url, path = self._places[read.shard_code]
        expected = f"expected bytes {read.start} to {read.end} of {url} (clip {clip_id})"

        def ask() -> bytes:
            return _read_local(path, read.start, read.end) if path else read_bytes(url, read.start, read.end)

        try:
            content = retry_passing_faults(ask, f"reading {url}", self._retry_s, closed=self.closed)
        except FileNotFoundError as error:
            raise DataError("missing_file", f"{expected}, found no such shard") from error
        except OSError as error:
            if error.errno != errno.EINVAL:  # what s3fs makes of a range that begins behind the end
                raise
            found = retry_passing_faults(
                lambda: size_bytes(url), f"asking for {url}", self._retry_s, closed=self.closed
            )
            if found >= read.end:
                raise
            raise DataError("truncated_shard", f"{expected}, found {found} bytes in all") from error
        if len(content) != read.end - read.start:
            raise DataError("truncated_shard", f"{expected}, found {len(content)} bytes of them")
        return content


def _read_local(path: str, start: int, end: int) -> bytes:
    """As `read_bytes`, without what fsspec does for any URL, which takes longer than reading a clip."""
    handle = os.open(path, os.O_RDONLY)
    try:
        return os.pread(handle, end - start, start)
    finally:
        os.close(handle)
