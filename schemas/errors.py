"""The errors of this project: one for the user's mistakes, one for faults in the data.

A message says what was expected, what was found, where, and what to do. Anything else that is raised (a lost
connection, a full disk) is neither: it stops the task, and running the job again continues where it stopped.
"""

from __future__ import annotations

_MOST_CHARACTERS = 2000  # a detail tells what was found, which can be of any length


class VPPError(Exception):
    """Root of the project's own errors."""


class UsageError(VPPError, ValueError):
    """A setting, path or argument that the user has to change. A job prints it as one line and exits with code 2."""


class DataError(VPPError):
    """Data that cannot be used. It becomes a manifest row with `reason` and `detail`, and the job goes on.

    Args:
        reason: A short, stable snake_case word to group by, such as `decode_error` or `missing_file`.
        detail: One line for people: what was expected, what was found, in which file, episode or record.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)  # both in args, so that the error survives pickling between workers
        self.reason = reason
        line = " ".join(detail.encode(errors="replace").decode().split())  # a lone surrogate fits in no file
        self.detail = line if len(line) <= _MOST_CHARACTERS else f"{line[:_MOST_CHARACTERS]}…"

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
