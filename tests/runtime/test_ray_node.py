"""A job does not outlive its node, and a Ray that was shut down on purpose ends nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT

WAITS_FOR_EVER = """
import os, psutil, ray
from runtime.ray_node import end_with_node
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
end_with_node(every_s=0.5)
ray.shutdown()
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
end_with_node(every_s=0.5)
print("begins", flush=True)
for process in psutil.Process().children(recursive=True):
    if process.name() == "raylet":
        process.kill()
ray.get(ray.remote(num_cpus=1)(lambda: 0).remote())
"""


@pytest.mark.slow
def test_a_job_whose_node_died_ends_with_one_line(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-c", WAITS_FOR_EVER]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("begins\n")
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if line.startswith("stopped:")]
    assert told == ["stopped: the Ray node of this job died; what is done is kept, the same command continues"]
