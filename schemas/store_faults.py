"""Which faults of a store pass by themselves, and how to try again until they have.

Stores raise errors of many packages (botocore, aiohttp, gcsfs, ...), most of which need not be installed; so faults
are told apart by the built-in classes where a package uses them, and by name where it does not.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from schemas.errors import VPPError

PASSING_FAULTS = (
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
"""In the names and messages of what stores raise for a while."""

_LOST_UPLOAD = "NoSuchUpload"
"""S3's word for an upload in parts that it no longer knows: the store was started again, or had ended the upload and
its answer was lost. s3fs makes a missing file of it, but all that is needed is to begin the upload again."""

_LASTING = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
_LONGEST_WAIT_S = 30.0

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def is_passing_fault(error: BaseException) -> bool:
    """Whether doing the same again later may succeed: a lost connection or a full disk, but no missing file or right.

    An error that another one caused is judged by its cause too.

    >>> is_passing_fault(ConnectionResetError()), is_passing_fault(PermissionError()), is_passing_fault(TypeError())
    (True, False, False)
    """
    cause: BaseException | None = error
    seen: list[BaseException] = []
    while cause is not None and cause not in seen:
        if isinstance(cause, FileNotFoundError) and _LOST_UPLOAD in str(cause.__cause__):
            return True
        if isinstance(cause, (VPPError, *_LASTING)) or (isinstance(cause, OSError) and cause.errno == errno.EINVAL):
            return False  # EINVAL is what s3fs makes of a range outside the file
        text = f"{type(cause).__name__}: {cause}"
        if isinstance(cause, OSError) or any(word in text for word in PASSING_FAULTS):
            return True
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return False


def retry_passing_faults(
    action: Callable[[], _T],
    doing: str,
    for_s: float,
    first_wait_s: float = 0.5,
    closed: threading.Event | None = None,
) -> _T:
    """Does `action` again while the store has passing faults, waiting twice as long each time (at most 30 s).

    Args:
        action: What to do; it may be done several times.
        doing: What it does, for the log: `"uploading s3://bucket/file"`.
        for_s: No attempt begins later than this after the first; 0 tries once.
        first_wait_s: Pause before the second attempt.
        closed: When set, no more attempt is made.

    Raises:
        Exception: What `action` raised last, if it does not pass or lasts longer than `for_s`.
    """
    deadline = time.monotonic() + for_s
    wait_s = first_wait_s
    closed = closed or threading.Event()
    while True:
        try:
            return action()
        except Exception as error:  # whatever a store raises; `is_passing_fault` decides
            failure = error
            left_s = deadline - time.monotonic()
            if left_s <= 0 or closed.is_set() or not is_passing_fault(error):
                raise
            pause_s = min(wait_s, left_s)
            name = type(error).__name__
            _log.warning("%s: %s: %s; again in %.1f s, for %.0f s more", doing, name, error, pause_s, left_s)
        if closed.wait(pause_s):
            raise failure
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
