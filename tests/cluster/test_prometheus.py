"""A real Prometheus, started as README says, reads what a job tells and takes every expression of the dashboard."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from local_cluster import LocalCluster, running_cluster, wait_for
from readme_commands import command_blocks
from running import ROOT, free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed (Debian: prometheus)"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with running_cluster(tmp_path_factory.mktemp("project"), lengths=[60] * 60) as cluster:
        yield cluster


@pytest.fixture
def ask(cluster: LocalCluster) -> Iterator[Any]:
    """Asks Prometheus, which reads that cluster, for the values of an expression."""
    (block,) = command_blocks(ROOT / "cluster" / "README.md", "## Watch")
    command = block[block.index("prometheus ") : block.index("&")]
    port = free_port()
    command = f"METRICS={cluster.metrics_folder}; exec {command.replace('9090', str(port))}"
    log = (cluster.project / "out" / "prometheus.log").open("w")
    with subprocess.Popen(["bash", "-ec", command], stdout=log, stderr=log) as prometheus:

        def ask(expression: str) -> list[float]:
            query = urllib.parse.urlencode({"query": expression})
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=30) as answer:
                return [float(found["value"][1]) for found in json.load(answer)["data"]["result"]]

        try:
            wait_for("Prometheus", lambda: ask("vector(1)") == [1])
            yield ask
        finally:
            prometheus.terminate()


def test_it_reads_what_a_job_tells_and_takes_the_dashboards_expressions(cluster: LocalCluster, ask: Any) -> None:
    command = f"{cluster.access}\n{cluster.submit.rstrip()} --shard.clips 8 --shard.frames 128"
    job = subprocess.Popen(["bash", "-ec", command], cwd=cluster.project, env=cluster.environment)
    wait_for("rows", lambda: sum(ask('ray_vpp_manifest_rows_total{status="written"}')) > 0, timeout_s=300)
    dashboard = json.loads((ROOT / "cluster" / "grafana-dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(expressions) > 10
    for expression in expressions:
        ask(expression.replace("$run", ".*").replace("$__rate_interval", "1m"))  # an error would raise
    assert job.wait(600) == 0
