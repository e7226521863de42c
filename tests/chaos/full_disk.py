"""A small disk for what jobs stage and Ray writes and spills, which can be filled to the last byte.

It is a tmpfs, which only root may mount. Elsewhere a limit on the size of files stands for it, as far as a system has
one for running processes (Linux): what a process writes then fails in the same way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import psutil

_SIZE_MB = 512
_PIECE = bytes(1 << 20)


class FullDisk:
    """Use it in a `with` block.

    Attributes:
        folder: For `TMPDIR` and Ray's files; a plain folder where nothing could be mounted.
        why_not: Why the disk cannot be filled; empty where it can.
        can_limit: Whether the files of running processes can be limited in its place.
    """

    can_limit = hasattr(psutil, "RLIMIT_FSIZE")

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-"))  # Ray's sockets need a short path
        command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE_MB}m", "chaos", str(self.folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
            self.why_not = "" if done.returncode == 0 else f"no tmpfs: {done.stderr.strip()}"
        except OSError as error:
            self.why_not = f"no tmpfs: {error}"

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.why_not:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True, timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)  # a process that is about to end may still write

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def fill(self) -> int:
        """Leaves no byte free; returns how many it took."""
        with self._ballast.open("wb", buffering=0) as handle:
            for piece in (_PIECE, b"\0"):  # the last page byte by byte
                with contextlib.suppress(_NoSpace):
                    while True:
                        _write(handle.fileno(), piece)
            return handle.tell()

    def free(self) -> None:
        """Gives the space back."""
        self._ballast.unlink(missing_ok=True)

    def clear(self, pattern: str = "*") -> None:
        """Removes what killed processes left behind."""
        for path in self.folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def forbid_writing(processes: Iterable[psutil.Process]) -> int:
    """Lets no write to a file of these processes succeed; returns how many processes took it.

    They have to ignore SIGXFSZ, as Python does.
    """
    return sum(_limit_files(process, 0) for process in processes)


def allow_writing(processes: Iterable[psutil.Process]) -> None:
    """Takes the limit away."""
    for process in processes:
        _limit_files(process, psutil.RLIM_INFINITY)


def _limit_files(process: psutil.Process, num_bytes: int) -> bool:
    with contextlib.suppress(psutil.Error):
        _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (num_bytes if num_bytes >= 0 else hard, hard))
        return True
    return False


class _NoSpace(Exception):
    """The disk is full."""


def _write(descriptor: int, piece: bytes) -> None:
    try:
        os.write(descriptor, piece)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _NoSpace from None
