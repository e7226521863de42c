"""The cluster of cluster/local-autoscaling.yaml, started with README's commands beside others on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml
from lerobot_example import write_lerobot_v3
from readme_commands import command_blocks
from running import ROOT, free_port

COPIED = ("schemas", "runtime", "pipelines", "vpp", "jobs", "cluster", ".gitignore")


class LocalCluster:
    """A copy of the project, and a head node that this process started from it with its own ports and token.

    Args:
        project: Folder for the copy.
        before: Commands of README's that come before the start.
    """

    def __init__(self, project: Path, before: str = "") -> None:
        self.project = project
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, project / name)
        self._ports = {"6379": str(free_port()), "8265": str(free_port())}
        config = project / "cluster" / "local-autoscaling.yaml"
        config.write_text(self._with_own_ports(config.read_text()))
        blocks = command_blocks(ROOT / "cluster" / "README.md", "## One machine")
        self.start, self.submit, self.watch, self.stop = map(self._with_own_ports, blocks)
        self.start = before + self.start
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets need a short path
        self.environment |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self._folder),
            "RAY_TMPDIR": str(self._folder),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._processes: set[psutil.Process] = set()
        self._head = self._start_head()

    def _with_own_ports(self, text: str) -> str:
        for usual, own in self._ports.items():
            text = text.replace(usual, own)
        return text

    def _start_head(self) -> psutil.Process:
        options = f"--head --port={self._ports['6379']} --dashboard-port={self._ports['8265']}"
        for agent in ("ray-client-server-port", "dashboard-agent-listen-port", "metrics-export-port"):
            options += f" --{agent}={free_port()}"
        command = self.start.replace("--head", f"{options} --object-store-memory=200000000")
        # As in a terminal, what goes to the background is a group of its own.
        subprocess.run(["bash", "-ec", "set -m\n" + command], cwd=self.project, env=self.environment, check=True)
        return psutil.Process(int((self.project / "out" / "ray.pid").read_text()))

    @property
    def port(self) -> int:
        """Of the head's own service."""
        return int(self._ports["6379"])

    @property
    def token(self) -> str:
        return (self._folder / ".ray" / "auth_token").read_text()

    def wait_until_ready(self) -> None:
        """Until jobs are taken; the dashboard answers a little earlier."""
        for _ in range(60):
            done = self.run("ray job submit -- true", self.access)
            if done.returncode == 0:
                return
            time.sleep(1.0)
        raise AssertionError((self.project / "out" / "ray.log").read_text() + done.stdout)

    @property
    def access(self) -> str:
        """README's lines that say where the cluster is and that a token is needed."""
        return "\n".join(line for line in (self.start + self.submit).splitlines() if line.startswith("export "))

    def run(self, command: str, *before: str) -> subprocess.CompletedProcess[str]:
        """Runs a command as in README's terminal; both streams in `stdout`."""
        return subprocess.run(
            ["bash", "-ec", "\n".join([*before, command])],
            cwd=self.project,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=400,
        )

    @property
    def metrics_folder(self) -> Path:
        """What Ray prepares for Prometheus and Grafana."""
        (folder,) = self._folder.glob("**/session_latest/metrics")
        return folder

    def metrics(self) -> str:
        """All that Prometheus would read now, from every node that Ray's configuration of it leads to."""
        config = yaml.safe_load((self.metrics_folder / "prometheus" / "prometheus.yml").read_text())
        (found,) = config["scrape_configs"][0]["file_sd_configs"]
        text = ""
        for path in map(Path, found["files"]):
            for target in [target for nodes in json.loads(path.read_text()) for target in nodes["targets"]]:
                with contextlib.suppress(OSError):  # a node that has just gone
                    text += urllib.request.urlopen(f"http://{target}/metrics", timeout=30).read().decode()
        return text

    def nodes(self) -> list[dict[str, Any]]:
        """Worker nodes, dead ones too."""
        url = f"http://127.0.0.1:{self._ports['8265']}/api/v0/nodes"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = json.load(answer)["data"]["result"]["result"]
        return [node for node in found if not node["is_head_node"]]

    def workers(self) -> list[str]:
        """Ids of the worker nodes that are alive."""
        return [node["node_id"] for node in self.nodes() if node["state"] == "ALIVE"]

    def tree(self) -> list[psutil.Process]:
        """All processes of the cluster that are alive: the head, its worker nodes, its jobs."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._processes |= {self._head, *self._head.children(recursive=True)}
        return [process for process in self._processes if process.is_running()]

    def worker_raylets(self) -> list[psutil.Process]:
        """The processes that are worker nodes: the autoscaler's children."""
        found = []
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                parent = process.parent()
                if process.name() == "raylet" and parent and any("monitor.py" in word for word in parent.cmdline()):
                    found.append(process)
        return found

    def end(self) -> None:
        """Ends what is left, process by process."""
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def running_cluster(project: Path, lengths: Sequence[int], before: str = "") -> Iterator[LocalCluster]:
    """A cluster that takes jobs, for the block; with demonstrations of these lengths where README's job looks for them."""
    write_lerobot_v3(str(project / "out" / "demo" / "demonstrations"), lengths=list(lengths))
    cluster = LocalCluster(project, before)
    try:
        cluster.wait_until_ready()
        yield cluster
    finally:
        cluster.end()


def wait_for(what: str, condition: Callable[[], object], timeout_s: float = 120) -> None:
    """Waits for something that a cluster does in its own time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError):
            if condition():
                return
        time.sleep(0.5)
    raise AssertionError(f"waited {timeout_s:.0f} s for {what}")
