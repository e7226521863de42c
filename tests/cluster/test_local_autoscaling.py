"""README's cluster on one machine: workers come for work and go after it, whatever dies, and only the token's owner is let in."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from local_cluster import LocalCluster, running_cluster, wait_for
from running import product_files, run

pytestmark = pytest.mark.slow

SMALL_SHARDS = ["--shard.clips", "8", "--shard.frames", "128"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    # work enough for a second node: Ray Data asks for more nodes at most every 20 s
    with running_cluster(tmp_path_factory.mktemp("project"), lengths=[60] * 200) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def expected(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the job that README submits writes when it runs on its own, in one process and its tasks."""
    source = f"metaworld=openx-lerobot:{cluster.project}/out/demo/demonstrations#window.stride=4&window.hop=8"
    output = tmp_path_factory.mktemp("alone") / "out"
    arguments = ["--text-encoder", "tiny", "--output", output, "--sources", source, *SMALL_SHARDS]
    code, printed = run("preprocess", *arguments, cwd=cluster.project)
    assert code == 0, printed
    return product_files(output)


def submit(cluster: LocalCluster) -> subprocess.Popen[str]:
    """README's submission; only its shards are smaller, so that there are many."""
    command = f"{cluster.access}\n{cluster.submit.rstrip()} {' '.join(SMALL_SHARDS)}"
    return subprocess.Popen(
        ["bash", "-ec", command],
        cwd=cluster.project,
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def listening(processes: list[psutil.Process]) -> set[str]:
    """Addresses on which processes wait for connections."""
    found = set()
    for process in processes:
        try:
            connections = process.net_connections("inet")
        except psutil.Error:
            continue
        found |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
    return found


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def test_workers_come_do_the_shards_and_go(cluster: LocalCluster, expected: dict[str, str]) -> None:
    assert cluster.workers() == []
    job = submit(cluster)
    wait_for("a worker node", cluster.workers)
    wait_for("two worker nodes", lambda: len(cluster.workers()) == 2 or job.poll() is not None)
    assert len(cluster.workers()) == 2, job.communicate()[0]
    wait_for("metrics", lambda: "ray_vpp_manifest_rows_total{" in cluster.metrics() or job.poll() is not None)
    assert "ray_vpp_manifest_rows_total{" in cluster.metrics()
    assert (cluster.metrics_folder / "grafana" / "dashboards").is_dir()  # where README copies ours to
    addresses = listening(cluster.tree())
    assert addresses
    assert all(map(is_loopback, addresses)), addresses
    printed, _ = job.communicate(timeout=600)
    assert job.returncode == 0, printed
    assert product_files(cluster.project / "out" / "cluster") == expected
    wait_for("the workers to go", lambda: cluster.workers() == [])


def test_a_worker_node_that_dies_is_replaced_and_changes_no_byte(
    cluster: LocalCluster, expected: dict[str, str]
) -> None:
    output = cluster.project / "out" / "cluster"
    shutil.rmtree(output, ignore_errors=True)
    wait_for("the workers to go", lambda: cluster.workers() == [])
    before = {node["node_id"] for node in cluster.nodes()}
    job = submit(cluster)
    wait_for("the first shards", lambda: len(list(output.glob("clips/manifest/*/*.parquet"))) > 5)
    cluster.worker_raylets()[0].kill()
    printed, _ = job.communicate(timeout=600)
    assert job.returncode == 0, printed
    came = [node for node in cluster.nodes() if node["node_id"] not in before]
    assert len(came) >= 2
    assert any("Unexpected termination" in str(node) for node in came), came
    assert product_files(output) == expected


@pytest.mark.parametrize(
    ("environment", "options", "expected"),
    [
        ("", "--latents tiny --num-encoders 2", "latent encoders and a task: .* 3 x 1 CPU, .* at most 2 with 1 CPU"),
        ("env -u VPP_NODE_TYPES", "", "tasks: .* 1 x 1 CPU, .* found room for 0: .* say which: VPP_NODE_TYPES="),
    ],
    ids=["more than may come", "nobody told what may come"],
)
def test_a_job_that_can_never_be_scheduled_says_so(
    cluster: LocalCluster, environment: str, options: str, expected: str
) -> None:
    wait_for("the workers to go", lambda: cluster.workers() == [])
    source = f"metaworld=openx-lerobot:{cluster.project}/out/demo/demonstrations"
    job = f"python jobs/preprocess.py --text-encoder none --output {cluster.project}/out/never --sources {source}"
    done = cluster.run(f"ray job submit --working-dir . -- {environment} {job} {options}", cluster.access)
    assert re.search(f"error: {expected}", done.stdout), done.stdout
    assert "exit code 2" in done.stdout
    assert cluster.workers() == []
    assert not (cluster.project / "out" / "never" / "plan").exists()


def test_the_upload_leaves_out_what_is_large(cluster: LocalCluster) -> None:
    (cluster.project / ".venv").mkdir()
    (cluster.project / ".venv" / "large").write_bytes(b"0" * 1000)
    done = cluster.run("ray job submit --working-dir . -- ls -A", cluster.access)
    assert done.returncode == 0, done.stdout
    names = done.stdout.split()
    assert {"jobs", "pipelines", "runtime", "schemas", "vpp"} <= set(names)
    assert not {"out", ".venv"} & set(names)


def test_without_the_token_nobody_submits(cluster: LocalCluster, tmp_path: Path) -> None:
    marker = tmp_path / "was here"
    no_token = "export HOME=/nonexistent"
    for case, before in {
        "Missing authentication token": (no_token, "export RAY_AUTH_MODE=disabled"),
        "couldn't find an authentication token": (no_token,),
        "Invalid authentication token": ("export RAY_AUTH_TOKEN=wrong",),
    }.items():
        done = cluster.run(f"ray job submit -- touch '{marker}'", cluster.access, *before)
        assert done.returncode != 0, case
        assert case in done.stdout
    assert not marker.exists()


def test_the_cluster_can_be_watched(cluster: LocalCluster) -> None:
    done = cluster.run(cluster.watch, cluster.access)
    assert done.returncode == 0, done.stdout
    for part in ("Autoscaler status", "is_head_node", "SUCCEEDED"):
        assert part.lower() in done.stdout.lower(), done.stdout


def test_stopping_ends_the_head_and_its_workers(cluster: LocalCluster) -> None:
    shutil.rmtree(cluster.project / "out" / "cluster", ignore_errors=True)
    job = submit(cluster)
    wait_for("a worker node", cluster.workers)
    assert len(cluster.tree()) > 10
    done = cluster.run(cluster.stop)
    assert done.returncode == 0, done.stdout
    wait_for("everything to end", lambda: not cluster.tree())
    job.communicate(timeout=60)
