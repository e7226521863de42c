"""Reads what a training has logged, in bounded memory: losses of its steps, and the curves of its TensorBoard files."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

import pyarrow.parquet as pq
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import SessionLog

from schemas.parquet_memory import check_size
from schemas.storage import join, list_names, local_copy, open_read
from vpp.report.damage import naming_damage
from vpp.report.line_chart import Point

_POINTS = 300
_PREFIXES = ("val", "speed/", "memory/")


class Averages:
    """Means and ranges of neighbouring values, at most `2 * limit` of them however many come."""

    def __init__(self, limit: int = _POINTS) -> None:
        self._limit, self._size = limit, 1
        self._buckets: list[list[float]] = []  # number, sum of x, sum of y, lowest, highest

    def add(self, x: float, y: float) -> None:
        """Takes the next value; what is not finite is left out."""
        if not math.isfinite(y):
            return
        if not self._buckets or self._buckets[-1][0] >= self._size:
            if len(self._buckets) == 2 * self._limit:
                self._size *= 2
                pairs = zip(self._buckets[::2], self._buckets[1::2], strict=True)
                self._buckets = [
                    [a[0] + b[0], a[1] + b[1], a[2] + b[2], min(a[3], b[3]), max(a[4], b[4])] for a, b in pairs
                ]
            self._buckets.append([0, 0.0, 0.0, y, y])
        last = self._buckets[-1]
        last[:] = [last[0] + 1, last[1] + x, last[2] + y, min(last[3], y), max(last[4], y)]

    def points(self) -> list[Point]:
        """In order."""
        return [Point(x / n, y / n, low, high) for n, x, y, low, high in self._buckets]


class Curve:
    """Values by step, of which every second goes when there are too many."""

    def __init__(self, limit: int = 4 * _POINTS) -> None:
        self._limit, self._every, self._seen = limit, 1, 0
        self.values: dict[int, float] = {}

    def put(self, step: int, value: float) -> None:
        """Takes a value; the last one of a step counts."""
        self._seen += 1
        if self._seen % self._every == 0 and math.isfinite(value):
            self.values[step] = value
            if len(self.values) > self._limit:
                self.values = dict(list(self.values.items())[1::2])
                self._every *= 2

    def forget(self, first_step: int) -> None:
        """Leaves out the steps from one on, which a resumed run makes again."""
        self.values = {step: value for step, value in self.values.items() if step < first_step}


@dataclass
class TrainingLog:
    """What a run has logged.

    Attributes:
        loss: Of the steps, averaged where there are many.
        last_step: The newest that is there; None without.
        curves: Validation, speed and memory, by metric.
    """

    loss: list[Point] = field(default_factory=list)
    last_step: int | None = None
    curves: dict[str, dict[int, float]] = field(default_factory=dict)

    def last(self, name: str) -> float | None:
        """The newest value of a metric."""
        values = self.curves.get(name)
        return values[max(values)] if values else None

    def median(self, name: str) -> float | None:
        """The middle value of a metric."""
        values = sorted(self.curves.get(name, {}).values())
        return values[len(values) // 2] if values else None

    def points(self, name: str) -> list[Point]:
        """A metric as a curve."""
        return [Point(step, value) for step, value in sorted(self.curves.get(name, {}).items())]


def read_training_log(url: str) -> TrainingLog:
    """Reads `<run>/steps` and `<run>/tensorboard`; what is not there is left empty.

    Raises:
        UsageError: If something else is there.
    """
    with naming_damage(url):
        return _read_log(url)


def _read_log(url: str) -> TrainingLog:
    log, averages = TrainingLog(), Averages()
    for name in list_names(join(url, "steps")):
        with open_read(join(url, "steps", name)) as handle:
            file = pq.ParquetFile(handle)
            check_size(file.metadata)
            for batch in file.iter_batches(columns=["step", "loss"]):
                for step, loss in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    averages.add(step + 1, loss)
                    log.last_step = step + 1
    log.loss = averages.points()
    curves: dict[str, Curve] = defaultdict(Curve)
    for name in list_names(join(url, "tensorboard")):  # named by the time at which they were begun
        with local_copy(join(url, "tensorboard", name)) as path:
            _read_events(path, curves)
    log.curves = {name: curve.values for name, curve in curves.items()}
    return log


def _read_events(path: str, curves: dict[str, Curve]) -> None:
    for event in LegacyEventFileLoader(path).Load():
        if event.HasField("session_log") and event.session_log.status == SessionLog.START:
            for curve in curves.values():
                curve.forget(event.step)
        for value in event.summary.value:
            if value.HasField("simple_value") and value.tag.startswith(_PREFIXES):
                curves[value.tag].put(event.step, value.simple_value)
