"""A watchdog warns of a stage without progress, again at growing intervals, and never otherwise."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import pytest

from runtime.watchdog import Watchdog
from schemas.errors import UsageError


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 12, 0, 0)

    def __call__(self) -> datetime:
        return self.now

    def pass_minutes(self, minutes: float) -> None:
        self.now += timedelta(minutes=minutes)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_it_names_the_stage_since_when_and_what_it_waits_for(clock: Clock) -> None:
    watchdog = Watchdog(10, clock=clock)
    clock.pass_minutes(3)
    watchdog.progress("make shards", "bridge-00012", "88 of 100")
    clock.pass_minutes(9.9)
    assert watchdog.warning() is None
    clock.pass_minutes(0.1)
    due = watchdog.warning()
    assert due is not None
    message, fields = due
    assert message == (
        "no progress for 10 minutes: stage 'make shards' is stuck since 2026-01-01T12:03:00; "
        "last done: bridge-00012; waits for: 88 of 100"
    )
    assert fields["stage"] == "make shards"
    assert fields["minutes"] == 10


def test_it_warns_again_at_growing_intervals(clock: Clock) -> None:
    watchdog = Watchdog(10, clock=clock)
    warned_at = []
    for minute in range(1, 101):
        clock.pass_minutes(1)
        if watchdog.warning():
            warned_at.append(minute)
    assert warned_at == [10, 20, 40, 80]


def test_a_long_pause_of_the_machine_is_one_warning(clock: Clock) -> None:
    watchdog = Watchdog(10, clock=clock)
    clock.pass_minutes(300)
    assert watchdog.warning()
    assert watchdog.warning() is None


def test_progress_begins_anew(clock: Clock) -> None:
    watchdog = Watchdog(10, clock=clock)
    clock.pass_minutes(25)
    assert watchdog.warning()
    watchdog.progress("next")
    clock.pass_minutes(9)
    assert watchdog.warning() is None
    clock.pass_minutes(1)
    due = watchdog.warning()
    assert due is not None
    assert "stage 'next'" in due[0]
    assert "last done: nothing yet" in due[0]


def test_zero_minutes_never_warn(clock: Clock) -> None:
    watchdog = Watchdog(0, clock=clock)
    clock.pass_minutes(1e5)
    assert watchdog.warning() is None


@pytest.mark.parametrize("minutes", [-1, float("nan"), float("inf")])
def test_other_minutes_are_refused(minutes: float) -> None:
    with pytest.raises(UsageError, match="--watchdog-minutes"):
        Watchdog(minutes)


def gone() -> str:
    raise ConnectionError("no route to the head")


@pytest.mark.parametrize(
    ("look", "told"), [(lambda: "free: 0 of 2 CPU", "free: 0 of 2 CPU"), (gone, "does not answer: ConnectionError")]
)
def test_the_thread_logs_one_line_with_the_clusters_state(
    look: object, told: str, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    watchdog = Watchdog(10, look, clock)  # type: ignore[arg-type]
    monkeypatch.setattr("runtime.watchdog._LOOK_EVERY_S", 0.01)
    clock.pass_minutes(10)
    with caplog.at_level(logging.WARNING), watchdog.watching():
        while not caplog.records:
            pass
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert told in record.getMessage()
    assert told in record.fields["cluster"]  # type: ignore[attr-defined]
