"""The benchmark's plain clone goes the whole way: a dataset of demonstrations, training, episodes, an evaluation's files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT, run

pytest.importorskip("metaworld", reason="`make` installs metaworld")
TASKS = ("faucet-close-v3", "faucet-open-v3")


@pytest.mark.slow
def test_it_leaves_what_an_evaluation_leaves_for_each_task_of_the_data(tmp_path: Path) -> None:
    demonstrations, data, output = (tmp_path / name for name in ("demonstrations", "data", "clone"))
    options = ("--episodes-per-task", 2, "--cameras", "near", "--image-size", 64)
    code, printed = run("collect", "--output", demonstrations, "--tasks", *TASKS, *options, cwd=tmp_path)
    assert code == 0, printed
    code, printed = run(
        "preprocess", "--output", data, "--text-encoder", "tiny", "--video.frame-size", 64, "--products", "episodes",
        "--sources", f"metaworld=openx-lerobot:{demonstrations}", cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, printed
    command = [sys.executable, ROOT / "benchmarks" / "clone.py", "--data", data, "--output", output, "--steps", "2"]
    command += ["--batch-size", "4", "--episodes", "1", "--max-steps", "6", "--json"]
    for _ in range(2):  # the second run finds all done
        done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert "there already" in done.stdout
    for told in ("own", "next"):
        summary = json.loads((output / told / "summary.json").read_text())
        assert {task: of["n"] for task, of in summary["success"].items()} == dict.fromkeys(TASKS, 1)
        assert json.loads((output / told / "evaluation.json").read_text())["instructions"] == told
