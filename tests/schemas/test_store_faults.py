"""Passing faults are tried again within their bound, others are raised at once."""

from __future__ import annotations

import errno
import threading

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from s3fs.errors import translate_boto_error

from schemas.errors import UsageError
from schemas.store_faults import is_passing_fault, retry_passing_faults


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (EndpointConnectionError(endpoint_url="http://x"), True),
        (RuntimeError("(SlowDown) Please reduce your request rate"), True),
        (FileNotFoundError(), False),
        (PermissionError("Connection refused to you"), False),
        (NoCredentialsError(), False),
        (OSError(errno.EINVAL, "InvalidRange"), False),
        (OSError(errno.EREMOTEIO, "InternalError"), True),
        (UsageError("Timeout must be positive"), False),
        (TypeError(), False),
    ],
)
def test_faults_are_told_apart(error: Exception, passes: bool) -> None:
    assert is_passing_fault(error) == passes


@pytest.mark.parametrize(("code", "passes"), [("NoSuchUpload", True), ("NoSuchKey", False)])
def test_an_upload_that_the_store_forgot_is_begun_again_and_a_missing_file_is_not(code: str, passes: bool) -> None:
    error = translate_boto_error(ClientError({"Error": {"Code": code, "Message": "gone"}}, "UploadPart"))
    assert isinstance(error, FileNotFoundError)
    assert is_passing_fault(error) == passes


class Store:
    """Fails as often as it is told."""

    def __init__(self, num_faults: int, error: Exception) -> None:
        self.num_faults, self.error, self.num_calls = num_faults, error, 0

    def ask(self) -> str:
        self.num_calls += 1
        if self.num_calls <= self.num_faults:
            raise self.error
        return "answer"


def test_a_fault_that_passes_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    store = Store(3, ConnectionError("gone"))
    assert retry_passing_faults(store.ask, "asking", for_s=60, first_wait_s=0.001) == "answer"
    assert store.num_calls == 4
    assert caplog.text.count("asking: ConnectionError: gone; again in") == 3


def test_a_fault_that_stays_is_raised_after_the_bound() -> None:
    store = Store(10**9, ConnectionError("gone"))
    with pytest.raises(ConnectionError, match="gone"):
        retry_passing_faults(store.ask, "asking", for_s=0.05, first_wait_s=0.01)
    assert store.num_calls > 1


@pytest.mark.parametrize(("error", "for_s"), [(PermissionError(), 60), (ConnectionError(), 0)])
def test_one_attempt_is_made_without_hope_or_time(error: Exception, for_s: float) -> None:
    store = Store(1, error)
    with pytest.raises(type(error)):
        retry_passing_faults(store.ask, "asking", for_s)
    assert store.num_calls == 1


def test_a_cause_tells_what_a_wrapping_error_hides() -> None:
    error = RuntimeError("it failed")
    error.__cause__ = OSError(errno.EBUSY, "SlowDown")
    assert is_passing_fault(error)


def test_no_attempt_is_made_once_the_caller_has_closed() -> None:
    closed = threading.Event()
    store = Store(10**9, ConnectionError("gone"))

    def ask() -> str:
        closed.set()
        return store.ask()

    with pytest.raises(ConnectionError):
        retry_passing_faults(ask, "asking", for_s=1000, closed=closed)
    assert store.num_calls == 1
