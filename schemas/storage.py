"""One storage layer: every path is a URL opened through fsspec; endpoint and credentials come from the environment.

A plain path is a local file. For S3 the usual variables apply: `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_PROFILE`, ... A written file is complete or absent, whatever dies: local files are
renamed into place, objects appear when their upload ends.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import posixpath
import re
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import IO, Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from schemas.errors import DataError, UsageError
from schemas.store_faults import retry_passing_faults

PARTIAL_MARK = ".partial-"
"""Part of the name of a local file that is still being written; such files are left-overs after a crash."""

_IMPOSSIBLE = (errno.ENAMETOOLONG, errno.ELOOP)  # names that no file has; data may hold them

_LOCAL = re.compile(r"^(?:file|local):(?://)?")

_CREDENTIALS = re.compile(
    r"\b(?:https?|ftp|webdav|dav)s?://[^/?#\s@]*@"  # a user's name can be a token
    r"|\b[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s@:]*:[^/?#\s@]*@"
    r"|[?&](?:X-Amz-(?:Signature|Credential|Security-Token)|Signature|sig|token|access_token|api_key)=",
    re.IGNORECASE,
)

_T = TypeVar("_T")


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Splits a URL into its filesystem and the path there, never serving a stale listing.

    Raises:
        UsageError: If the protocol is unknown, its package is not installed, or the URL holds credentials.
    """
    check_no_credentials(url)
    try:
        fs, path = fsspec.core.url_to_fs(url, **_options(url))
    except (ValueError, ImportError) as error:
        raise UsageError(f"expected a path or a URL that fsspec can open, found {url!r}: {error}") from error
    return fs, path


def _options(url: str) -> dict[str, Any]:
    if not url.startswith(("s3://", "s3a://")):
        return {}
    options: dict[str, Any] = {"use_listings_cache": False}
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    check_no_credentials(endpoint)
    if endpoint:  # S3-compatible stores may send the checksum of the whole object with a part of it
        when_required = {
            "response_checksum_validation": "when_required",
            "request_checksum_calculation": "when_required",
        }
        options["config_kwargs"] = when_required
    return options


def check_no_credentials(text: str) -> None:
    """Checks that no URL in a text holds a password, a token or a signature: URLs are logged and stored.

    Raises:
        UsageError: Without the text.

    >>> check_no_credentials("s3://bucket/data")
    """
    if _CREDENTIALS.search(text):
        where = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or the machine's role"
        raise UsageError(f"expected a URL without credentials, found one with them; give them by {where}")


def is_local(url: str) -> bool:
    """Whether a URL is a path on this machine."""
    return isinstance(filesystem(url)[0], LocalFileSystem)


def absolute(url: str) -> str:
    """A local path as it is named from anywhere; other URLs, and names that are no path here, as they are."""
    return os.path.abspath(url) if url and "://" not in url and os.path.exists(url) else url


def join(url: str, *parts: str) -> str:
    """Appends path components to a URL.

    >>> join("s3://bucket/data/", "a", "b.tar")
    's3://bucket/data/a/b.tar'
    """
    return posixpath.join(url.rstrip("/") or "/", *parts)


def join_inside(root: str, relative: str) -> str:
    """Appends a path that comes from data, which must stay inside `root`.

    Raises:
        DataError: If the path is absolute, has a protocol, climbs out with `..` or by a link, or can be no file's name.

    >>> join_inside("/data", "videos/1.mp4")
    '/data/videos/1.mp4'
    """
    normal = posixpath.normpath(relative.replace("\\", "/"))
    if (
        not relative
        or "::" in relative
        or "://" in relative
        or "\0" in relative
        or normal.startswith(("/", "../"))
        or normal in ("..", ".")
    ):
        raise DataError("path_outside_root", f"expected a path relative to {root} and inside it, found {relative!r}")
    if not _is_possible(normal):
        raise DataError("missing_file", f"expected a file inside {root}, found a name that none has: {relative!r:.300}")
    url = join(root, normal)
    if _is_path(root) and not any(_real(url).startswith(folder) for folder in _real_folders(root)):
        raise DataError(
            "path_outside_root",
            f"expected a file inside {root}, found a link out of it: {relative!r}; copy the file, or name the folder "
            "that holds both",
        )
    return url


def _is_possible(path: str) -> bool:
    """Whether a file system can hold a file of this name."""
    try:
        return len(os.fsencode(path)) < 4096 and all(len(os.fsencode(name)) < 256 for name in path.split("/"))
    except UnicodeEncodeError:  # half a letter
        return False


def _is_path(url: str) -> bool:
    return "://" not in _LOCAL.sub("", url)


def _real(url: str) -> str:
    """A local path without links."""
    return os.path.realpath(os.path.expanduser(_LOCAL.sub("", url)))


@lru_cache(maxsize=64)
def _real_folders(root: str) -> tuple[str, ...]:
    """Where links in a folder may lead: into it, and from a snapshot of the hub's cache to the blobs beside it."""
    real = _real(root)
    snapshots = os.path.dirname(real)
    is_snapshot = os.path.basename(snapshots) == "snapshots"
    blobs = (os.path.join(os.path.dirname(snapshots), "blobs", ""),) if is_snapshot else ()
    return (os.path.join(real, ""), *blobs)


def exists(url: str) -> bool:
    """Whether there is a file or folder."""
    fs, path = filesystem(url)
    try:
        fs.info(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno not in _IMPOSSIBLE:  # the store's fault, not an answer
            raise
        return False
    return True


def is_dir(url: str) -> bool:
    """Whether there is a folder."""
    fs, path = filesystem(url)
    return bool(fs.isdir(path))


def size_bytes(url: str) -> int:
    """Size of a file.

    Raises:
        FileNotFoundError: If there is none.
    """
    fs, path = filesystem(url)
    return int(fs.size(path))


def list_files(url: str, suffix: str = "") -> list[str]:
    """Relative paths of all files below a folder that end with `suffix`, sorted; empty if the folder does not exist."""
    fs, path = filesystem(url)
    root = path.rstrip("/")
    found = [name[len(root) :].lstrip("/") for name in fs.find(root)]
    return sorted(name for name in found if name.endswith(suffix) and PARTIAL_MARK not in name)


def list_names(url: str) -> list[str]:
    """Names of files and folders directly in a folder, sorted; empty if it does not exist."""
    fs, path = filesystem(url)
    try:
        entries = fs.ls(path, detail=False)
    except FileNotFoundError:
        return []
    names = (entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)
    return sorted(name for name in names if name and PARTIAL_MARK not in name)


def list_sizes(url: str) -> dict[str, int]:
    """Sizes in bytes of the files directly in a folder, by name; empty if it does not exist."""
    fs, path = filesystem(url)
    try:
        entries = fs.ls(path, detail=True)
    except FileNotFoundError:
        return {}
    sizes = {entry["name"].rsplit("/", 1)[-1]: int(entry["size"]) for entry in entries if entry["type"] == "file"}
    return {name: sizes[name] for name in sorted(sizes) if name and PARTIAL_MARK not in name}


@contextlib.contextmanager
def open_read(url: str, block_bytes: int = 4 << 20) -> Iterator[IO[bytes]]:
    """Opens a file for reading and seeking. Remote files are read in blocks of `block_bytes`.

    Raises:
        FileNotFoundError: If there is none.
    """
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        check_file(path)
        with open(path, "rb") as local:
            yield local
    else:
        with fs.open(path, "rb", block_size=block_bytes, cache_type="readahead") as remote:
            yield remote


def read_bytes(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Reads a file, or the half-open byte range `[start, end)` of it with one request.

    Raises:
        FileNotFoundError: If there is none.
    """
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        check_file(path)
    elif "s3" in fs.protocol and start is None and end is None:
        try:  # with a start s3fs does not ask for the size first, a second request
            return bytes(fs.cat_file(path, start=0))
        except OSError as error:
            if error.errno != errno.EINVAL:  # of an empty file S3 has no range
                raise
    return bytes(fs.cat_file(path, start=start, end=end))


def check_file(path: str) -> None:
    """Refuses pipes and devices: the first would be waited for, the second may never end.

    Raises:
        DataError: `not_a_file`.
        FileNotFoundError: If there is nothing.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno in _IMPOSSIBLE:
            raise DataError("not_a_file", f"expected a file, found {os.strerror(error.errno)}: {path:.200}") from error
        raise
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DataError("not_a_file", f"expected a file, found a pipe or a device: {path}")


@contextlib.contextmanager
def local_copy(url: str, retry_for_s: float = 0.0) -> Iterator[str]:
    """Path of a file on this machine: its own, or that of a copy which is removed when the block ends.

    What has been memory-mapped stays readable after the block.

    Args:
        url: The file.
        retry_for_s: For how long a download is begun again when the store has passing faults.

    Raises:
        FileNotFoundError: If there is none.
    """
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        yield path
    else:
        with tempfile.TemporaryDirectory(prefix="vpp-download-") as folder:
            copy = os.path.join(folder, "file")
            retry_passing_faults(lambda: fs.get_file(path, copy), f"downloading {url}", retry_for_s)
            yield copy


@contextlib.contextmanager
def write_file(url: str, retry_for_s: float = 0.0) -> Iterator[IO[bytes]]:
    """Opens a file for writing that appears at `url` complete when the block ends, and not at all if it raises.

    The writer works on a local file, so memory does not grow with the size.

    Args:
        url: The file.
        retry_for_s: For how long the upload is begun again when the store has passing faults.
    """
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        partial = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}{PARTIAL_MARK}{uuid.uuid4().hex[:8]}")
        try:
            with open(partial, "wb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(partial, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.remove(partial)
            raise
    else:
        with tempfile.TemporaryDirectory(prefix="vpp-upload-") as folder:
            staged = os.path.join(folder, "file")
            with open(staged, "wb") as handle:
                yield handle
            retry_passing_faults(lambda: fs.put_file(staged, path), f"uploading {url}", retry_for_s)


def write_bytes(url: str, data: bytes, retry_for_s: float = 0.0) -> None:
    """Writes a small file, complete or absent.

    Args:
        url: The file.
        data: All of it.
        retry_for_s: For how long the writing is begun again when the store has passing faults or the disk is full.
    """

    def write() -> None:
        with write_file(url) as handle:
            handle.write(data)

    retry_passing_faults(write, f"writing {url}", retry_for_s)


def remove_file(url: str) -> None:
    """Removes a file; nothing happens if there is none."""
    fs, path = filesystem(url)
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(path)


def remove_folder(url: str) -> None:
    """Removes a folder with everything in it, in no particular order; nothing happens if there is none."""
    fs, path = filesystem(url)
    with contextlib.suppress(FileNotFoundError):
        fs.rm(path, recursive=True)


def remove_partial_files(url: str) -> int:
    """Removes what killed writers left below a local folder; returns how many files.

    On an object store an upload that was cut leaves no object, but perhaps parts that only a lifecycle rule removes.
    """
    fs, path = filesystem(url)
    if not isinstance(fs, LocalFileSystem) or not os.path.isdir(path):
        return 0
    left_over = [
        os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names if PARTIAL_MARK in name
    ]
    for name in left_over:
        with contextlib.suppress(FileNotFoundError):  # a worker that outlived its driver has just finished it
            os.remove(name)
    return len(left_over)


def check_writable(url: str) -> None:
    """Writes and removes a probe file.

    Raises:
        UsageError: If that fails, with the store's own words.
    """
    probe = join(url, f".probe-{uuid.uuid4().hex[:8]}")
    try:
        write_bytes(probe, b"")
        fs, path = filesystem(probe)
        fs.rm_file(path)
    except Exception as error:  # any store, any fault: the user has to look at the URL, the endpoint or the rights
        raise UsageError(
            f"cannot write to --output {url}: {type(error).__name__}: {error}; check path, rights, endpoint"
        ) from error


def in_memory(write: Callable[[IO[bytes]], _T]) -> bytes:
    """What `write` puts into a file, as bytes."""
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()
