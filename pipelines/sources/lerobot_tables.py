"""Rows of one episode out of LeRobot's Parquet files, a batch at a time, and the pictures that may stand in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from pipelines.sources.pictures import decode_image
from pipelines.sources.source import NumberedFrame
from schemas.errors import DataError
from schemas.parquet_memory import check_size
from schemas.storage import join_inside, open_read, read_bytes

_BUFFER_BYTES = 1 << 20
_ROWS_AT_ONCE = 1024
_PICTURES_AT_ONCE = 16
_MOST_BYTES = 1 << 24  # of a thousand rows of numbers or names


@contextlib.contextmanager
def open_parquet(url: str) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file of which only what is asked for is read.

    Raises:
        DataError: `missing_file`, or `decode_error` if the file is damaged. Faults of the connection stay as they are.
    """
    try:
        with open_read(url) as handle:
            file = pq.ParquetFile(handle, buffer_size=_BUFFER_BYTES)
            check_size(file.metadata)
            yield file
    except FileNotFoundError as error:
        raise DataError("missing_file", f"expected a Parquet file, found no file at {url}") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        # Arrow reports damage as an OSError of its own, without a number; a store's or a disk's fault has one or is a
        # subclass.
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise
        raise DataError("decode_error", f"expected Parquet, {error} ({url})") from error


def episode_batches(
    url: str, columns: Sequence[str], number: int | None, rows_at_once: int = _ROWS_AT_ONCE
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of an episode in order.

    Args:
        url: The file.
        columns: What to read.
        number: The episode's number in a file that several share; row groups that cannot hold it stay unread. None:
            all of the file is the episode.
        rows_at_once: Upper bound of a batch.

    Raises:
        DataError: `missing_file`, `decode_error` or `missing_key` (a column is not in the file).
    """
    wanted = [*columns, *([] if number is None else ["episode_index"])]
    with open_parquet(url) as file:
        missing = [name for name in wanted if name not in file.schema_arrow.names]
        if missing:
            found = ", ".join(file.schema_arrow.names)
            raise DataError("missing_key", f"expected the columns {', '.join(missing)}, found {found} in {url}")
        groups = [g for g in range(file.num_row_groups) if number is None or _may_hold(file, g, number)]
        seen = False
        for batch in file.iter_batches(rows_at_once, row_groups=groups, columns=wanted, use_threads=False):
            if number is not None:
                batch = batch.filter(pyarrow.compute.equal(batch["episode_index"], number))
            if batch.num_rows:
                seen = True
                yield batch
            elif seen:  # an episode's rows stand together
                return


def read_numbers(
    url: str, columns: Sequence[str], number: int | None, start: int, end: int, num_frames: int
) -> list[np.ndarray]:
    """Reads the frames `[start, end)` of columns of numbers, each as float32 `[end - start, D]`.

    Raises:
        DataError: `inconsistent_lengths` if the episode has not `num_frames` rows, `bad_numbers` if rows differ in
            length or hold something that is not a finite number, or as `episode_batches`.
    """
    pieces: list[pa.RecordBatch] = []
    num_rows = 0
    for batch in episode_batches(url, columns, number):
        first, last = max(start - num_rows, 0), min(end - num_rows, batch.num_rows)
        if first < last:
            check_batch(batch, url)
            pieces.append(batch.slice(first, last - first))
        num_rows += batch.num_rows
    if num_rows != num_frames:
        found = f"found {num_rows}{'' if number is None else f' of episode {number}'} in {url}"
        raise DataError("inconsistent_lengths", f"expected {num_frames} rows as meta says, {found}")
    return [_matrix(pieces, name, url) for name in columns]


def check_batch(batch: pa.RecordBatch | pa.Table, url: str) -> None:
    """Checks that rows may become Python's objects, which take ten times as much.

    Raises:
        DataError: `too_large`.
    """
    if batch.nbytes > _MOST_BYTES:
        expected = f"expected at most {_MOST_BYTES} bytes in {batch.num_rows} rows"
        raise DataError("too_large", f"{expected}, found {batch.nbytes} in {url}")


def read_pictures(
    root: str, path: str, key: str, number: int | None, indices: Sequence[int]
) -> Iterator[NumberedFrame]:
    """Yields the pictures of an image column, `{bytes, path}` in each row, for strictly increasing frame numbers.

    In the place of one that cannot be had stands its fault: `decode_error` or `missing_file`.

    Raises:
        DataError: `frame_out_of_range`, or as `episode_batches`.
    """
    url, num_rows, position = join_inside(root, path), 0, 0
    for batch in episode_batches(url, [key], number, _PICTURES_AT_ONCE):
        while position < len(indices) and indices[position] < num_rows + batch.num_rows:
            index = indices[position]
            cell = batch[key][index - num_rows].as_py()
            try:
                yield index, _picture(root, cell, f"{key}, frame {index} in {url}")
            except DataError as error:
                yield index, error
            position += 1
        num_rows += batch.num_rows
        if position == len(indices):
            return
    if position < len(indices):
        raise DataError("frame_out_of_range", f"expected frame {indices[position]}, found {num_rows} in {url}")


def _picture(root: str, cell: object, where: str) -> av.VideoFrame:
    content: bytes | None = None
    if isinstance(cell, bytes):
        content = cell
    elif isinstance(cell, dict):
        content = cell.get("bytes")
        if not content and cell.get("path"):
            content = _file_content(join_inside(root, str(cell["path"])), where)
    if not content:
        raise DataError("decode_error", f"expected a picture, found none: {where}")
    return decode_image(content, where)


def _file_content(url: str, where: str) -> bytes:
    try:
        return read_bytes(url)
    except FileNotFoundError as error:
        raise DataError("missing_file", f"expected a picture at {url}, found no such file: {where}") from error


def _may_hold(file: pq.ParquetFile, group: int, number: int) -> bool:
    metadata = file.metadata.row_group(group)
    for column in range(metadata.num_columns):
        if metadata.column(column).path_in_schema == "episode_index":
            statistics = metadata.column(column).statistics
            return statistics is None or not statistics.has_min_max or statistics.min <= number <= statistics.max
    return True


def _matrix(pieces: Sequence[pa.RecordBatch], name: str, url: str) -> np.ndarray:
    rows = [value for piece in pieces for value in piece[name].to_pylist()]
    try:
        table = np.asarray(rows, np.float32).reshape(len(rows), -1) if rows else np.zeros((0, 0), np.float32)
    except (TypeError, ValueError) as error:
        raise DataError("bad_numbers", f"expected rows of one length as {name}, {error} in {url}") from error
    if not np.isfinite(table).all():
        raise DataError("bad_numbers", f"expected finite numbers as {name}, found NaN or infinity in {url}")
    return table
