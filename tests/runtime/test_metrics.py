"""Metrics go to the library by their kind, with the run's tags."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.metrics import METRICS, Meter, series


class Library:
    """Stands for `ray.util.metrics`: keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def _made(self, kind: str, name: str, keys: tuple[str, ...]) -> Any:
        library = self

        class Made:
            def __getattr__(self, method: str) -> Any:
                def tell(value: float, tags: dict[str, str]) -> None:
                    assert set(tags) == set(keys)
                    library.told.append((kind, method, name, value, tags))

                return tell

        return Made()

    def Counter(self, name: str, what: str, tag_keys: tuple[str, ...]) -> Any:
        return self._made("counter", name, tag_keys)

    def Gauge(self, name: str, what: str, tag_keys: tuple[str, ...]) -> Any:
        return self._made("gauge", name, tag_keys)

    def Histogram(self, name: str, what: str, boundaries: list[float], tag_keys: tuple[str, ...]) -> Any:
        assert boundaries == sorted(boundaries)
        return self._made("histogram", name, tag_keys)


def test_each_kind_is_told_in_its_way() -> None:
    library = Library()
    meter = Meter(library, run="out")
    meter.tell("vpp_manifest_rows", 3, dataset="bridge", product="clips", status="written")
    meter.tell("vpp_manifest_rows", 0, dataset="bridge", product="clips", status="rejected")  # Ray takes no 0
    meter.tell("vpp_shard_seconds", 1.5, dataset="bridge", product="clips")
    Meter(library, run="out", stage="stage1").tell("vpp_train_loss", 0.0)
    assert [told[:4] for told in library.told] == [
        ("counter", "inc", "vpp_manifest_rows", 3.0),
        ("histogram", "observe", "vpp_shard_seconds", 1.5),
        ("gauge", "set", "vpp_train_loss", 0.0),
    ]
    assert all(told[4]["run"] == "out" for told in library.told)


def test_a_metric_that_is_not_defined_cannot_be_told() -> None:
    with pytest.raises(KeyError):
        Meter(Library(), run="out").tell("vpp_unknown", 1)


def test_names_are_as_prometheus_wants_them() -> None:
    names = [name for metric in METRICS for name in series(metric)]
    assert len(set(names)) == len(names)
    assert all(name.startswith("ray_vpp_") for name in names)
    assert not any("total" in name or name.endswith(("_sum", "_count", "_bucket")) for name in METRICS)
