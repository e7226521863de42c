"""Queries see every row, write nothing, and open nothing else."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3 import S3Server

from pipelines.query import NAMED_QUERIES, Manifest, load_selection, save_selection
from schemas.errors import UsageError
from schemas.manifest import SCHEMAS
from schemas.storage import join, write_file


def write_manifest(url: str) -> str:
    """Three parts of two datasets: 8 clips written, 2 rejected."""
    for dataset, parts in {"a": 2, "b": 1}.items():
        for part in range(parts):
            rows = [
                {
                    "clip_id": f"{dataset}{part}{n}",
                    "dataset": dataset,
                    "status": "rejected" if (dataset, n) == ("a", 3) else "written",
                    "reason": "decode_error" if (dataset, n) == ("a", 3) else "",
                    "detail": "frame 3",
                    "caption": f"open drawer {n % 2}",
                    "start_frame": 0,
                    "end_frame": 30,
                    "source_fps": 30.0 if dataset == "a" else 0.0,
                    "shard": f"{dataset}/{part:06d}.tar",
                    "sha256": str(n % 3),
                    "num_bytes": 100,
                }
                for n in range(4 if dataset == "a" else 2)
            ]
            with write_file(join(url, "clips", "manifest", dataset, f"{part:06d}.parquet")) as handle:
                pq.write_table(pa.Table.from_pylist(rows, SCHEMAS["clips"]), handle)
    return url


@pytest.fixture(params=["disk", "s3"])
def manifest(request: pytest.FixtureRequest, tmp_path: Path) -> Manifest:
    if request.param == "disk":
        return Manifest(write_manifest(str(tmp_path / "out")))
    request.getfixturevalue("s3")
    return Manifest(write_manifest("s3://bucket/out"))


def test_a_select_sees_all_parts(manifest: Manifest) -> None:
    rows = manifest.select("select dataset, status, count(*) as n from clips group by all order by all").to_pylist()
    assert [tuple(row.values()) for row in rows] == [("a", "rejected", 2), ("a", "written", 6), ("b", "written", 2)]
    shards = manifest.select("select shard, num_samples, num_bytes from shards order by shard").to_pylist()
    assert [tuple(row.values()) for row in shards] == [
        ("a/000000.tar", 3, 300),
        ("a/000001.tar", 3, 300),
        ("b/000000.tar", 2, 200),
    ]


def test_a_product_that_is_absent_is_an_empty_view(manifest: Manifest) -> None:
    assert manifest.select("select * from episodes").schema.names == SCHEMAS["episodes"].names


@pytest.mark.parametrize("name", NAMED_QUERIES)
def test_named_queries_run(manifest: Manifest, name: str) -> None:
    result = manifest.named(name, "drawer")
    if name == "counts":
        hours = {(row["dataset"], row["status"]): row["hours"] for row in result.to_pylist()}
        assert hours == {("a", "written"): 0.002, ("a", "rejected"): 0.001, ("b", "written"): None}
    if name == "rejected":
        assert [(row["reason"], row["num"]) for row in result.to_pylist()] == [("decode_error", 2)]
    if name == "captions":
        assert [row["num_clips"] for row in result.to_pylist()] == [5, 3]
        assert manifest.named(name, "100%' or 1=1 --").num_rows == 0
    if name == "duplicates":
        assert sum(row["num"] for row in result.to_pylist()) == 8


FORBIDDEN = [
    "copy (select 1) to '{tmp}/x.csv'",
    "copy clips to '{tmp}/out/clips/manifest/x.parquet'",
    "create table x as select 1",
    "drop view clips",
    "insert into clips select * from clips",
    "attach '{tmp}/x.db'",
    "install httpfs",
    "load httpfs",
    "set memory_limit = '1GB'",
    "pragma enable_profiling",
    "export database '{tmp}/x'",
    "select 1; select 2",
    "select 1; copy (select 1) to '{tmp}/x.csv'",
    "select * from read_text('/etc/passwd')",
    "select * from read_csv('/etc/passwd')",
    "select * from read_blob('{tmp}/secret')",
    "select * from '{tmp}/secret.parquet'",
    "select * from glob('/etc/*')",
    "select getenv('HOME')",
    "",
    "select nothing from clips",
    "select from",
]


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_anything_but_reading_the_manifest_is_one_clear_line(tmp_path: Path, sql: str) -> None:
    manifest = Manifest(write_manifest(str(tmp_path / "out")))
    (tmp_path / "secret").write_text("secret")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "secret.parquet")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError) as error:
        manifest.select(sql.format(tmp=tmp_path))
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_selection_is_sorted_unique_and_reads_back(tmp_path: Path) -> None:
    url = write_manifest(str(tmp_path / "out"))
    sql = "select clip_id from clips where status = 'written' union all select clip_id from clips where dataset = 'b'"
    save_selection(url, "good", Manifest(url).select(sql), sql)
    selection = load_selection(url, "good")
    ids = selection["clip_id"].to_pylist()
    assert ids == sorted(set(ids))
    assert len(ids) == 8
    assert selection.schema.metadata[b"sql"].decode() == sql
    with pytest.raises(UsageError, match="clip_id or episode_id"):
        save_selection(url, "bad", Manifest(url).select("select caption from clips"), "")
    with pytest.raises(UsageError, match="name of letters"):
        save_selection(url, "../bad", Manifest(url).select(sql), "")
    with pytest.raises(UsageError, match="nothing-here"):
        load_selection(url, "nothing-here")


def test_a_folder_without_a_manifest_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a manifest"):
        Manifest(str(tmp_path))


def test_the_s3_manifest_is_as_closed_as_the_one_on_disk(s3: S3Server, tmp_path: Path) -> None:
    manifest = Manifest(write_manifest("s3://bucket/out"))
    with write_file("s3://bucket/secret.csv") as handle:
        handle.write(b"a\n1\n")
    for sql in ("select * from read_csv('s3://bucket/secret.csv')", "select * from read_text('/etc/passwd')"):
        with pytest.raises(UsageError):
            manifest.select(sql)
