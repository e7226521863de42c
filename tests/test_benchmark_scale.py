"""The scaling page shows what its scripts print; the simulated store counts the requests that S3 would get."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT


def _run(script: str, *arguments: str, cwd: Path) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=600).stdout


def test_the_page_shows_the_tables_and_the_picture_of_its_script(tmp_path: Path) -> None:
    tables = _run("scaling_table.py", "--svg", str(tmp_path / "drawn.svg"), cwd=tmp_path)
    page = (ROOT / "docs" / "scaling.md").read_text()
    assert all(part.strip() in page for part in tables.split("\n\n"))
    assert (tmp_path / "drawn.svg").read_text() == (ROOT / "docs" / "scaling.svg").read_text()


@pytest.mark.slow  # four processes
def test_requests_of_the_plan_the_ledger_and_a_query_are_counted(tmp_path: Path) -> None:
    sizes = ["--clips", "12000", "--shard-clips", "5", "--only", "dense", "ledger", "query", "index"]
    figures = json.loads(_run("scale.py", "--json", *sizes, cwd=tmp_path).splitlines()[-1])["12000"]
    assert figures["dense_shards"] * 5 >= figures["dense_clips"] >= 12000
    assert figures["dense_plan_put"] == -(-figures["dense_shards"] // 64) + -(-figures["dense_captions"] // 1024) + 1
    assert figures["dense_write_put"] == pytest.approx(2)  # a mean
    assert figures["pending_all_done_list"] == 3 + 2  # pages of 1,000 of 2,400 parts, and a folder that is not there
    assert figures["count_rows_get"] == 2400
    assert figures["index_get"] == 2400
    assert "count_rows_head" not in figures
    assert "index_head" not in figures
    assert figures["query_open_get"] + figures["query_first_get"] >= 2400  # opening reads one part
