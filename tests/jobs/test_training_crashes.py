"""A training is killed in every way, and each time ends as the run that nothing happened to.

Both stages run the same loop, so each way is tried on one of them, but the commonest, a killed driver, on both.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from episode_dataset import write_episode_dataset
from s3 import S3Server
from video_dataset import write_video_dataset
from video_model import write_video_model

from schemas.storage import list_files
from vpp.train.run_log import read_steps

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STEPS, EVERY = 16, 3
LOOP = (
    f"--preset tiny --train.steps {STEPS} --train.batch-size 4 --train.micro-batch-size 2 --train.precision fp32 "
    f"--train.checkpoint-every {EVERY} --train.log-every 1 --train.validate-every 0 --loading.mixture drawers=0.6,blocks=0.4 "
    "--loading.validation-fraction 0"
).split()


@dataclass(frozen=True)
class Training:
    """A job with its data."""

    command: tuple[str, ...]

    def start(self, output: str, num_workers: int = 1) -> subprocess.Popen:
        command = [sys.executable, *self.command, "--output", output, *LOOP]
        command += ["--workers.num-workers", str(num_workers), "--workers.cpus-per-worker", "1"]
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"RAY_ADDRESS": "local"})


@pytest.fixture(scope="module", params=["stage1", "stage2"])
def training(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """38 and 26 draws of 16 and 12 samples: both datasets reach their second epoch, and beyond."""
    folder = tmp_path_factory.mktemp(request.param)
    data = str(folder / "data")
    if request.param == "stage1":
        write_video_dataset(data, {"drawers": 16, "blocks": 12})
        return Training(("jobs/stage1.py", "--data", data))
    codec = write_video_model(folder)
    write_episode_dataset(data, {"drawers": 4, "blocks": 3}, latent_codec=codec, num_frames=4)
    return Training(("jobs/stage2.py", "--data", data, "--video-model", str(folder)))


@pytest.fixture(scope="module")
def undisturbed(training: Training, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    output = str(tmp_path_factory.mktemp("undisturbed"))
    assert training.start(output).wait(600) == 0
    steps = read_steps(output)
    assert steps["step"].to_pylist() == list(range(STEPS))
    return steps


def wait_for_checkpoint(job: subprocess.Popen, output: str, step: int) -> None:
    deadline = time.monotonic() + 400
    wanted = f"step_{step:08}/complete.json"
    while job.poll() is None and time.monotonic() < deadline:
        if any(name.endswith(wanted) for name in list_files(f"{output}/checkpoints", ".json")):
            return
        time.sleep(0.2)
    raise AssertionError(f"no checkpoint of step {step}; exit code {job.poll()}")


def kill_worker(job: subprocess.Popen, name: str = "RayTrainWorker") -> None:
    """SIGKILL to a process of Ray Train's that trains, or to one of another name."""
    workers = [
        process for process in psutil.Process(job.pid).children(recursive=True) if name in " ".join(process.cmdline())
    ]
    assert workers
    random.choice(workers).send_signal(signal.SIGKILL)


def kill_with_children(job: subprocess.Popen) -> None:
    """SIGKILL to the driver; its Ray, which nobody needs any more, follows it."""
    family = psutil.Process(job.pid).children(recursive=True)
    job.kill()
    job.wait()
    for process in family:
        if process.is_running():
            process.kill()


def assert_same_samples(steps: pa.Table, undisturbed: pa.Table) -> None:
    assert steps["step"].equals(undisturbed["step"])
    for column in ("sample_ids", "datasets", "sigmas"):
        assert steps[column].to_pylist() == undisturbed[column].to_pylist(), column


def assert_same_bits(steps: pa.Table, undisturbed: pa.Table) -> None:
    assert_same_samples(steps, undisturbed)
    for column in ("losses", "loss", "grad_norm"):
        assert steps[column].to_pylist() == undisturbed[column].to_pylist(), column


@pytest.mark.parametrize("training", ["stage2"], indirect=True)
def test_a_killed_worker_is_started_again_by_the_same_job(
    training: Training, undisturbed: pa.Table, tmp_path: Path
) -> None:
    job = training.start(str(tmp_path))
    wait_for_checkpoint(job, str(tmp_path), random.choice([3, 6, 9]))
    time.sleep(random.uniform(0, 1))
    kill_worker(job)
    assert job.wait(600) == 0
    assert_same_bits(read_steps(str(tmp_path)), undisturbed)


@pytest.mark.parametrize("training", ["stage1"], indirect=True)
def test_a_driver_that_loses_touch_with_its_workers_says_so_and_the_same_command_continues(
    training: Training, undisturbed: pa.Table, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = training.start(str(tmp_path))
    wait_for_checkpoint(job, str(tmp_path), 3)
    kill_worker(job, "_GoBetween")
    assert job.wait(300) == 1
    assert "stopped: the driver lost touch with the workers" in capfd.readouterr().err
    assert training.start(str(tmp_path)).wait(600) == 0
    assert_same_bits(read_steps(str(tmp_path)), undisturbed)


def test_a_killed_driver_is_resumed_by_the_same_command(
    training: Training, undisturbed: pa.Table, tmp_path: Path
) -> None:
    for step in (3, 9):
        job = training.start(str(tmp_path))
        wait_for_checkpoint(job, str(tmp_path), step)
        time.sleep(random.uniform(0, 1))
        kill_with_children(job)
    assert training.start(str(tmp_path)).wait(600) == 0
    assert_same_bits(read_steps(str(tmp_path)), undisturbed)


@pytest.mark.parametrize("training", ["stage1"], indirect=True)
def test_a_store_that_is_gone_for_20_s_during_a_checkpoint_only_delays(
    training: Training, undisturbed: pa.Table, s3: S3Server
) -> None:
    output = "s3://bucket/run"
    job = training.start(output)
    wait_for_checkpoint(job, output, 3)
    s3.stop(signal.SIGKILL)
    time.sleep(20)
    s3.start()
    assert job.wait(600) == 0
    assert_same_bits(read_steps(output), undisturbed)


@pytest.mark.parametrize("training", ["stage2"], indirect=True)
def test_two_workers_crash_and_one_goes_on_with_the_same_samples(
    training: Training, undisturbed: pa.Table, tmp_path: Path
) -> None:
    job = training.start(str(tmp_path), num_workers=2)
    wait_for_checkpoint(job, str(tmp_path), 6)
    kill_with_children(job)
    assert training.start(str(tmp_path)).wait(600) == 0
    assert_same_samples(read_steps(str(tmp_path)), undisturbed)


@pytest.mark.parametrize(
    ("training", "number"), [("stage1", signal.SIGTERM), ("stage2", signal.SIGINT)], indirect=["training"]
)
def test_a_job_that_is_asked_to_stop_writes_a_checkpoint_first(
    training: Training, undisturbed: pa.Table, tmp_path: Path, number: int
) -> None:
    job = training.start(str(tmp_path))
    wait_for_checkpoint(job, str(tmp_path), EVERY)
    job.send_signal(number)
    assert job.wait(300) == 130
    done = len(read_steps(str(tmp_path)))
    assert EVERY <= done < STEPS
    assert any(f"step_{done:08}/complete.json" in name for name in list_files(f"{tmp_path}/checkpoints", ".json"))
    assert training.start(str(tmp_path)).wait(600) == 0
    assert_same_bits(read_steps(str(tmp_path)), undisturbed)
