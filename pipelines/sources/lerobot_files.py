"""Where the files of a LeRobot dataset are: what the path templates of `info.json` say, and what the disk says."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

from schemas.errors import DataError
from schemas.storage import join, join_inside, list_files, list_names

_EPISODE_FILE = re.compile(r"(?:^|.*/)episode[_-]?(\d+)\.\w+")
_SHARED_FILE = re.compile(r"(?:^|.*/)chunk[_-]?(\d+)/(?:.*/)?file[_-]?(\d+)\.\w+")
_PLACEHOLDER = re.compile(r"\{(\w+)(?::0?(\d)d)?\}")


@dataclass(frozen=True)
class NamedFile:
    """A file as `meta` names it.

    Attributes:
        path: Relative to the dataset.
        numbers: What tells it from its siblings: the episode's number (v2), or the chunk's and the file's (v3).
        key: The image key of a video, empty for a table.
    """

    path: str
    numbers: tuple[int, ...]
    key: str = ""


class LeRobotFiles:
    """Finds files, each folder listed once.

    Args:
        url: The dataset.
        keys: All image keys.
    """

    def __init__(self, url: str, keys: Collection[str]) -> None:
        self._url, self._keys = url, keys

    def find(self, file: NamedFile) -> str:
        """Returns the file's path, or that of the one file elsewhere whose name tells the same key and numbers.

        Raises:
            DataError: `missing_file`, or `path_outside_root`.
        """
        folder, _, name = file.path.rpartition("/")
        if name in self._names(folder):
            return file.path
        found = self._elsewhere("videos" if file.key else "data").get((_last(file.key), file.numbers), [])
        if len(found) > 1:  # keys that end alike
            found = [path for path in found if file.key in path.split("/")]
        if len(found) != 1:
            raise DataError("missing_file", f"expected {file.path} in {self._url}, found no such file")
        return found[0]

    @lru_cache(maxsize=32)  # noqa: B019 - lives as long as its task
    def _names(self, folder: str) -> frozenset[str]:
        return frozenset(list_names(join_inside(self._url, folder)))

    @lru_cache(maxsize=2)  # noqa: B019
    def _elsewhere(self, folder: str) -> dict[tuple[str, tuple[int, ...]], list[str]]:
        """All files of a folder by what their names tell; asked for only where a file is not where it should be."""
        spellings = {spelling: _last(key) for key in self._keys for spelling in (key, _last(key))}
        found: dict[tuple[str, tuple[int, ...]], list[str]] = {}
        for name in list_files(join(self._url, folder)):
            match = _EPISODE_FILE.fullmatch(name) or _SHARED_FILE.fullmatch(name)
            if match:
                key = next((spellings[part] for part in name.split("/") if part in spellings), "")
                found.setdefault((key, tuple(map(int, match.groups()))), []).append(f"{folder}/{name}")
        return found


def fill_path(template: object, name: str, values: Mapping[str, int | str]) -> str:
    """Fills `{name}` and `{name:03d}` in a path; `str.format` would let a file choose attributes and widths.

    Raises:
        DataError: `bad_annotation` if the template is none, or asks for something else.

    >>> fill_path("videos/{video_key}/file-{file_index:03d}.mp4", "video_path", {"video_key": "top", "file_index": 2})
    'videos/top/file-002.mp4'
    """

    def fill(match: re.Match[str]) -> str:
        value = str(values.get(match[1], match[0]))
        return value.zfill(int(match[2] or 0))

    filled = _PLACEHOLDER.sub(fill, template) if isinstance(template, str) else "{"
    if "{" in filled or "/" not in filled:
        expected = f"expected a path with some of {', '.join(values)} as {name} in info.json"
        raise DataError("bad_annotation", f"{expected}, found {template!r}")
    return filled


def _last(key: str) -> str:
    return key.rsplit(".", 1)[-1]
