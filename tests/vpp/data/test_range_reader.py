"""Near ranges are read together, and a shard that is not what the manifest says is told with clip and shard."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbered_clips import write_clips
from s3 import S3Server

from schemas.errors import DataError
from schemas.storage import filesystem
from vpp.data.clip_index import ClipIndex
from vpp.data.range_reader import RangeReader, plan_reads

NAMES = ("latents.npy", "text.npy")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ClipIndex:
    return write_clips(str(tmp_path_factory.mktemp("clips")), a=[6, 3])


def test_neighbours_of_a_shard_are_one_request(index: ClipIndex) -> None:
    reads = plan_reads(index, np.array([2, 7, 1, 0, 5]), NAMES, max_gap_bytes=10_000)
    assert [(read.shard_code, [place for place, _ in read.samples]) for read in reads] == [
        (0, [3, 2, 0]),
        (1, [1]),
        (0, [4]),
    ]


def test_a_gap_or_a_length_that_is_too_large_makes_another_request(index: ClipIndex) -> None:
    rows = np.arange(6)
    assert len(plan_reads(index, rows, NAMES)) == 1
    assert len(plan_reads(index, rows, NAMES, max_gap_bytes=100)) == 6
    assert len(plan_reads(index, rows, NAMES, max_read_bytes=400_000)) == 3


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=20),
    st.sampled_from([("text.npy",), ("mp4", "text.npy"), NAMES]),
    st.integers(0, 400_000),
    st.integers(1, 600_000),
)
def test_every_wanted_range_is_in_the_request_that_names_it(
    index: ClipIndex, rows: list[int], names: tuple[str, ...], gap: int, longest: int
) -> None:
    reads = plan_reads(index, np.array(rows), names, gap, longest)
    offsets, sizes = index.ranges(np.array(rows), names)
    seen = []
    for read in reads:
        assert len(read.samples) == 1 or read.end - read.start <= longest
        for place, ranges in read.samples:
            seen.append(place)
            assert read.shard_code == index.shard_codes[rows[place]]
            assert [span.start for span in ranges] == offsets[:, place].tolist()
            assert [span.end - span.start for span in ranges] == sizes[:, place].tolist()
            assert all(read.start <= span.start <= span.end <= read.end for span in ranges)
    assert sorted(seen) == list(range(len(rows)))
    first = [min(place for place, _ in read.samples) for read in reads]
    assert first == sorted(first)


@pytest.mark.parametrize("store", ["disk", "s3"])
@pytest.mark.parametrize(
    ("fault", "reason"), [("cut", "truncated_shard"), ("short", "truncated_shard"), ("gone", "missing_file")]
)
def test_a_shard_that_is_cut_or_missing_is_told(
    store: str, fault: str, reason: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if store == "s3":
        request.getfixturevalue("s3")
    url = str(tmp_path / "out") if store == "disk" else "s3://bucket/out"
    index = write_clips(url, a=[3])
    (read,) = plan_reads(index, np.array([2]), NAMES)
    (tar,) = tmp_path.rglob("000000.tar")
    if fault == "gone":
        filesystem(index.shard_url(0))[0].rm_file(filesystem(index.shard_url(0))[1])
    else:
        os.truncate(tar, read.start - 1000 if fault == "cut" else read.end - 1)
    with pytest.raises(DataError, match=f"(?s)000000.tar.*clip {index.clip_ids(np.array([2]))[0]}") as raised:
        RangeReader(index, retry_s=60).read(read, index.clip_ids(np.array([2]))[0])
    assert raised.value.reason == reason


@pytest.mark.slow
def test_a_store_that_is_away_for_longer_than_its_client_waits_is_asked_again(
    s3: S3Server,
) -> None:
    index = write_clips("s3://bucket/out", a=[2])
    (read,) = plan_reads(index, np.array([1]), NAMES)
    reader = RangeReader(index, retry_s=60)
    before = reader.read(read, "c")
    s3.stop()
    with pytest.raises(Exception, match=r"(?i)connect") as raised:
        RangeReader(index, retry_s=0).read(read, "c")
    assert not isinstance(raised.value, DataError)
    came_back = threading.Event()

    class BringBack(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "again in" in record.getMessage() and not came_back.is_set():
                came_back.set()
                s3.start()

    handler = BringBack()
    logging.getLogger("schemas.store_faults").addHandler(handler)
    try:
        assert reader.read(read, "c") == before
    finally:
        logging.getLogger("schemas.store_faults").removeHandler(handler)
    assert came_back.is_set()
