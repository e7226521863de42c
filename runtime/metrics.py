"""What the jobs tell Ray's metrics, which Prometheus reads from every node and Grafana draws.

Prometheus sees a metric as `ray_` and its name, a counter with `_total` after it, a histogram as `_bucket`, `_sum` and
`_count`. All are told by the process of the job, so that a sum over a run's series counts nothing twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        kind: Counters are added to, gauges set, histograms get one more value.
        what: What it tells, with its unit.
        tags: Names by which its series differ, besides `run`, the job's output.
    """

    kind: Literal["counter", "gauge", "histogram"]
    what: str
    tags: tuple[str, ...] = ()


METRICS = {
    "vpp_manifest_rows": Metric(
        "counter",
        "Clips or episodes (`product`) of shards that are done; `status` is written, rejected or filtered",
        ("dataset", "product", "status"),
    ),
    "vpp_shard_seconds": Metric(
        "histogram", "Time in which a shard was made, in s: decoding, encoding, writing", ("dataset", "product")
    ),
    "vpp_train_step": Metric("gauge", "Updates of the weights made", ("stage",)),
    "vpp_train_loss": Metric("gauge", "Mean loss of the newest window of steps", ("stage",)),
    "vpp_train_step_seconds": Metric("gauge", "Time of a step in s, mean of the window", ("stage",)),
    "vpp_train_data_wait_ratio": Metric("gauge", "Part of that time spent waiting for data, from 0 to 1", ("stage",)),
    "vpp_train_samples_per_second": Metric("gauge", "Samples that all workers train on in a second", ("stage",)),
    "vpp_train_checkpoint_age_seconds": Metric(
        "gauge", "Time since the newest complete checkpoint, or since the training began or resumed, in s", ("stage",)
    ),
    "vpp_evaluate_episodes": Metric("counter", "Episodes or chains; `outcome` is run or not_run", ("outcome",)),
    "vpp_evaluate_tasks": Metric("counter", "Tasks tried in them; `outcome` is solved or failed", ("task", "outcome")),
}  # fmt: skip

SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""Upper edges of the histograms' buckets."""


class Meter:
    """Tells a run's metrics.

    Args:
        library: What makes counters, gauges and histograms: `ray.util.metrics`.
        **tags: Of all that is told, such as `run`.
    """

    def __init__(self, library: Any, **tags: str) -> None:
        self._library, self._tags = library, tags
        self._made: dict[str, Any] = {}

    def tell(self, name: str, value: float, **tags: str) -> None:
        """Adds to a counter, sets a gauge, or puts a value into a histogram.

        Raises:
            KeyError: If `METRICS` has no such name.
        """
        metric = METRICS[name]
        if metric.kind == "counter" and value == 0:  # Ray refuses it
            return
        if name not in self._made:
            self._made[name] = self._make(name, metric)
        method = {"counter": "inc", "gauge": "set", "histogram": "observe"}[metric.kind]
        getattr(self._made[name], method)(float(value), tags=self._tags | tags)

    def _make(self, name: str, metric: Metric) -> Any:
        keys = ("run", *metric.tags)
        if metric.kind == "histogram":
            return self._library.Histogram(name, metric.what, boundaries=list(SECONDS), tag_keys=keys)
        kind = self._library.Counter if metric.kind == "counter" else self._library.Gauge
        return kind(name, metric.what, tag_keys=keys)


def series(name: str) -> tuple[str, ...]:
    """Names under which Prometheus has a metric.

    >>> series("vpp_manifest_rows")
    ('ray_vpp_manifest_rows_total',)
    """
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return tuple(f"ray_{name}{ending}" for ending in endings[METRICS[name].kind])
