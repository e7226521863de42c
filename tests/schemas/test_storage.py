"""One storage layer: local and S3 behave the same, and a written file is complete or absent."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas import storage
from schemas.errors import DataError, UsageError


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "data")
    request.getfixturevalue("s3")
    return "s3://bucket/data"


def test_a_file_reads_back_whole_and_by_range(root: str) -> None:
    storage.write_bytes(storage.join(root, "a", "b.bin"), bytes(range(100)))
    url = storage.join(root, "a", "b.bin")
    assert storage.read_bytes(url) == bytes(range(100))
    assert storage.read_bytes(url, 10, 20) == bytes(range(10, 20))
    assert storage.size_bytes(url) == 100
    with storage.open_read(url) as handle:
        handle.seek(90)
        assert handle.read() == bytes(range(90, 100))


def test_an_empty_file_reads_back_empty(root: str) -> None:
    storage.write_bytes(f"{root}/empty", b"")
    assert storage.read_bytes(f"{root}/empty") == b""


def test_listings_are_sorted_and_fresh(root: str) -> None:
    assert storage.list_files(root) == []
    assert storage.list_names(root) == []
    storage.write_bytes(storage.join(root, "b.txt"), b"1")
    storage.write_bytes(storage.join(root, "a", "c.txt"), b"2")
    assert storage.list_files(root) == ["a/c.txt", "b.txt"]
    assert storage.list_names(root) == ["a", "b.txt"]
    storage.write_bytes(storage.join(root, "d.json"), b"3")
    assert storage.list_files(root, ".json") == ["d.json"]
    assert storage.exists(storage.join(root, "d.json"))
    assert not storage.exists(storage.join(root, "e.json"))


def test_sizes_are_those_of_the_files_directly_in_a_folder(root: str) -> None:
    assert storage.list_sizes(root) == {}
    storage.write_bytes(storage.join(root, "b.txt"), b"12")
    storage.write_bytes(storage.join(root, "a.txt"), b"")
    storage.write_bytes(storage.join(root, "folder", "c.txt"), b"3")
    assert storage.list_sizes(root) == {"a.txt": 0, "b.txt": 2}


def test_removing_twice_is_as_removing_once(root: str) -> None:
    for name in ("a.txt", "b.txt", "below/c.txt"):
        storage.write_bytes(storage.join(root, "folder", name), b"1")
    for _ in range(2):
        storage.remove_file(storage.join(root, "folder", "a.txt"))
        assert storage.list_files(root) == ["folder/b.txt", "folder/below/c.txt"]
    for _ in range(2):
        storage.remove_folder(storage.join(root, "folder"))
        assert storage.list_files(root) == []


def test_a_local_copy_lasts_as_long_as_its_block(root: str) -> None:
    url = storage.join(root, "a.bin")
    storage.write_bytes(url, bytes(range(100)))
    with storage.local_copy(url) as path:
        assert Path(path).read_bytes() == bytes(range(100))
    assert Path(path).exists() == storage.is_local(url)
    with pytest.raises(FileNotFoundError), storage.local_copy(storage.join(root, "b.bin")) as path:
        Path(path).read_bytes()


def test_a_writer_that_fails_leaves_nothing(root: str) -> None:
    def fail_half_way() -> None:
        with storage.write_file(storage.join(root, "x.bin")) as handle:
            handle.write(b"half")
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        fail_half_way()
    assert storage.list_files(root) == []


def test_a_small_file_is_written_again_until_the_disk_has_room(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    full = iter([True, True])

    def when_there_is_room(action: Callable[..., object]) -> Callable[..., object]:
        def act(*arguments: object, **options: object) -> object:
            if next(full, False):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return action(*arguments, **options)

        return act

    monkeypatch.setattr(os, "fsync", when_there_is_room(os.fsync))  # of a local file
    monkeypatch.setattr(
        tempfile, "TemporaryDirectory", when_there_is_room(tempfile.TemporaryDirectory)
    )  # of a staged one
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        storage.write_bytes(f"{root}/file", b"all")
    storage.write_bytes(f"{root}/file", b"all", retry_for_s=60)
    assert storage.read_bytes(f"{root}/file") == b"all"
    assert storage.list_names(root) == ["file"]


def test_left_overs_of_a_killed_writer_are_invisible_and_removable(tmp_path: Path) -> None:
    (tmp_path / f".a.tar{storage.PARTIAL_MARK}1234").write_bytes(b"half")
    assert storage.list_files(str(tmp_path)) == []
    assert storage.remove_partial_files(str(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path", ["../x", "a::b.mp4", "a/../../x", "/etc/passwd", "s3://other/x", "", "..", "a\0b", "..\\x"]
)
def test_a_path_from_data_cannot_leave_its_root(path: str) -> None:
    with pytest.raises(DataError, match="path_outside_root"):
        storage.join_inside("/data", path)


def test_an_unknown_protocol_is_the_users_mistake() -> None:
    with pytest.raises(UsageError, match="nosuch"):
        storage.exists("nosuch://bucket/x")


def test_an_unwritable_output_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        storage.check_writable(str(tmp_path / "file" / "below"))


@pytest.mark.parametrize("name", ["x" * 256, "a/" * 2048 + "b", "half a letter \ud800"])
def test_a_name_that_no_file_has_is_a_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="missing_file"):
        storage.join_inside(str(tmp_path), name)
    assert storage.join_inside(str(tmp_path), "x" * 255)
