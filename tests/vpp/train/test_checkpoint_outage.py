"""An S3 server that goes away in the middle of an upload only delays a checkpoint, if it comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from botocore.exceptions import EndpointConnectionError
from s3 import S3Server
from s3fs import S3FileSystem

from vpp.train.checkpoint import find_checkpoints, read_checkpoint, read_latest_checkpoint
from vpp.train.checkpoint_writer import CheckpointSaveError, CheckpointWriter

RUN = "s3://bucket/run"
TENSOR = torch.arange(26 << 20, dtype=torch.float32)  # 104 MiB: uploaded in parts


@pytest.fixture(autouse=True)
def no_retries_below_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    S3FileSystem.clear_instance_cache()


def wait_for_upload(server: S3Server, num_bytes: int) -> None:
    """Until the server has read so much more."""
    assert server._process is not None
    process = psutil.Process(server._process.pid)
    start = process.io_counters().read_chars
    deadline = time.monotonic() + 60
    while process.io_counters().read_chars < start + num_bytes:
        assert time.monotonic() < deadline, "no upload began"
        time.sleep(0.001)


def wait_for_log(caplog: pytest.LogCaptureFixture, text: str) -> None:
    deadline = time.monotonic() + 60
    while text not in caplog.text:
        assert time.monotonic() < deadline, f"never logged: {text}"
        time.sleep(0.01)


def test_a_server_killed_in_an_upload_delays_the_checkpoint(
    s3: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with CheckpointWriter(RUN, retry_for_s=120) as writer:
        writer.save(1, {"weights": {"small": torch.ones(3)}}, {}, {})
        writer.wait()
        writer.save(2, {"weights": {"large": TENSOR}}, {"step": 2}, {})
        wait_for_upload(s3, 40 << 20)
        s3.stop(signal.SIGKILL)
        wait_for_log(caplog, "uploading s3://bucket/run/checkpoints/step_00000002")
        assert not (tmp_path / "s3/bucket/run/checkpoints/step_00000002/complete.json").exists()
        s3.start()
    checkpoint = read_latest_checkpoint(RUN, retry_for_s=0)
    assert checkpoint is not None
    assert checkpoint.state == {"step": 2}
    assert torch.equal(checkpoint.tensors["weights"]["large"], TENSOR)
    assert [info.step for info in find_checkpoints(RUN, verify=True)[0]] == [1, 2]


SAVE_LARGE = f"""
import torch
from vpp.train.checkpoint_writer import CheckpointWriter
with CheckpointWriter("{RUN}") as writer:
    writer.save(2, {{"weights": {{"large": torch.zeros(8 << 20)}}}}, {{}}, {{}})
"""


def test_a_process_killed_in_an_upload_leaves_the_checkpoint_before(
    s3: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with CheckpointWriter(RUN) as writer:
        writer.save(1, {"weights": {"small": torch.ones(3)}}, {"step": 1}, {})
    process = subprocess.Popen([sys.executable, "-c", SAVE_LARGE], env={**os.environ, "TMPDIR": str(tmp_path)})
    wait_for_upload(s3, 4 << 20)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    checkpoint = read_latest_checkpoint(RUN)
    assert checkpoint is not None
    assert checkpoint.state == {"step": 1}
    assert f"{RUN}/checkpoints/step_00000002 is skipped: expected {RUN}" in caplog.text
    with CheckpointWriter(RUN, keep_last=1) as writer:
        writer.save(3, {}, {}, {})
    found, skipped = find_checkpoints(RUN)
    assert ([info.step for info in found], skipped) == ([3], [])


def test_a_server_that_stays_away_ends_with_one_line_and_intact_checkpoints(s3: S3Server) -> None:
    writer = CheckpointWriter(RUN, retry_for_s=1)
    writer.save(1, {"weights": {"small": torch.ones(3)}}, {"step": 1}, {})
    writer.wait()
    writer.save(2, {"weights": {"large": TENSOR[: 8 << 20]}}, {}, {})
    wait_for_upload(s3, 4 << 20)
    s3.stop(signal.SIGKILL)
    with pytest.raises(CheckpointSaveError) as caught:
        writer.close()
    message = str(caught.value)
    assert message.startswith(f"checkpoint {RUN}/checkpoints/step_00000002 could not be saved (EndpointConnectionError")
    assert "tried again for 1 s; earlier checkpoints are intact" in message
    assert "\n" not in message

    s3.start()
    checkpoint = read_latest_checkpoint(RUN)
    assert checkpoint is not None
    assert checkpoint.state == {"step": 1}


def test_a_server_that_is_away_is_no_reason_to_take_an_older_checkpoint(
    s3: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    with CheckpointWriter(RUN) as writer:
        writer.save(1, {"weights": {"small": torch.ones(3)}}, {}, {})
    [info], _ = find_checkpoints(RUN)
    s3.stop(signal.SIGKILL)
    for read in (lambda: read_latest_checkpoint(RUN, retry_for_s=0), lambda: read_checkpoint(info, retry_for_s=0)):
        with pytest.raises(EndpointConnectionError):
            read()
    assert "is skipped" not in caplog.text

    back = threading.Thread(target=lambda: (wait_for_log(caplog, "again in"), s3.start()))
    back.start()
    checkpoint = read_latest_checkpoint(RUN, retry_for_s=60)
    back.join()
    assert checkpoint is not None
    assert checkpoint.info == info
