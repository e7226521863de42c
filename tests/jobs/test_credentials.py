"""Credentials come from the environment alone: no job logs them or writes them into anything."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from job_settings import SETTINGS
from layouts import write_vpp_layout
from running import run
from toy_task import ToyTask
from video_dataset import write_video_dataset

from runtime.settings import load_settings
from schemas.errors import UsageError
from schemas.storage import check_no_credentials, exists, read_bytes
from vpp.serve.settings import ServeSettings
from vpp.train.engine import TrainSettings, train
from vpp.train.run_record import write_run_record
from vpp.train.worker import Worker

SECRETS = {
    name: f"hidden-{number:02}-value-of-{name.lower()}"
    for number, name in enumerate(
        (
            "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "VPP_SERVE_TOKEN", "RAY_AUTH_TOKEN",
            "HF_TOKEN", "WANDB_API_KEY",
        )
    )
}  # fmt: skip

WITH_CREDENTIALS = [
    "s3://key:hidden-secret@bucket/x",
    "http://user:hidden-secret@host/x",
    "https://hidden-secret@host/x",
    "sftp://user:hidden-secret@host/x",
    "simplecache::https://user:hidden-secret@host/x",
    "https://host/x?X-Amz-Signature=hidden-secret",
    "https://host/x?a=1&token=hidden-secret",
]
WITHOUT = [
    "", "out/x", "/data/a:b@c", "s3://bucket/x", "s3://bucket/a:b@c", "http://host:9000/x", "sftp://user@host/x",
    "openai/clip@0123456789ab", "hf://datasets/u/n@main/x", "a=openx-rlds:s3://bucket/d#fps=3",
]  # fmt: skip


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def assert_hidden(folder: Path, printed: str = "") -> None:
    """No file below a folder, and nothing that was printed, holds a secret."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for name, value in SECRETS.items():
        assert value not in printed, f"{name} was printed"
        holders = [path for path in files if value.encode() in path.read_bytes()]
        assert not holders, f"{name} stands in {holders}"


@pytest.mark.parametrize("url", WITHOUT)
def test_a_url_without_credentials_passes(url: str) -> None:
    check_no_credentials(url)


@pytest.mark.parametrize("url", WITH_CREDENTIALS)
def test_a_url_with_credentials_opens_nothing_and_is_not_repeated(url: str) -> None:
    for read in (read_bytes, exists):
        with pytest.raises(UsageError, match="AWS_ACCESS_KEY_ID") as error:
            read(url)
        assert "hidden" not in str(error.value)


def test_an_endpoint_with_credentials_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hidden-secret@127.0.0.1:9")
    with pytest.raises(UsageError) as error:
        read_bytes("s3://bucket/x")
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize("job", [*SETTINGS, "serve"])
def test_no_job_takes_them_in_a_setting(job: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings, defaults_for = SETTINGS.get(job, (ServeSettings, None))
    names = [field.name for field in dataclasses.fields(settings) if field.type in ("str", str)]  # type: ignore[arg-type]
    path = tmp_path / "vpp.yaml"
    url = WITH_CREDENTIALS[0]
    path.write_text(f"{job}:\n  {names[0]}: {url}\n")
    option = f"--{names[0].replace('_', '-')}"
    with caplog.at_level(logging.DEBUG):
        for arguments in ([option, url], ["--config", str(path)]):
            with pytest.raises(UsageError, match=names[0]) as error:
                load_settings(settings, job, arguments, defaults_for)
            assert "hidden" not in str(error.value)
    assert "hidden" not in caplog.text


@pytest.mark.usefixtures("secrets")
def test_a_training_stores_none_in_its_checkpoints_record_and_curves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = TrainSettings(steps=2, batch_size=2, micro_batch_size=2, precision="fp32", checkpoint_every=1)
    with caplog.at_level(logging.DEBUG):
        write_run_record(str(tmp_path), settings, {"seed": 0})
        train(ToyTask(2), settings, Worker(), str(tmp_path), {"seed": 0})
    assert (tmp_path / "checkpoints/step_00000002/state.json").exists()
    assert_hidden(tmp_path, caplog.text)


def preprocess(folder: Path) -> tuple[int, str]:
    source = write_vpp_layout(folder / "source", 1, 20, actions=False)
    arguments = ("--sources", f"a=vpp-layout:{source}", "--output", folder / "out", "--text-encoder", "none")
    return run("preprocess", *arguments, cwd=folder)


def train_stage1(folder: Path) -> tuple[int, str]:
    write_video_dataset(str(folder / "data"), {"drawers": 4})
    train_options = (
        "--preset tiny --train.steps 1 --train.batch-size 2 --train.micro-batch-size 2 --train.precision fp32"
    )
    options = f"{train_options} --train.validate-every 0 --loading.validation-fraction 0 --workers.cpus-per-worker 1"
    return run("stage1", "--data", folder / "data", "--output", folder / "out", *options.split(), cwd=folder)


@pytest.mark.slow
@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("job", [preprocess, train_stage1])
def test_a_job_writes_and_prints_none(job: Callable[[Path], tuple[int, str]], tmp_path: Path) -> None:
    code, printed = job(tmp_path)
    assert code == 0, printed
    assert_hidden(tmp_path / "out", printed)
