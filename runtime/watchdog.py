"""Says when a job makes no progress: which stage is stuck, since when, what it waits for. It never ends anything."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from schemas.errors import UsageError

_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 30.0


class Watchdog:
    """Knows when the job last made progress.

    Args:
        minutes: Time without progress after which a warning is due; the next is due after twice that time, and so on.
            0 never warns.
        look: Tells what the cluster is asked for and has; its answer ends the warning.
        clock: The time.

    Raises:
        UsageError: If the minutes are none.
    """

    def __init__(
        self, minutes: float, look: Callable[[], str] | None = None, clock: Callable[[], datetime] = datetime.now
    ) -> None:
        if not 0 <= minutes < 1e6:
            raise UsageError(f"--watchdog-minutes: expected 0 or more, found {minutes}")
        self._limit, self._look, self._clock = timedelta(minutes=minutes), look, clock
        self._lock = threading.Lock()
        self.progress("start")

    def progress(self, stage: str, last: str = "", waits_for: str = "") -> None:
        """Takes note that the job gets on.

        Args:
            stage: What it does now.
            last: The unit of work that was done last; by default none of this stage.
            waits_for: What it waits for next.
        """
        with self._lock:
            self._stage, self._last, self._waits_for = stage, last, waits_for
            self._since, self._next = self._clock(), self._limit

    def warning(self) -> tuple[str, dict[str, object]] | None:
        """The warning that is due, if any, and its fields; the next is due later."""
        with self._lock:
            elapsed = self._clock() - self._since
            if not self._limit or elapsed < self._next:
                return None
            while self._next <= elapsed:
                self._next *= 2
            fields: dict[str, object] = {
                "stage": self._stage,
                "minutes": round(elapsed.total_seconds() / 60, 1),
                "since": self._since.isoformat(timespec="seconds"),
                "last": self._last,
                "waits_for": self._waits_for,
            }
        message = (
            f"no progress for {fields['minutes']:g} minutes: stage '{fields['stage']}' is stuck since "
            f"{fields['since']}; last done: {fields['last'] or 'nothing yet'}"
        )
        return message + (f"; waits for: {fields['waits_for']}" if fields["waits_for"] else ""), fields

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Looks from time to time, in a thread, and logs the warnings that are due."""
        ended = threading.Event()
        if self._limit:
            pause_s = min(_LOOK_EVERY_S, self._limit.total_seconds() / 4)
            threading.Thread(target=self._watch, args=(ended, pause_s), name="watchdog", daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def _watch(self, ended: threading.Event, pause_s: float) -> None:
        while not ended.wait(pause_s):
            due = self.warning()
            if due is None:
                continue
            message, fields = due
            if self._look is not None:
                fields["cluster"] = self._look_at_cluster(self._look)
                message = f"{message}; {fields['cluster']}"
            if not ended.is_set():
                _log.warning("%s", message, extra={"fields": fields})

    @staticmethod
    def _look_at_cluster(look: Callable[[], str]) -> str:
        try:
            return look()
        except Exception as error:  # the cluster may be just what is stuck, and the warning must come
            return f"the cluster does not answer: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
