"""The same script by `ray job submit`, on a cluster of its own: bare with vpp.yaml, exit codes, and a rerun that continues."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from layouts import write_vpp_layout
from running import ROOT, free_port, product_files, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """The environment in which `ray` talks to a head node that this test started."""
    binaries = Path(sys.executable).parent
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PATH": f"{binaries}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled"}
    dashboard, port = free_port(), free_port()
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets need a short path
    ports = [f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"]
    ports += ["--min-worker-port=0", "--max-worker-port=0"]
    # Other clusters on this machine have the usual ports of agents.
    ports += [f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}"]
    command = [
        "ray",
        "start",
        "--head",
        "--num-cpus=2",
        f"--temp-dir={folder}",
        "--dashboard-host=127.0.0.1",
        "--block",
    ]
    head = subprocess.Popen(
        [*command, *ports],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    environment["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{dashboard}"
    ready = ["ray", "job", "submit", "--", "python", "-c", "pass"]  # the dashboard answers before its agent takes jobs
    for _ in range(60):
        tried = subprocess.run(ready, env=environment, capture_output=True, text=True)
        if tried.returncode == 0:
            break
        time.sleep(1.0)
    else:
        pytest.fail(f"the cluster did not come up: {tried.stdout}{tried.stderr}")
    yield environment
    children = psutil.Process(head.pid).children(recursive=True)
    for process in [*children, psutil.Process(head.pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    head.wait()
    shutil.rmtree(folder, ignore_errors=True)


def submit(environment: dict[str, str], working_dir: Path, *arguments: str) -> tuple[int, str]:
    command = ["ray", "job", "submit", "--working-dir", ".", "--", "python", "jobs/preprocess.py", *arguments]
    ended = subprocess.run(command, cwd=working_dir, env=environment, capture_output=True, text=True, timeout=300)
    return ended.returncode, ended.stdout + ended.stderr


def test_a_submitted_job_writes_what_a_local_one_writes(cluster: dict[str, str], tmp_path: Path) -> None:
    source = write_vpp_layout(tmp_path / "set", num_episodes=3, num_frames=30)
    project = tmp_path / "project"
    project.mkdir()
    for name in ("schemas", "runtime", "pipelines", "vpp", "jobs"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    config = (
        f"preprocess:\n  sources: ['d=vpp-layout:{source}']\n  output: {tmp_path}/submitted\n  text_encoder: tiny\n"
    )
    (project / "vpp.yaml").write_text(config)
    code, printed = submit(cluster, project)
    assert code == 0, printed
    assert "summary:" in printed
    code, printed = run("preprocess", "--config", project / "vpp.yaml", "--output", tmp_path / "local", cwd=tmp_path)
    assert code == 0, printed
    assert product_files(tmp_path / "submitted") == product_files(tmp_path / "local")
    code, printed = submit(cluster, project)
    assert code == 0, printed
    assert "0 shards, 0 clips" in printed


def test_a_mistake_reaches_the_one_who_submits(cluster: dict[str, str]) -> None:
    code, printed = submit(cluster, ROOT, "--sources", "d=vhs:/nowhere", "--output", "/tmp/nowhere")
    assert code != 0
    assert "unknown kind 'vhs'" in printed
    assert "exit code 2" in printed
