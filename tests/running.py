"""Runs a job as a user does: its own process, its own Ray."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import tarfile
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


def product_files(output: Path) -> dict[str, str]:
    """Size and hash of every tar and manifest part below an output on disk, and of what is in the tars.

    By path, and short, so that a test that compares two outputs tells what differs. Without what the S3 server has under
    way.
    """
    paths = [path for product in ("clips", "episodes") for path in (output / product).rglob("*") if path.is_file()]
    found = {}
    for path in sorted(path for path in paths if not path.name.startswith(".rclone_temp_put_")):
        name = str(path.relative_to(output))
        found[name] = _digest(path.read_bytes())
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for member in tar:
                    content = tar.extractfile(member)
                    assert content is not None
                    found[f"{name}: {member.name}"] = _digest(content.read())
    return found


def _digest(content: bytes) -> str:
    return f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()[:16]}"
