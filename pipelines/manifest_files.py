"""A read-only filesystem of one dataset's manifest parts, for DuckDB, which gets to see no other files.

SQL can read and write files in more ways than a list of forbidden words covers (`with x as (copy ... to ...) select`
is a SELECT). Here the parts of one dataset, on any store, are all there is, and none can be written.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from schemas.layout import manifest_folder
from schemas.shard import PRODUCTS
from schemas.storage import PARTIAL_MARK, check_file, filesystem

PROTOCOL = "manifest"


@dataclass(frozen=True)
class _Part:
    fs: fsspec.AbstractFileSystem
    path: str
    num_bytes: int


class ManifestFiles(fsspec.AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The parts as they are when this is made, as `manifest://<product>/<dataset>/<part>.parquet`.

    Args:
        url: The dataset: the output of `jobs/preprocess.py`.

    Attributes:
        fault: The last thing that the store raised, or None. DuckDB turns it into an error of its own, from which a
            lost connection and a mistake in the SQL cannot be told apart.
    """

    protocol = PROTOCOL
    cachable = False

    def __init__(self, url: str) -> None:
        super().__init__()
        self.fault: Exception | None = None
        self._parts: dict[str, _Part] = {}
        for product in PRODUCTS:
            fs, folder = filesystem(manifest_folder(url, product))
            folder = folder.rstrip("/")
            try:
                found = fs.find(folder, detail=True)
            except FileNotFoundError:  # no such bucket
                continue
            for path, entry in found.items():
                name = path[len(folder) :].lstrip("/")
                if name.count("/") == 1 and name.endswith(".parquet") and PARTIAL_MARK not in name:
                    self._parts[f"{product}/{name}"] = _Part(fs, path, int(entry["size"]))

    @contextlib.contextmanager
    def keeping_faults(self) -> Iterator[None]:
        """Keeps in `fault` what the store raises in the block, and raises it."""
        try:
            yield
        except Exception as error:  # whatever a store raises
            self.fault = error
            raise

    def num_parts(self, product: str) -> int:
        """Number of manifest parts of a product."""
        return sum(name.startswith(f"{product}/") for name in self._parts)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Name, size in bytes and type of a part.

        Raises:
            FileNotFoundError: If there is no such part.
        """
        name = self._strip_protocol(path)
        if name not in self._parts:
            raise FileNotFoundError(f"no manifest part {path}")
        return {"name": name, "size": self._parts[name].num_bytes, "type": "file"}

    def glob(self, path: str, **kwargs: Any) -> list[str]:
        """Names of the parts that match a pattern, sorted."""
        return sorted(fnmatch.filter(self._parts, self._strip_protocol(path)))

    def modified(self, path: str) -> datetime:
        """Always the same moment: a part that is there never changes."""
        return datetime(2000, 1, 1, tzinfo=UTC)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> _PartFile:
        if mode != "rb":
            raise PermissionError(f"a query cannot write, found a request to write {path}")
        return _PartFile(self, self._parts[self.info(path)["name"]])


class _PartFile(io.RawIOBase):
    """An open part. DuckDB caches what it reads, and asks for the ranges that it needs.

    It does so from several threads with one handle, with a seek before each read. Hence each thread has a position of
    its own, and no position is shared with the operating system: otherwise reads return other bytes than asked for.
    """

    def __init__(self, files: ManifestFiles, part: _Part) -> None:
        self._files, self._part = files, part
        self._of_thread = threading.local()
        self._local = None
        if isinstance(part.fs, LocalFileSystem):
            with files.keeping_faults():
                check_file(part.path)
                self._local = open(part.path, "rb", buffering=0)  # noqa: SIM115 - closed by close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._part.num_bytes}[whence]
        self._of_thread.position = start + offset
        return start + offset

    def tell(self) -> int:
        return getattr(self._of_thread, "position", 0)

    def read(self, size: int = -1) -> bytes:
        start = self.tell()
        end = self._part.num_bytes if size < 0 else min(start + size, self._part.num_bytes)
        if end <= start:
            return b""
        with self._files.keeping_faults():
            if self._local is not None:
                data = os.pread(self._local.fileno(), end - start, start)
            else:
                data = bytes(self._part.fs.cat_file(self._part.path, start=start, end=end))
        self._of_thread.position = start + len(data)
        return data

    def close(self) -> None:
        if self._local is not None:
            self._local.close()
        super().close()
