"""Records keep their checksums, and damage costs exactly what it has to."""

from __future__ import annotations

import struct
from pathlib import Path

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
    length = struct.pack("<Q", 2**62)
    path = tmp_path / "x.tfrecord"
    path.write_bytes(length + struct.pack("<I", masked_crc32c(length)) + b"little")
    (fault,) = read_records(str(path))
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
