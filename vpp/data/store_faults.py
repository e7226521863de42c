"""Asks a store again that does not answer for a while: restarts, lost connections, throttling, errors of the server."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

_NAMES = (
    "Connection",
    "Disconnected",
    "Timeout",
    "IncompleteRead",
    "PayloadError",
    "SlowDown",
    "ServiceUnavailable",
    "InternalError",
    "BadGateway",
)
"""In the names and messages of what stores raise for a while (botocore, aiohttp, urllib3, S3's error codes)."""

_ERRNOS = (errno.EBUSY, errno.EREMOTEIO)  # s3fs makes these of 503 and 500

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0

_T = TypeVar("_T")


def is_passing(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is of a kind that goes away by itself.

    >>> is_passing(TimeoutError()), is_passing(FileNotFoundError("a.tar"))
    (True, False)
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, (FileNotFoundError, PermissionError)):
            return False
        if isinstance(error, (ConnectionError, TimeoutError)):
            return True
        if isinstance(error, OSError) and error.errno in _ERRNOS:
            return True
        said = f"{type(error).__name__} {error}"
        if any(name in said for name in _NAMES):
            return True
        error = error.__cause__ or error.__context__
    return False


def asking_again(ask: Callable[[], _T], what: str, retry_s: float, closed: threading.Event | None = None) -> _T:
    """Calls `ask`, and again while it raises a passing fault, with pauses of 0.5, 1, 2, ... at most 8 s.

    Args:
        ask: Reads from a store; may be called any number of times.
        what: What is read, for the log.
        retry_s: After this long the fault is raised as it is.
        closed: When set, no more attempt is made.

    Returns:
        What `ask` returned.
    """
    deadline, pause_s = time.monotonic() + retry_s, _FIRST_PAUSE_S
    closed = closed or threading.Event()
    while True:
        try:
            return ask()
        except Exception as error:  # stores raise anything; what does not pass is raised at once
            left_s = deadline - time.monotonic()
            if left_s <= 0 or closed.is_set() or not is_passing(error):
                raise
            logger.warning(
                "%s: %s: %s; asking again in %.1f s, for %.0f s more",
                what, type(error).__name__, error, min(pause_s, left_s), left_s,
            )  # fmt: skip
            closed.wait(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
