"""jobs/query.py: what its options do, from the shell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from running import ROOT, run
from small_dataset import write_part


@pytest.fixture
def url(tmp_path: Path) -> str:
    rows = [
        {"clip_id": f"c{n}", "status": "rejected" if n == 2 else "written", "caption": f"open {n}"} for n in range(4)
    ]
    write_part(str(tmp_path / "out"), "clips", "d", "000000", rows)
    return str(tmp_path / "out")


def test_the_ending_of_out_decides_the_format(url: str, tmp_path: Path) -> None:
    code, printed = run("query", url, "select clip_id from clips", "--out", tmp_path / "ids.parquet", cwd=tmp_path)
    assert (code, printed) == (0, f"4 rows: {tmp_path}/ids.parquet\n")
    assert pq.read_table(tmp_path / "ids.parquet").num_rows == 4


def test_a_failing_query_leaves_no_file(url: str, tmp_path: Path) -> None:
    code, printed = run("query", url, "select nope from clips", "--out", tmp_path / "x.csv", cwd=tmp_path)
    assert code == 2
    assert printed.count("\n") == 1
    assert not (tmp_path / "x.csv").exists()


def test_saving_tells_what_was_left_out(url: str, tmp_path: Path) -> None:
    code, printed = run("query", url, "select clip_id from clips", "--save", "all", cwd=tmp_path)
    assert code == 0, printed
    assert "3 clips, 1 others left out since they are not written" in printed


def test_like_is_looked_for_as_text(url: str, tmp_path: Path) -> None:
    code, printed = run("query", url, "captions", "--like", "OPEN 3", "--format", "csv", cwd=tmp_path)
    assert (code, len(printed.splitlines())) == (0, 2)
    code, printed = run("query", url, "counts", "--like", "x", cwd=tmp_path)
    assert (code, printed) == (2, "error: --like: only the query captions takes it\n")


def test_a_closed_pipe_is_no_fault(url: str, tmp_path: Path) -> None:
    job = [sys.executable, str(ROOT / "jobs" / "query.py"), url, "select * from range(2000000)", "--format", "csv"]
    process = subprocess.Popen(job, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"range\n"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() == 0
