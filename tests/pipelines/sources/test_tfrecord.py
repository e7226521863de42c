"""Records keep their checksums, and damage costs exactly what it has to."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.tfrecord import Record, masked_crc32c, read_record, read_records, write_record
from schemas.errors import DataError


def write(path: Path, payloads: list[bytes]) -> Path:
    with path.open("wb") as handle:
        for payload in payloads:
            write_record(handle, payload)
    return path


@given(payloads=st.lists(st.binary(max_size=300), max_size=8))
def test_records_read_back_in_order_and_by_offset(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes]
) -> None:
    path = write(tmp_path_factory.mktemp("t") / "x.tfrecord", payloads)
    records = list(read_records(str(path)))
    assert [record.payload for record in records if isinstance(record, Record)] == payloads
    for record in records:
        assert isinstance(record, Record)
        assert read_record(str(path), record.offset, record.num_bytes) == record.payload


def test_the_checksum_is_the_one_of_the_format() -> None:
    # CRC32C of "123456789" is e3069283 (RFC 3720); rotated by 15 bits and offset as TFRecord does.
    crc = 0xE3069283
    assert masked_crc32c(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_a_damaged_payload_costs_one_record(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tfrecord", [b"first" * 10, b"second" * 10, b"third" * 10])
    content = bytearray(path.read_bytes())
    content[content.index(b"second") + 3] ^= 1
    path.write_bytes(content)
    first, second, third = read_records(str(path))
    assert isinstance(first, Record)
    assert isinstance(third, Record)
    assert isinstance(second, DataError)
    assert second.reason == "bad_crc"
    assert "record 1 at byte 66" in second.detail


def test_a_damaged_length_ends_the_file_with_one_fault(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tfrecord", [b"first", b"second", b"third"])
    content = bytearray(path.read_bytes())
    content[21] ^= 0xFF
    path.write_bytes(content)
    entries = list(read_records(str(path)))
    assert [type(entry) for entry in entries] == [Record, DataError]


def test_a_hostile_length_allocates_nothing(tmp_path: Path) -> None:
    length = struct.pack("<Q", 2**30)
    path = tmp_path / "x.tfrecord"
    path.write_bytes(length + struct.pack("<I", masked_crc32c(length)) + b"little")
    tracemalloc.start()
    (fault,) = read_records(str(path))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2**24
    assert isinstance(fault, DataError)
    assert fault.reason == "truncated_record"


def test_broken_samples(shared_data: Path) -> None:
    entries = list(read_records(str(shared_data / "broken" / "bad_crc.tfrecord")))
    assert isinstance(entries[0], Record)
    assert isinstance(entries[1], DataError)
    assert entries[1].reason == "bad_crc"
    cut = list(read_records(str(shared_data / "broken" / "truncated.tfrecord")))
    assert isinstance(cut[0], Record)
    assert isinstance(cut[1], DataError)
    assert cut[1].reason == "truncated_record"


@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_flipped_bit_passes_for_a_record(tmp_path_factory: pytest.TempPathFactory, position: int, bit: int) -> None:
    payloads = [b"first", b"", b"third" * 9]
    path = write(tmp_path_factory.mktemp("t") / "x.tfrecord", payloads)
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(content)
    entries = list(read_records(str(path)))
    assert [entry.payload for entry in entries if isinstance(entry, Record)] != payloads
    assert all(entry.payload in payloads for entry in entries if isinstance(entry, Record))
    assert len([entry for entry in entries if isinstance(entry, DataError)]) == 1


def test_one_record_is_checked_again_when_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tfrecord", [b"first" * 10, b"second" * 10])
    second = list(read_records(str(path)))[1]
    assert isinstance(second, Record)
    whole = path.read_bytes()
    for position, reason in ((second.offset + 1, "bad_crc"), (second.offset + 20, "bad_crc"), (-1, "bad_crc")):
        content = bytearray(whole)
        content[position] ^= 1
        path.write_bytes(content)
        with pytest.raises(DataError, match=reason):
            read_record(str(path), second.offset, second.num_bytes)
    for num_bytes in (second.offset + 5, second.offset + 30, len(whole) - 2):
        path.write_bytes(whole[:num_bytes])
        with pytest.raises(DataError, match="truncated_record"):
            read_record(str(path), second.offset, second.num_bytes)
    write(path, [b"first" * 10, b"another"])
    with pytest.raises(DataError, match=r"record_changed.*byte 66 .*expected 60 bytes.*found 7"):
        read_record(str(path), second.offset, second.num_bytes)


def test_a_remote_file_reads_as_a_local_one(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tfrecord", [b"first", b"second"])
    fsspec.filesystem("memory").pipe("/records/x.tfrecord", path.read_bytes())
    assert list(read_records("memory://records/x.tfrecord")) == list(read_records(str(path)))
    assert read_record("memory://records/x.tfrecord", 21, 6) == b"second"


def test_a_missing_file_is_told_apart_from_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(iter(read_records(str(tmp_path / "none.tfrecord"))))
    with pytest.raises(FileNotFoundError):
        read_record(str(tmp_path / "none.tfrecord"), 0, 5)
