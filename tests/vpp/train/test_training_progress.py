"""What workers tell becomes metrics, and news for the watchdog."""

from __future__ import annotations

import io
from datetime import datetime, timedelta
from typing import Any

from tqdm import tqdm

from runtime.watchdog import Watchdog
from vpp.train.training_progress import CHECKPOINT_AGE, TrainingProgress


class Told:
    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def tell(self, name: str, value: float, **tags: str) -> None:
        self.values[name] = value


def made(clock: Any) -> tuple[TrainingProgress, Told, Watchdog]:
    meter = Told()
    watchdog = Watchdog(10, clock=lambda: datetime(2026, 1, 1) + timedelta(seconds=clock()))
    return TrainingProgress(tqdm(total=100, file=io.StringIO()), meter, watchdog, clock), meter, watchdog  # type: ignore[arg-type]


def test_metrics_of_a_step_are_told_by_their_own_names() -> None:
    progress, meter, _ = made(lambda: 0.0)
    progress.take_step(20, {"train/loss": 0.5, "speed/step_s": 2.0, "speed/data_wait_share": 0.1, "train/grad_norm": 1})
    assert meter.values == {
        "vpp_train_step": 20,
        "vpp_train_loss": 0.5,
        "vpp_train_step_seconds": 2.0,
        "vpp_train_data_wait_ratio": 0.1,
    }


def test_the_age_of_a_checkpoint_grows_while_nothing_is_told() -> None:
    now = [100.0]
    progress, meter, _ = made(lambda: now[0])
    progress.take_doing({}, 0)
    assert "vpp_train_checkpoint_age_seconds" not in meter.values
    progress.take_step(20, {CHECKPOINT_AGE: 30.0})
    now[0] = 160.0
    progress.take_doing({}, 0)
    assert meter.values["vpp_train_checkpoint_age_seconds"] == 90.0


def test_the_watchdog_says_what_each_worker_does() -> None:
    now = [0.0]
    progress, _, watchdog = made(lambda: now[0])
    progress.take_step(20, {})
    progress.take_doing({0: "update the weights", 1: "wait for data", 2: "update the weights"}, 3)
    now[0] = 660.0
    progress.take_doing({0: "update the weights", 1: "wait for data", 2: "update the weights"}, 3)  # nothing new
    due = watchdog.warning()
    assert due is not None
    assert "stage 'update the weights'" in due[0]
    assert "last done: step 20" in due[0]
    assert "waits for: update the weights (worker 0, 2), wait for data (worker 1)" in due[0]


def test_a_worker_that_goes_over_to_something_else_is_progress() -> None:
    now = [0.0]
    progress, _, watchdog = made(lambda: now[0])
    now[0] = 660.0
    progress.take_doing({0: "validate"}, 1)
    assert watchdog.warning() is None
    now[0] = 1320.0
    progress.take_step(1, {})  # a step without news of what the worker does, as of the small VAE's training
    progress.take_doing({0: "validate"}, 1)
    assert watchdog.warning() is None


def test_a_request_to_stop_is_drawn_once() -> None:
    drawn = io.StringIO()
    progress = TrainingProgress(tqdm(total=100, file=drawn), Told(), Watchdog(10))  # type: ignore[arg-type]
    drawn.truncate(0)
    for _ in range(3):
        progress.show_stopping()
    assert drawn.getvalue().count("stopping: ") == 1
    assert "stopping: :" not in drawn.getvalue()
