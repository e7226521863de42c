"""A dataset of strangers: its manifest, its selections, its arrays and the places that it names in its shards."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile import EFFORTS, mutants, survives
from hypothesis import given, settings
from hypothesis import strategies as st
from small_dataset import write_part, write_shard

from pipelines.decode import npy
from pipelines.query import Manifest
from pipelines.range_read import read_members
from pipelines.selection import load_selection, save_selection
from schemas.episode import MAX_FRAMES
from schemas.errors import DataError, UsageError, VPPError
from schemas.parquet_memory import read_parquet
from vpp.data.manifest_reader import read_written
from vpp.data.npy_view import npy_view

COLUMNS = {"camera": "top", "caption": "x", "start_frame": 0, "end_frame": 16, "source_fps": 10.0}


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    members = {"mp4": b"x" * 100, "text.npy": b"y" * 50}
    write_shard(str(tmp_path), "d", "000000", {f"{number:020x}": (COLUMNS, members) for number in range(3)})
    return str(tmp_path)


@EFFORTS
def test_a_manifest_part(dataset: str, effort: int) -> None:
    part = Path(dataset) / "clips/manifest/d/000000.parquet"

    def read(content: bytes) -> None:
        part.write_bytes(content)
        read_written(dataset, "clips", 0)

    survives(read, mutants(part.read_bytes()), effort)


@EFFORTS
def test_a_query_over_a_manifest_part(dataset: str, effort: int) -> None:
    part = Path(dataset) / "clips/manifest/d/000000.parquet"

    def query(content: bytes) -> None:
        part.write_bytes(content)
        with Manifest.open(dataset, "200MB", 1) as manifest:
            manifest.select("from clips")

    survives(query, mutants(part.read_bytes()), max(5, effort // 4))


@EFFORTS
def test_a_selection(dataset: str, effort: int) -> None:
    path = Path(save_selection(dataset, "s", pa.table({"clip_id": ["a", "b"]}), "sql"))

    def read(content: bytes) -> None:
        path.write_bytes(content)
        load_selection(dataset, "s")

    survives(read, mutants(path.read_bytes()), effort)


@EFFORTS
def test_an_array(effort: int) -> None:
    survives(lambda content: npy_view(memoryview(content)), mutants(npy(np.zeros((20, 8), np.float16))), effort)


@pytest.mark.parametrize("header", ["-" * 9000 + "1", "(" * 9000, "{'descr': '<f4', 'fortran_order': False, 'shape': (2**70,)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1180591620717411303424,)}", "1" * 6000, "{'descr': {}}", "{"])  # fmt: skip
def test_the_header_of_an_array_is_no_program(header: str) -> None:
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(64)
    with pytest.raises(DataError, match="corrupt_array"):
        npy_view(memoryview(content))


NUMBERS = st.sampled_from([None, -(2**63), -5, -1, 0, 100, 2**31, 2**40, 2**62, 2**63 - 1])


@settings(max_examples=60)
@given(offset=NUMBERS, num_bytes=NUMBERS, shard=st.sampled_from(["d/0.tar", "../x.tar", "/etc/hostname", "", "a\0"]))
def test_places_in_a_shard(tmp_path_factory: pytest.TempPathFactory, offset: Any, num_bytes: Any, shard: str) -> None:
    url = str(tmp_path_factory.mktemp("dataset"))
    members = [{"name": "mp4", "offset": offset, "num_bytes": num_bytes}]
    row = {"clip_id": "c", "status": "written", "source_episode": "e", "shard": shard, "members": members, **COLUMNS}
    write_part(url, "clips", "d", "000000", [row])
    (Path(url) / "clips/shards/d").mkdir(parents=True)
    (Path(url) / "clips/shards/d/0.tar").write_bytes(bytes(1000))
    (read,) = pq.read_table(Path(url) / "clips/manifest/d/000000.parquet").to_pylist()
    for attempt in (lambda: read_members(url, "clips", read), lambda: read_written(url, "clips", 0)):
        with contextlib.suppress(VPPError):
            attempt()


def test_names_and_links_in_a_tar_mean_nothing(tmp_path: Path) -> None:
    shard = tmp_path / "data/clips/shards/d/0.tar"
    shard.parent.mkdir(parents=True)
    with tarfile.open(shard, "w") as tar:
        film, link = tarfile.TarInfo("../../../../../outside.mp4"), tarfile.TarInfo("c.txt")
        film.size, link.type, link.linkname = 4, tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(film, io.BytesIO(b"film"))
        tar.addfile(link)
    with tarfile.open(shard) as tar:
        places = {info.name: info.offset_data for info in tar}
    members = [
        {"name": "mp4", "offset": places["../../../../../outside.mp4"], "num_bytes": 4},
        {"name": "txt", "offset": places["c.txt"], "num_bytes": 0},
    ]
    row = {"clip_id": "c", "shard": "d/0.tar", "members": members}
    assert read_members(str(tmp_path / "data"), "clips", row) == {"mp4": b"film", "txt": b""}
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [shard]


def test_an_episode_of_endless_frames_makes_no_endless_index(tmp_path: Path) -> None:
    row = {"episode_id": "e", "status": "written", "num_frames": MAX_FRAMES + 1, "members": [], "shard": "d/0.tar"}
    write_part(str(tmp_path), "episodes", "d", "000000", [row])
    with pytest.raises(UsageError, match="numbers of frames"):
        read_written(str(tmp_path), "episodes", 0)


def test_a_billion_equal_values_in_a_few_bytes_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"n": pa.array(np.zeros(200_000, np.int64))}), path)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr("schemas.parquet_memory.MOST_VALUES", 100_000)
    with pytest.raises(UsageError, match="expected at most 100000 values"):
        read_parquet(path.read_bytes(), "x")
