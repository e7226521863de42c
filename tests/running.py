"""Runs a job as a user does: its own process, its own Ray."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def start(job: str, *arguments: object, cwd: Path, log: Path | None = None) -> subprocess.Popen[str]:
    """Starts `jobs/<job>.py` in a session of its own; both streams go to `log`, or to the process's `stdout`."""
    command = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    output = log.open("w") if log else subprocess.PIPE
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def run(job: str, *arguments: object, cwd: Path) -> tuple[int, str]:
    """Runs a job to its end; returns exit code and everything it printed."""
    process = start(job, *arguments, cwd=cwd)
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def product_files(output: Path) -> dict[str, bytes]:
    """Every tar and manifest part below an output on disk, by path; not what the S3 server has under way."""
    paths = [path for product in ("clips", "episodes") for path in (output / product).rglob("*") if path.is_file()]
    finished = sorted(path for path in paths if not path.name.startswith(".rclone_temp_put_"))
    return {str(path.relative_to(output)): path.read_bytes() for path in finished}
