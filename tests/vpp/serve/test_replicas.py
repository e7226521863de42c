"""Two copies with Ray Serve answer as one does, and the death of one costs no answer."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest
from running import free_port, start
from tiny_policy import SEEN, write_policy

from runtime.resources import Cluster, Nodes
from schemas.errors import UsageError
from vpp.policy.policy import VideoPredictionPolicy
from vpp.serve.client import PolicyClient
from vpp.serve.settings import ServeSettings

pytest.importorskip("starlette", reason="`make` installs ray[serve]")

NUM_ROBOTS, NUM_CHUNKS = 4, 10


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def job(policy: str, port: int, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    options = ("--policy", policy, "--port", port, "--replicas", 2)
    process = start("serve", *options, cwd=tmp_path, log=tmp_path / "log")
    yield process
    if process.poll() is None:
        for one in [*psutil.Process(process.pid).children(recursive=True), process]:
            one.kill()
        process.wait()


def copies(job: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(job.pid).children(recursive=True)
    return [
        child for child in children if "ServeReplica" in child.name() or "ServeReplica" in " ".join(child.cmdline())
    ]


@pytest.mark.parametrize("gpus", [0, 2])
def test_more_copies_than_the_cluster_can_ever_hold_are_refused(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    from vpp.serve import replicas

    cluster = Cluster(Nodes({"CPU": 3.0, "GPU": float(gpus)}))
    monkeypatch.setattr(replicas, "start_ray", lambda: None)
    monkeypatch.setattr(replicas, "find_cluster", lambda: cluster)
    with pytest.raises(UsageError, match=f"hold 4 x .*found room for {gpus or 3}.*lower --replicas"):
        replicas.start_replicas(ServeSettings(replicas=4), ExitStack())


@pytest.mark.slow
def test_the_death_of_a_copy_costs_no_answer(
    job: subprocess.Popen[str], policy: str, port: int, tmp_path: Path
) -> None:
    local = VideoPredictionPolicy.load(policy, device="cpu")
    expected = [local.predict_action_chunk(SEEN)[0].numpy() for _ in range(NUM_CHUNKS)]
    PolicyClient(port=port, wait_s=180.0).close()
    before = copies(job)
    assert len(before) == 2

    def act(robot: int) -> None:
        with PolicyClient(port=port) as client:
            for number, chunk in enumerate(expected):
                np.testing.assert_allclose(client.infer(SEEN)["actions"], chunk, atol=1e-4)
                if (robot, number) == (0, 3):
                    os.kill(before[0].pid, signal.SIGKILL)

    with ThreadPoolExecutor(NUM_ROBOTS) as robots:
        list(robots.map(act, range(NUM_ROBOTS)))
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=120) == 0, (tmp_path / "log").read_text()
