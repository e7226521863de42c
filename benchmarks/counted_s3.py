"""S3 in memory below s3fs, which counts the requests that s3fs would send: `s3://` URLs of this process go there.

All of s3fs is real but `_call_s3`, the one place where it speaks to the network. So listing costs the pages of 1,000
keys and the memory that it costs with S3, and a whole file is asked for as s3fs asks for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import fsspec
import s3fs

_KEYS_A_PAGE = 1000
_LETTER = {"put_object": "put", "get_object": "get", "head_object": "head", "list_objects_v2": "list"}
_LETTER |= dict.fromkeys(("create_multipart_upload", "upload_part", "complete_multipart_upload"), "put")  # of one price
_MODIFIED = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Requests:
    """What was asked for since the last `reset`.

    Attributes:
        counts: Requests by kind: `put` (each part of a large file too), `get`, `head`, `list`.
        put_bytes: Bytes that were stored.
        got_bytes: Bytes that were read.
    """

    counts: Counter[str] = field(default_factory=Counter)
    put_bytes: int = 0
    got_bytes: int = 0

    def reset(self) -> None:
        """Begins anew."""
        self.counts.clear()
        self.put_bytes = self.got_bytes = 0


class Bucket:
    """The objects: `<bucket>/<folder>/<name>`; of some only the size is kept, and zeros are read.

    Args:
        keeps: Whether the content of an object with this key is kept.
    """

    def __init__(self, keeps: Callable[[str], bool]) -> None:
        self._keeps = keeps
        self._folders: dict[str, dict[str, bytes | int]] = {}
        self._sorted: dict[str, list[str]] = {}
        self.requests = Requests()

    def add(self, key: str, content: bytes) -> None:
        """Stores an object."""
        folder, _, name = key.rpartition("/")
        self._folders.setdefault(folder, {})[name] = content if self._keeps(key) else len(content)
        self._sorted.pop(folder, None)

    def grow(self, key: str, num_bytes: int) -> None:
        """Makes an object, of which only the size is known, larger."""
        folder, _, name = key.rpartition("/")
        of_folder = self._folders.setdefault(folder, {})
        of_folder[name] = int(of_folder.get(name, 0)) + num_bytes
        self._sorted.pop(folder, None)

    def add_same(self, folder: str, names: Iterable[str], contents: Sequence[bytes | int]) -> None:
        """Stores many objects that share a few contents, or sizes, taking turns."""
        of_folder = self._folders.setdefault(folder, {})
        of_folder.update((name, contents[number % len(contents)]) for number, name in enumerate(names))
        self._sorted.pop(folder, None)

    def find(self, key: str) -> bytes | int:
        """An object, or its size.

        Raises:
            FileNotFoundError: If there is none.
        """
        folder, _, name = key.rpartition("/")
        try:
            return self._folders[folder][name]
        except KeyError as error:
            raise FileNotFoundError(key) from error

    def remove(self, key: str) -> None:
        """Removes an object."""
        folder, _, name = key.rpartition("/")
        self._folders.get(folder, {}).pop(name, None)
        self._sorted.pop(folder, None)

    def page(self, bucket: str, prefix: str, delimiter: str, limit: int, after: str) -> dict[str, Any]:
        """A page of a listing, as S3 answers; `after` is `<number of the folder> <place in it>`."""
        root = f"{bucket}/{prefix}".rstrip("/")
        below = sorted(name for name in self._folders if name == root or name.startswith(f"{root}/"))
        folders = [name for name in below if name == root] if delimiter else below
        number, place = map(int, after.split()) if after else (0, 0)
        contents: list[dict[str, Any]] = []
        while number < len(folders) and len(contents) < limit:
            folder = folders[number]
            if folder not in self._sorted:
                self._sorted[folder] = sorted(self._folders[folder])
            names = self._sorted[folder]
            some = names[place : place + limit - len(contents)]
            contents += [_entry(bucket, folder, name, self._folders[folder][name]) for name in some]
            place += len(some)
            if place >= len(names):
                number, place = number + 1, 0
        answer: dict[str, Any] = {"Contents": contents, "KeyCount": len(contents), "IsTruncated": False}
        if delimiter:
            inner = {name[len(root) + 1 :].split("/")[0] for name in below if name != root}
            answer["CommonPrefixes"] = [{"Prefix": f"{prefix}{name}/"} for name in sorted(inner)]
        if number < len(folders):
            answer |= {"IsTruncated": True, "NextContinuationToken": f"{number} {place}"}
        return answer


def _entry(bucket: str, folder: str, name: str, content: bytes | int) -> dict[str, Any]:
    key = f"{folder}/{name}"[len(bucket) + 1 :]
    size = content if isinstance(content, int) else len(content)
    return {
        "Key": key,
        "LastModified": _MODIFIED,
        "ETag": f'"{hash(key) & (1 << 128) - 1:032x}"',
        "Size": size,
        "StorageClass": "STANDARD",
    }


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def read(self) -> bytes:
        return self._content

    def close(self) -> None:
        pass


class CountedS3(s3fs.S3FileSystem):
    """s3fs whose requests are answered by `CountedS3.bucket`."""

    bucket: Bucket

    async def _call_s3(self, method: str, *settings: Any, **asked: Any) -> dict[str, Any]:
        await asyncio.sleep(0)  # as a request, lets others run
        bucket, requests = self.bucket, self.bucket.requests
        requests.counts[_LETTER.get(method, method)] += 1
        key = f"{asked['Bucket']}/{asked.get('Key', '')}"
        if method == "put_object":
            content = asked.get("Body", b"")
            bucket.add(key, content)
            requests.put_bytes += len(content)
            return {}
        if method == "create_multipart_upload":
            bucket.remove(key)
            return {"UploadId": key}
        if method == "upload_part":  # of a large file only the size is kept
            bucket.grow(key, len(asked["Body"]))
            requests.put_bytes += len(asked["Body"])
            return {"ETag": ""}
        if method == "complete_multipart_upload":
            return {}
        if method == "list_objects_v2":
            limit = min(_KEYS_A_PAGE, asked.get("MaxKeys", _KEYS_A_PAGE))
            after = asked.get("ContinuationToken", "")
            return bucket.page(asked["Bucket"], asked["Prefix"], asked["Delimiter"], limit, after)
        if method == "delete_object":
            bucket.remove(key)
            return {}
        found = bucket.find(key)
        size = found if isinstance(found, int) else len(found)
        if method == "head_object":
            return {"ContentLength": size, "LastModified": _MODIFIED, "ETag": ""}
        assert method == "get_object", method
        start, end = _range(asked.get("Range", ""), size)
        requests.got_bytes += end - start
        return {"Body": _Body(bytes(end - start) if isinstance(found, int) else found[start:end])}


def _range(text: str, size: int) -> tuple[int, int]:
    """`bytes=first-last`, either of which may be missing, as a half-open range."""
    first, _, last = text.removeprefix("bytes=").partition("-")
    if not first:
        return (max(0, size - int(last)), size) if last else (0, size)
    return int(first), min(size, int(last) + 1) if last else size


def count_requests(keeps: Callable[[str], bool] = lambda key: True) -> Bucket:
    """From now on `s3://` URLs of this process go to a new, empty bucket; returns it."""
    CountedS3.bucket = Bucket(keeps)
    fsspec.register_implementation("s3", CountedS3, clobber=True)
    return CountedS3.bucket
