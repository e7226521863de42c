"""A sample reads by its byte range, with one request; a faulty row or shard is a fault in the data."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_dataset import write_shard

from pipelines import range_read
from pipelines.query import Manifest
from pipelines.range_read import read_members
from schemas.errors import DataError

MEMBERS = {"mp4": b"video" * 300, "txt": b"open", "json": b"{}", "latents.npy": b"l" * 3000}


def rows_of(url: str) -> list[dict]:
    clips = {
        f"c{n}": ({"caption": "open"}, {name: content + b"%d" % n for name, content in MEMBERS.items()})
        for n in range(3)
    }
    write_shard(url, "d", "000000", clips)
    with Manifest.open(url) as manifest:
        return manifest.select("from clips order by clip_id").to_pylist()


@pytest.mark.parametrize("store", ["disk", "memory", "s3"])
def test_members_read_back_from_every_store(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if store == "s3":
        request.getfixturevalue("s3")
    url = {"disk": str(tmp_path), "memory": f"memory://{tmp_path.name}", "s3": "s3://bucket/out"}[store]
    for number, row in enumerate(rows_of(url)):
        assert read_members(url, "clips", row) == {name: content + b"%d" % number for name, content in MEMBERS.items()}


def test_one_request_reads_from_the_first_to_the_last_member_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = rows_of(str(tmp_path))[1]
    requests = []
    real = range_read.read_bytes
    monkeypatch.setattr(range_read, "read_bytes", lambda *a: requests.append(a[1:]) or real(*a))
    assert list(read_members(str(tmp_path), "clips", row, ["txt", "json"])) == ["txt", "json"]
    places = {member["name"]: member for member in row["members"]}
    assert requests == [(places["txt"]["offset"], places["json"]["offset"] + places["json"]["num_bytes"])]


def test_faults_have_reasons(tmp_path: Path) -> None:
    url = str(tmp_path)
    row = rows_of(url)[2]
    far = [{"name": "mp4", "offset": 10**6, "num_bytes": 5}]
    negative = [{"name": "mp4", "offset": -5, "num_bytes": 5}]
    cases = [
        (row | {"members": None}, None, "not_written"),
        (row | {"shard": None}, None, "not_written"),
        (row, ["wav"], "missing_member"),
        (row | {"shard": "d/000009.tar"}, None, "missing_file"),
        (row | {"members": far}, None, "truncated_shard"),
        (row | {"members": negative}, None, "truncated_shard"),
        (row | {"shard": "../../../etc/passwd"}, None, "path_outside_root"),
        (row | {"shard": "/etc/passwd"}, None, "path_outside_root"),
    ]
    for faulty, names, reason in cases:
        with pytest.raises(DataError) as error:
            read_members(url, "clips", faulty, names)
        assert error.value.reason == reason
