"""The episodes and tasks that `meta/` of a LeRobot dataset lists, v2.0 to v3.0, and the files it names for each.

Nothing is trusted that the disk can contradict: paths from here are what `meta` names, not what exists.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any

from pipelines.sources.lerobot_files import NamedFile, fill_path
from pipelines.sources.lerobot_info import LeRobotInfo
from pipelines.sources.lerobot_tables import check_batch, open_parquet
from schemas.errors import DataError, UsageError
from schemas.plain_json import parse_json
from schemas.storage import exists, join, list_files, open_read, read_bytes

EPISODES_PER_PART = 1000

_EPISODES_JSONL = "meta/episodes.jsonl"
_V3_COLUMNS = re.compile(
    r"episode_index|length|task_index|data/(chunk|file)_index|videos/.+/((chunk|file)_index|(from|to)_timestamp)"
)


class LeRobotMeta:
    """Reads `meta/`.

    Args:
        where: How a message to the user begins, such as `--sources NAME`.
        url: The dataset.
        info: What its `info.json` says.
        task_key: The column of an episode's row that holds its tasks.
    """

    def __init__(self, where: str, url: str, info: LeRobotInfo, task_key: str = "tasks") -> None:
        self._where, self._url, self._info, self._task_key = where, url, info, task_key

    def parts(self) -> list[str]:
        """v2: `<first>:<end>`, the bytes of a thousand lines of `episodes.jsonl`; v3: the files of `meta/episodes`."""
        if self._info.is_v3:
            folder = "meta/episodes"
            parts = [f"{folder}/{name}" for name in list_files(join(self._url, folder), ".parquet")]
        else:
            parts = self._byte_ranges()
        if not parts:
            raise UsageError(f"{self._where}: expected episodes in {self._url}/meta, found none")
        return parts

    def is_first(self, part: str) -> bool:
        """Whether a part is the first one."""
        return part == self.parts()[0] if self._info.is_v3 else part.startswith("0:")

    def _byte_ranges(self) -> list[str]:
        bounds, position = [0], 0
        try:
            with open_read(join(self._url, _EPISODES_JSONL)) as handle:
                for number, line in enumerate(handle, 1):
                    position += len(line)
                    if number % EPISODES_PER_PART == 0:
                        bounds.append(position)
        except FileNotFoundError as error:
            raise UsageError(f"{self._where}: expected {_EPISODES_JSONL} in {self._url}, found no such file") from error
        bounds += [position] if position > bounds[-1] else []
        return [f"{first}:{end}" for first, end in pairwise(bounds)]

    def rows(self, part: str) -> Iterator[dict[str, Any] | DataError]:
        """Rows of one part in order. A line or file that cannot be read is yielded as an error."""
        return self._rows_of_parquet(part) if self._info.is_v3 else self._rows_of_lines(part)

    def _rows_of_lines(self, part: str) -> Iterator[dict[str, Any] | DataError]:
        first, end = (int(number) for number in part.split(":"))
        url = join(self._url, _EPISODES_JSONL)
        for line in io.BytesIO(read_bytes(url, first, end)):
            if line.strip():
                try:
                    row = parse_json(line)
                except ValueError as error:
                    yield DataError("bad_json", f"expected one JSON object a line, {error} in {url}")
                    continue
                yield (
                    row if isinstance(row, dict) else DataError("bad_json", f"expected objects, found {row!r} in {url}")
                )

    def _rows_of_parquet(self, part: str) -> Iterator[dict[str, Any] | DataError]:
        try:
            with open_parquet(join(self._url, part)) as file:
                # Most columns are statistics, hundreds of numbers an episode.
                names = file.schema_arrow.names
                columns = [name for name in names if name == self._task_key or _V3_COLUMNS.fullmatch(name)]
                for batch in file.iter_batches(EPISODES_PER_PART, columns=columns, use_threads=False):
                    check_batch(batch, part)
                    yield from batch.to_pylist()
        except DataError as error:
            yield error

    # --- tasks -------------------------------------------------------------------------------------

    def caption(self, row: Mapping[str, Any]) -> str:
        """The first task of an episode that has words; empty if there is none."""
        tasks = row.get(self._task_key)
        if tasks is None:
            tasks = row.get("task_index")
        if tasks is None and len(self._tasks) == 1:  # copies whose episodes do not name the only task there is
            tasks = list(self._tasks)
        for task in tasks if isinstance(tasks, list) else [tasks]:
            text = self._tasks.get(task, "") if isinstance(task, int) else str(task or "")
            if text.strip():
                return text
        return ""

    @cached_property
    def _tasks(self) -> dict[int, str]:
        rows = self._rows_of_tasks()
        # The text is a column `task` or a pandas index, whatever its name: then it is the only text in the row.
        tasks = [(row.get("task_index"), row.get("task") or _only_text(row)) for row in rows]
        return {index: str(text) for index, text in tasks if isinstance(index, int) and text}

    def _rows_of_tasks(self) -> list[dict[str, Any]]:
        table, lines = (join(self._url, "meta", f"tasks.{ending}") for ending in ("parquet", "jsonl"))
        rows: list[Any] = []
        if exists(table):
            with open_parquet(table) as file:
                content = file.read(use_threads=False)
                check_batch(content, table)
                rows = content.to_pylist()
        elif exists(lines):
            try:
                rows = [parse_json(line) for line in read_bytes(lines).splitlines() if line.strip()]
            except ValueError as error:
                raise DataError("bad_json", f"expected one JSON object a line, {error} in {lines}") from error
        return [row for row in rows if isinstance(row, dict)]

    # --- files -------------------------------------------------------------------------------------

    def data_file(self, row: Mapping[str, Any]) -> NamedFile:
        """The Parquet file that holds an episode's rows."""
        return self._file("data_path", row, "data")

    def video_file(self, row: Mapping[str, Any], key: str) -> NamedFile:
        """The video that holds an episode's frames of an image key."""
        return self._file("video_path", row, f"videos/{key}", key)

    def first_frame(self, row: Mapping[str, Any], key: str) -> int:
        """The episode's first frame in its video, whose stretch has to be as long as the episode."""
        if not self._info.is_v3:
            return 0
        fps, names = self._info.fps, [f"videos/{key}/{bound}_timestamp" for bound in ("from", "to")]
        try:
            start_s, end_s = (float(row[name]) for name in names)
            first, length = round(start_s * fps), round((end_s - start_s) * fps)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError("bad_annotation", f"expected {' and '.join(names)}, found {error!r}") from error
        if first < 0 or length < num_frames(row):
            found = f"found {start_s} s to {end_s} s at {fps:g} frames/s"
            raise DataError("inconsistent_lengths", f"expected a video of {num_frames(row)} frames, {found}")
        return first

    def _file(self, template: str, row: Mapping[str, Any], prefix: str, key: str = "") -> NamedFile:
        number = episode_number(row)
        values: dict[str, int | str] = {"episode_index": number, "video_key": key}
        numbers: tuple[int, ...] = (number,)
        if self._info.is_v3:
            chunk, file = (_whole(row, f"{prefix}/{name}_index") for name in ("chunk", "file"))
            values |= {"chunk_index": chunk, "file_index": file}
            numbers = (chunk, file)
        else:
            values["episode_chunk"] = number // self._info.chunks_size
        return NamedFile(fill_path(self._info.template(template), template, values), numbers, key)


def num_frames(row: Mapping[str, Any]) -> int:
    """An episode's length.

    Raises:
        DataError: If it is not a number of at least 1.
    """
    length = _whole(row, "length")
    if length < 1:
        raise DataError("bad_annotation", f"expected a length of at least 1, found {length}")
    return length


def episode_number(row: Mapping[str, Any]) -> int:
    """An episode's number.

    Raises:
        DataError: If there is none.
    """
    return _whole(row, "episode_index")


def _whole(row: Mapping[str, Any], name: str) -> int:
    value = row.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or value < 0:
        raise DataError("bad_annotation", f"expected a whole number as {name}, found {value!r}")
    return value


def _only_text(row: Mapping[str, Any]) -> str:
    texts = [value for value in row.values() if isinstance(value, str)]
    return texts[0] if len(texts) == 1 else ""
