"""What a list of forbidden words does not catch; and that a lost store is not taken for a mistake in the SQL."""

from __future__ import annotations

import hashlib
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from small_dataset import write_part

from pipelines.query import Manifest
from schemas.errors import UsageError
from schemas.manifest import CLIP_SCHEMA

A_VARIABLE = pa.table({"secret": [1]})


@pytest.fixture
def url(tmp_path: Path) -> str:
    for part in range(3):
        rows = [
            {
                "clip_id": f"{part}-{n}",
                "status": "written",
                "caption": f"task {n}",
                "frame_indices": list(range(n, n + 16)),
            }
            for n in range(400)
        ]
        write_part(str(tmp_path / "out"), "clips", "d", f"{part:06d}", rows)
    return str(tmp_path / "out")


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def serialized(sql: str) -> str:
    (tree,) = duckdb.connect().execute("select json_serialize_sql(?)", [sql]).fetchone() or ("",)
    return str(tree).replace("'", "''")


HIDDEN = {
    "copy in a with": "with x as (copy (select 1) to '{target}') select * from x",
    "copy in a with, over a part": "with x as (copy (select 1) to 'manifest://clips/d/000000.parquet') select * from x",
    "explained copy": "explain analyze copy (select 1) to '{target}'",
    "insert in a with": "with x as (insert into clips values (1) returning *) select * from x",
    "a query in a string": "select * from query('copy (select 1) to ''{target}''')",
    "logging to a file": "select * from enable_logging('QueryLog', storage = 'file', storage_config = {{'path': '{target}'}})",
    "another dataset": "select * from read_parquet('manifest://clips/../../../other.parquet')",
    "a variable of the program": "select * from A_VARIABLE",
    "the environment": "select * from read_blob('/proc/self/environ')",
    "a file URL": "select * from read_text('file:///etc/passwd')",
    "the network": "select * from read_csv('http://127.0.0.1:9/x.csv')",
}


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_ways_out_are_closed(url: str, tmp_path: Path, name: str) -> None:
    pq.write_table(A_VARIABLE, tmp_path / "other.parquet")
    before = files_below(tmp_path)
    with Manifest.open(url) as manifest:
        with pytest.raises(UsageError) as error:
            manifest.select(HIDDEN[name].format(target=tmp_path / "written"))
        assert "\n" not in str(error.value)
        assert manifest.select("select count(*) as n from clips").to_pylist() == [{"n": 1200}]
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    "target", ["{tmp}/written", "manifest://clips/d/000000.parquet", "manifest://clips/d/9.parquet"]
)
def test_a_statement_that_is_data_cannot_write_either(url: str, tmp_path: Path, target: str) -> None:
    before = files_below(tmp_path)
    copy = f"with x as (copy (select 1) to '{target.format(tmp=tmp_path)}') select * from x"
    with Manifest.open(url) as manifest, pytest.raises(UsageError):
        manifest.select(f"select * from json_execute_serialized_sql('{serialized(copy)}')")
    assert files_below(tmp_path) == before


def test_a_string_that_looks_like_a_statement_is_a_string(url: str) -> None:
    with Manifest.open(url) as manifest:
        text = '"type":"COPY_QUERY_NODE" copy; attach'
        assert manifest.select("select ? as text", [text]).to_pylist() == [{"text": text}]
        assert manifest.select(f"select '{text}' as text").to_pylist() == [{"text": text}]


@pytest.mark.parametrize("threads", [1, 8])
def test_every_column_reads_right_again_and_again(url: str, threads: int) -> None:
    expected = pa.concat_tables(pq.read_table(path) for path in sorted(Path(url).rglob("*.parquet"))).sort_by("clip_id")
    with Manifest.open(url, num_threads=threads) as manifest:
        for _ in range(3):  # read from files, then from DuckDB's cache
            assert manifest.select("from clips order by clip_id").cast(CLIP_SCHEMA).equals(expected)


def test_wrong_sql_gets_duckdbs_hint(url: str) -> None:
    with Manifest.open(url) as manifest:
        for sql, hint in {
            "select captoin from clips": '"caption"',
            "select * from clip": 'Did you mean "clips"',
            "selec 1": "syntax error",
            "select caption::int from clips": "Could not convert",
            "select $nothing": "nothing",
        }.items():
            with pytest.raises(UsageError) as error:
                manifest.select(sql)
            assert hint in str(error.value)
            assert "\n" not in str(error.value)
            assert "LINE 1" not in str(error.value)


def test_an_error_in_the_middle_of_a_result_is_the_users_too(url: str) -> None:
    sql = "select case when i > 3000000 then cast('x' || i as int) else 1 end as n from range(5000000) t(i)"
    with Manifest.open(url) as manifest:
        rows = manifest.stream(sql)
        with pytest.raises(UsageError, match="x3000001"):
            for _ in rows.batches:
                pass


def test_a_lost_store_is_not_the_users_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"memory://{tmp_path.name}"
    captions = [
        hashlib.sha256(bytes([n % 256, n // 256])).hexdigest() for n in range(2000)
    ]  # more than a footer's read
    write_part(url, "clips", "d", "000000", [{"clip_id": text, "caption": text} for text in captions])
    with Manifest.open(url) as manifest:

        def lost(*_: object, **__: object) -> bytes:
            raise ConnectionResetError("the store is gone")

        monkeypatch.setattr(MemoryFileSystem, "cat_file", lost)
        with pytest.raises(ConnectionResetError, match="the store is gone"):
            manifest.select("select caption from clips")


def test_a_damaged_part_is_named(url: str) -> None:
    (Path(url) / "clips/manifest/d/000001.parquet").write_bytes(b"PAR1 not really")
    with Manifest.open(url) as manifest, pytest.raises(UsageError, match=r"d/000001\.parquet"):
        manifest.select("select count(caption) from clips")


@pytest.mark.parametrize("memory", ["lots", "", "4GB'; attach 'x"])
def test_a_wrong_memory_limit_is_one_line(url: str, memory: str) -> None:
    with pytest.raises(UsageError) as error:
        Manifest.open(url, memory)
    assert "\n" not in str(error.value)


def test_named_queries_tell_unknown_rates_and_same_frames(tmp_path: Path) -> None:
    url = str(tmp_path)
    same = {"status": "written", "source_episode": "e", "camera": "c", "caption": "Open", "frame_indices": [0, 1]}
    rows = [
        same | {"clip_id": "1", "sha256": "x", "start_frame": 0, "end_frame": 36_000, "source_fps": 10.0},
        same | {"clip_id": "2", "sha256": "y", "start_frame": 0, "end_frame": 36_000, "source_fps": 0.0},
        same
        | {"clip_id": "3", "sha256": "y", "caption": "50% open", "start_frame": 0, "end_frame": 1, "source_fps": 0.0},
    ]
    write_part(url, "clips", "d", "000000", rows)
    with Manifest.open(url) as manifest:
        (hours,) = manifest.named("hours").to_pylist()
        assert (hours["num"], hours["hours"], hours["frame_rate"]) == (3, 1.0, "unknown for 2 of 3")
        pairs = {(row["kind"], tuple(row["ids"])) for row in manifest.named("duplicates").to_pylist()}
        assert pairs == {("same bytes", ("2", "3")), ("same frames and caption", ("1", "2"))}
        assert [row["caption"] for row in manifest.named("captions", "50%").to_pylist()] == ["50% open"]
        assert len(manifest.named("captions", "OPEN").to_pylist()) == 2
        (dataset,) = manifest.named("datasets").to_pylist()
        assert (dataset["cameras"], dataset["num_captions"]) == (["c"], 2)
