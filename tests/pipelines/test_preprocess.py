"""What the graph tells of its progress is what is left to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import preprocess
from pipelines.manifest_rows import Provenance
from pipelines.plan_files import PlanSummary
from pipelines.request import PreprocessSettings
from pipelines.tasks import Job
from pipelines.text import text_url
from runtime.watchdog import Watchdog
from schemas.storage import write_bytes


def test_captions_that_were_embedded_before_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def told(_: Watchdog, name: str, total: int, unit: str) -> Iterator[Any]:
        totals.append(total)
        yield None

    totals: list[int] = []
    monkeypatch.setattr(preprocess, "stage", told)
    monkeypatch.setattr(preprocess, "_run", lambda rows, build: [])
    job = Job({}, PreprocessSettings(output=str(tmp_path)), Provenance(decoder="", video_encoder=""), False)
    plan = PlanSummary({"clips": 1, "episodes": 0}, {"clips": 2500, "episodes": 0}, num_captions=2500)
    for number in (0, 1):
        write_bytes(text_url(job.output, "a", number), b"")
    preprocess._encode_captions(job, Watchdog(0), {"a": plan, "b": plan}, lambda: None)  # type: ignore[arg-type]
    assert totals == [2500 - 2 * 1024 + 2500]


def test_the_driver_asks_a_store_again_that_ails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_once(*arguments: Any) -> Iterator[Any]:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionResetError("the store went away")
        return iter([("clips", 0)])

    tries: list[int] = []
    monkeypatch.setattr(preprocess, "pending_shards", fails_once)
    monkeypatch.setattr(preprocess, "ray_meter", lambda _: None)
    handed_out: list[dict[str, Any]] = []
    monkeypatch.setattr(preprocess, "_run", lambda rows, build: handed_out.extend(rows) or [])
    job = Job({}, PreprocessSettings(output=str(tmp_path)), Provenance(decoder="", video_encoder=""), True)
    plan = PlanSummary({"clips": 1, "episodes": 0}, {"clips": 5, "episodes": 0}, num_captions=0)
    preprocess._make_shards(job, Watchdog(0), {"a": plan}, None)
    assert handed_out == [{"dataset": "a", "product": "clips", "number": 0}]
