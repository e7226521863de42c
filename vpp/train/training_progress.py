"""What the driver of a training makes of what its workers tell: a bar, metrics, and news for the watchdog."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from runtime.metrics import Meter
from runtime.watchdog import Watchdog

CHECKPOINT_AGE = "checkpoint/age_s"
"""Name under which the loop tells the age of the newest checkpoint, in s."""

_METRICS = {
    "train/loss": "vpp_train_loss",
    "speed/step_s": "vpp_train_step_seconds",
    "speed/data_wait_share": "vpp_train_data_wait_ratio",
    "speed/samples_per_s": "vpp_train_samples_per_second",
}
_SHOWN = ("train/loss", "speed/samples_per_s", "speed/data_wait_share", "memory/peak_gb")


class TrainingProgress:
    """Takes the workers' news.

    Args:
        bar: The progress bar.
        meter: Tells metrics.
        watchdog: Is told of progress.
        clock: Seconds.
    """

    def __init__(self, bar: Any, meter: Meter, watchdog: Watchdog, clock: Callable[[], float] = time.monotonic) -> None:
        self._bar, self._meter, self._watchdog, self._clock = bar, meter, watchdog, clock
        self._saved_at: float | None = None
        self._last, self._seen = "", ("", 0)
        self._is_stopping = False

    def show_stopping(self) -> None:
        """Shows, from the first call on, that the workers were asked to stop."""
        if not self._is_stopping:
            self._is_stopping = True
            self._bar.set_description("stopping")

    def take_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes the metrics of a step, by name."""
        self._last = f"step {step}"
        self._bar.update(step - self._bar.n)
        shown = {key.partition("/")[2]: f"{value:.4g}" for key, value in metrics.items() if key in _SHOWN}
        if shown:
            self._bar.set_postfix(shown, refresh=False)
        validation = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items() if key.startswith("val/"))
        if validation:
            self._bar.write(f"step {step}: {validation}")
        self._meter.tell("vpp_train_step", step)
        for key in _METRICS.keys() & metrics.keys():
            self._meter.tell(_METRICS[key], metrics[key])
        if CHECKPOINT_AGE in metrics:
            self._saved_at = self._clock() - metrics[CHECKPOINT_AGE]

    def take_doing(self, doing: Mapping[int, str], beats: int) -> None:
        """Takes what each worker does, and how often they have told so; tells the age of the newest checkpoint.

        Args:
            doing: What a worker does, by rank.
            beats: Grows whenever a worker has gone over to something else.
        """
        if (self._last, beats) != self._seen:
            self._seen = self._last, beats
            ranks = {what: [str(rank) for rank in sorted(doing) if doing[rank] == what] for what in doing.values()}
            workers = ", ".join(f"{what} (worker {', '.join(of_what)})" for what, of_what in ranks.items())
            self._watchdog.progress(doing[min(doing)] if doing else "train", self._last, workers)
        if self._saved_at is not None:
            self._meter.tell("vpp_train_checkpoint_age_seconds", self._clock() - self._saved_at)
