"""Reads members of samples out of tar shards by byte range: near ranges of a shard together, with one request."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.errors import DataError
from schemas.storage import check_file, exists, filesystem, is_local, read_bytes, size_bytes
from schemas.store_faults import retry_passing_faults
from vpp.data.sample_index import SampleIndex

MAX_GAP_BYTES = 256 << 10
"""Unwanted bytes between two ranges that are read with them: a store sends so many in less time than it takes to answer
another request."""

MAX_READ_BYTES = 8 << 20
"""A read is not made longer than this by merging, so that threads share the work and memory stays bounded."""


@dataclass(frozen=True)
class MemberRange:
    """Half-open range `[start, end)` of a member in a shard, in bytes.

    Attributes:
        start: First byte.
        end: Byte behind the last.
        member: The member's place among those that were asked for.
    """

    start: int
    end: int
    member: int


@dataclass(frozen=True)
class RangeRead:
    """One request: half-open range `[start, end)` of a shard.

    Attributes:
        shard_code: The shard, in the index.
        start: First byte.
        end: Byte behind the last.
        samples: For each sample in it, its place among the wanted rows, and the ranges of its members.
    """

    shard_code: int
    start: int
    end: int
    samples: tuple[tuple[int, tuple[MemberRange, ...]], ...]


def plan_reads(
    index: SampleIndex,
    rows: np.ndarray,
    members: Sequence[str],
    max_gap_bytes: int = MAX_GAP_BYTES,
    max_read_bytes: int = MAX_READ_BYTES,
    apart: bool = False,
) -> list[RangeRead]:
    """Decides which requests bring the wanted members of samples; those for the first rows come first.

    Args:
        index: The samples.
        rows: The wanted ones, in the order in which they are needed; repeats are fine.
        members: Names of members, such as `text.npy`.
        max_gap_bytes: Ranges of a shard that are at most so far apart are read together.
        max_read_bytes: Merging makes no longer reads than this.
        apart: Whether a sample's members may come by several requests; otherwise it is read from the first to the last.

    Raises:
        DataError: `missing_member` if a sample does not have one.
    """
    starts, sizes = index.ranges(rows, members)
    if (starts < 0).any():
        member, place = (int(axis[0]) for axis in np.nonzero(starts < 0))
        sample_id = index.ids(rows[place : place + 1])[0]
        raise DataError("missing_member", f"expected {members[member]} in {index.noun} {sample_id}, found none")
    ends, shards = starts + sizes, index.shard_codes_of(rows).tolist()
    pieces: list[tuple[int, tuple[MemberRange, ...]]] = []
    for place, (of_start, of_end) in enumerate(zip(starts.T.tolist(), ends.T.tolist(), strict=True)):
        spans = tuple(map(MemberRange, of_start, of_end, range(len(members))))
        pieces += [(place, (span,)) for span in spans] if apart else [(place, spans)]
    reads: list[RangeRead] = []
    for place, spans in sorted(pieces, key=lambda piece: (shards[piece[0]], _first(piece[1]), piece[0])):
        first, last, sample = _first(spans), max(span.end for span in spans), ((place, spans),)
        if reads:
            before = reads[-1]
            end = max(before.end, last)
            is_near = before.shard_code == shards[place] and first - before.end <= max_gap_bytes
            if is_near and end - before.start <= max_read_bytes:
                reads[-1] = RangeRead(before.shard_code, before.start, end, before.samples + sample)
                continue
        reads.append(RangeRead(shards[place], first, last, sample))
    return sorted(reads, key=lambda read: min(place for place, _ in read.samples))


def _first(spans: Sequence[MemberRange]) -> int:
    return min(span.start for span in spans)


class RangeReader:
    """Reads from the shards of an index; for any number of threads.

    Args:
        index: The samples.
        retry_s: How long a store that does not answer is asked again.
    """

    def __init__(self, index: SampleIndex, retry_s: float) -> None:
        self._index, self._retry_s = index, retry_s
        self._is_local = is_local(index.url)
        self._places: dict[int, tuple[str, str]] = {}
        self.closed = threading.Event()
        """When set, a store that does not answer is not asked again."""

    def read(self, read: RangeRead, sample_id: str) -> bytes:
        """The bytes of one request.

        Args:
            read: What to read.
            sample_id: A sample in it, for the message.

        Raises:
            DataError: `missing_file` or `truncated_shard`, with sample and shard.
        """
        if read.shard_code not in self._places:
            url = self._index.shard_url(read.shard_code)
            if self._is_local and exists(url):
                check_file(filesystem(url)[1])
            self._places[read.shard_code] = url, filesystem(url)[1] if self._is_local else ""
        url, path = self._places[read.shard_code]
        expected = f"expected bytes {read.start} to {read.end} of {url} ({self._index.noun} {sample_id})"

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
    """As `read_bytes`, without what fsspec does for any URL, which takes longer than reading a sample."""
    handle = os.open(path, os.O_RDONLY)
    try:
        return os.pread(handle, end - start, start)
    finally:
        os.close(handle)
