"""DuckDB sees a dataset's parts and nothing else, cannot write, and gets the bytes that it asks for."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from small_dataset import write_part

from pipelines.manifest_files import ManifestFiles
from schemas.storage import join, read_bytes, write_bytes

PART = "manifest://clips/d/000000.parquet"


@pytest.fixture(params=["disk", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = str(tmp_path / "out") if request.param == "disk" else f"memory://{tmp_path.name}"
    write_part(url, "clips", "d", "000000", [{"clip_id": f"{n:020x}"} for n in range(100)])
    return url


def test_only_finished_parts_are_there(url: str) -> None:
    for name in ("d/notes.txt", "d/deeper/x.parquet", "x.parquet", "d/.a.parquet.partial-1.parquet"):
        write_bytes(join(url, "clips", "manifest", name), b"x")
    files = ManifestFiles(url)
    assert files.glob("manifest://clips/*/*.parquet") == ["clips/d/000000.parquet"]
    assert (files.num_parts("clips"), files.num_parts("episodes")) == (1, 0)
    assert not files.exists("manifest://clips/../../secret")


def test_nothing_can_be_written_or_removed(url: str) -> None:
    files = ManifestFiles(url)
    before = read_bytes(join(url, "clips/manifest/d/000000.parquet"))
    for mode in ("wb", "ab", "r+b", "xb"):
        with pytest.raises(PermissionError):
            files.open(PART, mode)
    for change in (lambda: files.rm_file(PART), lambda: files.mv(PART, "manifest://clips/d/2.parquet")):
        with pytest.raises((NotImplementedError, PermissionError)):
            change()
    assert read_bytes(join(url, "clips/manifest/d/000000.parquet")) == before


def test_a_seek_of_one_thread_does_not_move_another(url: str) -> None:
    content = read_bytes(join(url, "clips/manifest/d/000000.parquet"))
    with ManifestFiles(url).open(PART) as handle:
        handle.seek(100)
        other = threading.Thread(target=lambda: handle.seek(7))
        other.start()
        other.join()
        assert handle.read(20) == content[100:120]
        assert handle.read(5) == content[120:125]
        handle.seek(0, 2)
        assert handle.tell() == len(content)
        assert handle.read(5) == b""


def test_what_the_store_raises_is_kept(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ManifestFiles(url)
    with pytest.raises(FileNotFoundError):
        files.open("manifest://clips/d/none.parquet")
    assert files.fault is None, "a name that is not there is the query's mistake"
    with pytest.raises(ConnectionError), files.keeping_faults():
        raise ConnectionError("lost")
    assert isinstance(files.fault, ConnectionError)
