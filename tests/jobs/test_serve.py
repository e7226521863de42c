"""The job: ready when the policy is warm, answers, and ends with code 0 when it is told to."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from running import free_port, run, start
from tiny_policy import NUM_ACTIONS, SEEN, write_policy

from vpp.policy.policy import VideoPredictionPolicy
from vpp.serve.client import PolicyClient

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def job(policy: str, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    monkeypatch.setenv("VPP_SERVE_TOKEN", "a secret")
    process = start("serve", "--policy", policy, "--port", port, cwd=tmp_path, log=tmp_path / "log")
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop(
    job: subprocess.Popen[str], number: int, policy: str, port: int, tmp_path: Path
) -> None:
    with PolicyClient(port=port, token="a secret", wait_s=120.0) as client:
        chunk = client.infer(SEEN)["actions"]
        assert chunk.shape == (NUM_ACTIONS, 4)
        expected = VideoPredictionPolicy.load(policy, device="cpu").predict_action_chunk(SEEN)[0]
        np.testing.assert_allclose(chunk, expected, atol=1e-4)
        job.send_signal(number)
        assert job.wait(timeout=60) == 0
    log = (tmp_path / "log").read_text()
    assert f"ready: ws://127.0.0.1:{port}" in log
    assert "a secret" not in log
    assert "Traceback" not in log


def test_mistakes_are_told_in_one_line(policy: str, port: int, tmp_path: Path) -> None:
    code, printed = run("serve", cwd=tmp_path)
    assert code == 2
    assert "error: --policy: expected a folder of jobs/stage2.py, found nothing" in printed
    code, printed = run("serve", "--policy", tmp_path, cwd=tmp_path)
    assert code == 2
    assert "found no config.json" in printed
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        code, printed = run("serve", "--policy", policy, "--port", port, cwd=tmp_path)
    assert code == 2
    assert f"error: --host 127.0.0.1 --port {port}:" in printed
