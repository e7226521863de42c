"""jobs/query.py: tables for people, files for programs, mistakes with code 2."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from running import run
from test_query import write_manifest

SQL = "select dataset, count(*) as n from clips group by all order by all"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return write_manifest(str(tmp_path / "out"))


def test_a_table_a_json_a_csv_and_a_parquet_tell_the_same(url: str, tmp_path: Path) -> None:
    assert run("query", url, SQL, cwd=tmp_path) == (0, "dataset  n\n-------  -\na        8\nb        2\n")
    assert run("query", url, SQL, "--format", "csv", cwd=tmp_path) == (0, "dataset,n\na,8\nb,2\n")
    code, printed = run("query", url, SQL, "--format", "json", cwd=tmp_path)
    assert [json.loads(line) for line in printed.splitlines()] == [{"dataset": "a", "n": 8}, {"dataset": "b", "n": 2}]
    code, _ = run("query", url, SQL, "--format", "parquet", "--out", tmp_path / "x.parquet", cwd=tmp_path)
    assert code == 0
    assert pq.read_table(tmp_path / "x.parquet").to_pydict() == {"dataset": ["a", "b"], "n": [8, 2]}


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("drop view clips",), ("counts", "--format", "xml"), ("counts", "--memory", "lots")]
)
def test_mistakes_end_with_code_2(url: str, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, printed = run("query", url, *arguments, cwd=tmp_path)
    assert code == 2
    assert "Traceback" not in printed


def test_a_selection_is_saved(url: str, tmp_path: Path) -> None:
    code, printed = run("query", url, "select clip_id from clips where dataset = 'b'", "--save", "of-b", cwd=tmp_path)
    assert code == 0, printed
    assert pq.read_table(tmp_path / "out/selections/of-b.parquet").num_rows == 2
