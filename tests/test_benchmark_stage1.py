"""The benchmark of stage 1 runs to its end and tells what it promises; how fast is not asked here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT

FIGURES = {
    "loader_ours_samples_per_s",
    "loader_plain_samples_per_s",
    "ratio_loader",
    "step_ours_s",
    "step_plain_s",
    "step_ours_ema_s",
    "ratio_step",
    "ours_peak_mb",
    "plain_peak_mb",
    "ratio_memory",
    "data_wait_fraction",
}


@pytest.mark.slow  # three processes that each import diffusers
def test_its_last_line_has_all_figures(tmp_path: Path) -> None:
    sizes = ["--clips", "4", "--batch", "1", "--latent-size", "8", "--steps", "1", "--rounds", "1", "--processes", "1"]
    command = [sys.executable, str(ROOT / "benchmarks" / "stage1.py"), "--json", *sizes]
    output = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=600).stdout
    figures = json.loads(output.splitlines()[-1])
    assert set(figures) >= FIGURES
    assert all(figures[name] > 0 for name in FIGURES - {"data_wait_fraction"})
    assert 0 <= figures["data_wait_fraction"] < 1
