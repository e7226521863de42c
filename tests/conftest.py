"""Fixtures that every test may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is there, and for the jobs that tests start

import hypothesis
import pytest
import torch
from s3fs import S3FileSystem

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "pipelines")]  # for tests/s3.py and its like

from s3 import S3Server  # noqa: E402

hypothesis.settings.register_profile("project", derandomize=True, database=None, deadline=None)  # each run the same
hypothesis.settings.load_profile("project")
torch.set_num_threads(1)  # tests run side by side, and threads that wait for each other cost most of the time

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real samples in the true formats; they lie beside the project where it is developed."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real samples of ../shared/data are not on this machine")
    return folder


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A running S3 server with an empty bucket `bucket`; the environment points to it."""
    root = tmp_path / "s3"
    (root / "bucket").mkdir(parents=True)
    server = S3Server(root)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    server.start()
    yield server
    server.stop()
    S3FileSystem.clear_instance_cache()
