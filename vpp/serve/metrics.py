"""What a server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
OUTCOMES = ("answered", "invalid", "busy", "failed", "gone")
"""Of a request: answered; refused for what it is, or because too many wait; the policy failed; the client left."""

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        outcomes = Counter("vpp_serve_requests", "Requests by outcome", ["outcome"], registry=self._registry)
        self.requests = {outcome: outcomes.labels(outcome) for outcome in OUTCOMES}  # those that are 0 are shown too
        self.actions = Counter("vpp_serve_actions", "Actions sent", registry=self._registry)
        self.clients = Gauge("vpp_serve_clients", "Clients connected", registry=self._registry)
        self.waiting = Gauge("vpp_serve_waiting", "Requests that wait for the policy", registry=self._registry)
        self.wait_s = self._seconds("wait", "From a request's check until the policy takes it")
        self.infer_s = self._seconds("infer", "Of the policy, for the batch with a request")
        self.total_s = self._seconds("total", "From a request's arrival until its answer is sent")
        self.batch = Histogram(
            "vpp_serve_batch", "Requests of the batch with a request", buckets=_BATCHES, registry=self._registry
        )

    def text(self) -> str:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry).decode()

    def _seconds(self, name: str, what: str) -> Histogram:
        return Histogram(f"vpp_serve_{name}_seconds", what, buckets=_SECONDS, registry=self._registry)
