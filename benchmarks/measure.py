"""What the benchmarks share: pinning to one core, peak memory of a process tree, and how figures are printed."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil


def pin_to_one_core() -> int:
    """Keeps this process, and all that it starts from now on, on one core; returns its number."""
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def peak_rss_mb() -> float:
    """Peak resident memory of this process; unlike `getrusage`, not that of the process it was forked from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


class PeakMemory:
    """Largest resident set in MB of this process and of any one of its descendants, sampled."""

    def __init__(self) -> None:
        self.driver_mb = 0.0
        self.worker_mb = 0.0

    def sample(self) -> None:
        """Looks once."""
        me = psutil.Process()
        self.driver_mb = max(self.driver_mb, me.memory_info().rss / 1e6)
        for process in me.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.name().startswith("ray::"):
                    self.worker_mb = max(
                        self.worker_mb, (process.memory_info().rss - process.memory_info().shared) / 1e6
                    )


@contextlib.contextmanager
def peak_memory(every_s: float = 0.2) -> Iterator[PeakMemory]:
    """Samples memory in a thread while the block runs."""
    peak, stop = PeakMemory(), threading.Event()

    def watch() -> None:
        while not stop.wait(every_s):
            peak.sample()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def finish(figures: dict[str, Any], as_json: bool) -> None:
    """Prints the figures: a table for people, and with `as_json` one JSON object as the last line."""
    for name, value in figures.items():
        print(f"{name:36} {value:,.3f}" if isinstance(value, float) else f"{name:36} {value}")
    if as_json:
        print(json.dumps(figures))
