"""On a real, small cluster: its metrics endpoint shows what jobs tell; what never fits is refused, not waited for."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray
from lerobot_example import write_lerobot_v3
from preprocessing import MeanCodec
from running import free_port
from toy_task import train_toy

from pipelines.preprocess import preprocess
from pipelines.request import PreprocessSettings
from runtime.metrics import METRICS
from runtime.ray_cluster import describe_load, find_cluster, ray_meter
from schemas.errors import UsageError
from vpp.train.engine import TrainSettings
from vpp.train.ray_train import WorkerSettings, run_on_workers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A cluster with one CPU; yields the URL of its metrics."""
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))  # for workers to find the toy task
        ray.init(
            num_cpus=1,
            include_dashboard=False,
            log_to_driver=False,
            _metrics_export_port=port,
            _system_config={"metrics_report_interval_ms": 500},
        )
    yield f"http://127.0.0.1:{port}/metrics"
    ray.shutdown()


def scraped(endpoint: str, run: str, *awaited: str, **values: float) -> dict[str, float]:
    """A run's values by series and tags, once the awaited series and values are there: they arrive one by one."""
    for _ in range(120):
        with urllib.request.urlopen(endpoint, timeout=30) as answer:
            text = answer.read().decode()
        found = {}
        for name, tags, value in re.findall(r"^ray_(vpp_\w+)\{(.*)\} (\S+)$", text, re.M):
            of = dict(re.findall(r'(\w+)="([^"]*)"', tags))
            ours = [of[tag] for tag in ("stage", "dataset", "product", "status", "task", "outcome", "le") if tag in of]
            if of.get("run") == run:
                found[" ".join([name, *ours])] = float(value)
        are_there = all(any(name.startswith(each) for name in found) for each in awaited)
        if are_there and values.items() <= found.items():
            return found
        time.sleep(0.5)
    raise AssertionError(f"{awaited} and {values} not in {found}")


def test_preprocessing_tells_rows_by_status_and_seconds_by_shard(endpoint: str, tmp_path: Path) -> None:
    source = write_lerobot_v3(str(tmp_path / "source"), lengths=[20, 30, 40])
    output = str(tmp_path / "out")
    summary = preprocess(PreprocessSettings((f"toy=openx-lerobot:{source}",), output), None, None)
    assert summary["this_run"]["shards"] == 2
    for product in ("clips", "episodes"):
        written = summary["datasets"]["toy"][product]["written"]
        assert written > 0
        rows, shards = f"vpp_manifest_rows_total toy {product} written", f"vpp_shard_seconds_count toy {product}"
        scraped(endpoint, output, **{rows: written, shards: 1})


def test_a_stage_that_takes_longer_than_it_may_is_named_with_the_clusters_load(
    endpoint: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_lerobot_v3(str(tmp_path / "source"), lengths=[20])
    settings = PreprocessSettings((f"toy=openx-lerobot:{source}",), str(tmp_path / "out"), watchdog_minutes=0.002)
    with caplog.at_level(logging.WARNING, "runtime.watchdog"):
        preprocess(settings, None, None)
    stages = [record.fields["stage"] for record in caplog.records]  # type: ignore[attr-defined]
    assert {"list sources", "make shards"} & set(stages)
    assert all("of 1 CPU" in record.getMessage() for record in caplog.records if "list" in record.getMessage())


def test_training_tells_loss_speed_wait_and_the_age_of_the_checkpoint(endpoint: str, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    settings = TrainSettings(
        steps=6, batch_size=4, micro_batch_size=4, precision="fp32", log_every=2, checkpoint_every=2, validate_every=0
    )
    outcome = run_on_workers(partial(train_toy, run, settings), WorkerSettings(), 6, "stage1", run)
    assert outcome.is_finished
    of_training = [name for name in METRICS if name.startswith("vpp_train_")]
    found = scraped(endpoint, run, *of_training, **{"vpp_train_step stage1": 6})
    assert found["vpp_train_loss stage1"] > 0
    assert found["vpp_train_samples_per_second stage1"] > 0
    assert 0 <= found["vpp_train_data_wait_ratio stage1"] <= 1
    assert found["vpp_train_checkpoint_age_seconds stage1"] >= 0


def test_an_evaluation_counts_episodes_and_solved_tasks(endpoint: str) -> None:
    meter = ray_meter("evaluation")
    for is_solved in (True, True, False):
        meter.tell("vpp_evaluate_episodes", 1, outcome="run")
        meter.tell("vpp_evaluate_tasks", 1, task="drawer-open-v3", outcome="solved" if is_solved else "failed")
    solved, failed = (f"vpp_evaluate_tasks_total drawer-open-v3 {outcome}" for outcome in ("solved", "failed"))
    scraped(endpoint, "evaluation", **{"vpp_evaluate_episodes_total run": 3, solved: 2, failed: 1})


def test_workers_that_never_fit_are_refused(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"training workers: .* 2 x 1 CPU, .* found room for 1: head with 1 CPU"):
        run_on_workers(partial(train_toy, "", TrainSettings()), WorkerSettings(num_workers=2), 1, "stage1", "run")
    with pytest.raises(UsageError, match=r"1 x 8 CPU and 1 GPU"):
        run_on_workers(partial(train_toy, "", TrainSettings()), WorkerSettings(use_gpu=True), 1, "stage1", "run")


def test_latents_that_would_wait_for_ever_are_refused_before_anything_is_written(endpoint: str, tmp_path: Path) -> None:
    source = write_lerobot_v3(str(tmp_path / "source"), lengths=[20])
    settings = PreprocessSettings((f"toy=openx-lerobot:{source}",), str(tmp_path / "out"))
    with pytest.raises(UsageError, match=r"latent encoders and a task: .* 2 x 1 CPU, .* --latents none"):
        preprocess(settings, None, MeanCodec)
    assert not list((tmp_path / "out").rglob("*.json"))
    assert preprocess(settings, None, None)["datasets"]["toy"]["clips"]["written"] > 0  # as the refusal said


def test_what_may_come_is_taken_from_the_environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_cluster().total("GPU") == 0
    monkeypatch.setenv("VPP_NODE_TYPES", '[{"CPU": 96, "GPU": 8, "max": 1}]')
    assert find_cluster().total("GPU") == 0  # a Ray of its own gets no nodes
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert find_cluster().total("GPU") == 0
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    cluster = find_cluster()
    assert (cluster.total("CPU"), cluster.total("GPU"), cluster.num_held({"CPU": 8, "GPU": 1})) == (97, 8, 8)


def test_the_load_names_what_waits_and_what_is_free(endpoint: str) -> None:
    waiting = ray.remote(num_cpus=4)(lambda: None).remote()
    for _ in range(60):
        load = describe_load()
        if "1 x 4 CPU" in load:
            break
        time.sleep(0.5)
    ray.cancel(waiting)
    assert load == "asked for and not given: 1 x 4 CPU; free: 1 of 1 CPU"
