"""Small files that would become gigabytes, each read in a process that may take no more than one beyond its code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT

GIGABYTE = 1 << 30


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and limits the address space")
def test_no_small_file_becomes_a_gigabyte(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests/bombs.py"), str(tmp_path), str(GIGABYTE)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout.splitlines()[-1])
    assert len(told) >= 14
    assert set(told.values()) == {"refused"}, told
