"""A job as a user starts it, with all processes that belong to it, and which of them a fault kills."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from running import ROOT


class Job:
    """A running `jobs/<name>.py` in a session of its own, with its own Ray.

    Args:
        command: Name of the job, and its options.
        environment: Beside that of this process.
        log: Both streams are added to it.
        folder: Working directory.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path) -> None:
        name, *options = command
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        with log.open("a") as stream:
            stream.write(f"--- {' '.join(command)}\n")
            stream.flush()
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *options],
                cwd=folder,
                env=inherited | environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def exit_code(self) -> int | None:
        """None while it runs; minus the signal that killed it."""
        return self._process.poll()

    def kill_driver(self) -> str:
        """Kills the process that the user started."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        return "driver"

    def kill_worker(self, rng: random.Random) -> str:
        """Kills a process that runs tasks or an actor; returns its name, empty if there is none yet."""
        return _kill_one([process for process in self._alive() if _is_worker(_name(process))], rng)

    def kill_raylet(self, rng: random.Random) -> str:
        """Kills the node; returns its name, empty if there is none yet."""
        return _kill_one([process for process in self._alive() if _name(process) == "raylet"], rng)

    def python_processes(self) -> list[psutil.Process]:
        """The driver and Ray's workers."""
        return [each for each in self._alive() if each.pid == self._process.pid or _is_worker(_name(each))]

    def end(self, wait_s: float = 0.0) -> None:
        """Ends what is left of it, process by process, after waiting for it to go by itself."""
        deadline = time.monotonic() + wait_s
        while (left := self._alive()) and time.monotonic() < deadline:
            time.sleep(0.2)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def _alive(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
                if os.getsid(process.pid) == self._process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


def _name(process: psutil.Process) -> str:
    """Ray's workers name themselves by their title; `name()` alone is cut after 15 letters."""
    with contextlib.suppress(psutil.Error):
        title = process.cmdline()
        return title[0] if title and title[0].startswith("ray::") else process.name()
    return ""


def _is_worker(name: str) -> bool:
    """Ray's agents are named like workers, but the whole node ends with them."""
    return name.startswith("ray::") and "Agent" not in name


def _kill_one(processes: Sequence[psutil.Process], rng: random.Random) -> str:
    if not processes:
        return ""
    chosen = rng.choice(sorted(processes, key=lambda process: process.pid))
    name = _name(chosen)
    with contextlib.suppress(psutil.NoSuchProcess):
        chosen.kill()
        return name
    return ""
