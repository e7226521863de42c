"""Reads small Parquet files as a whole: whatever is wrong with one is one line, and it becomes no gigabytes.

A run-length code holds a billion equal values in a few bytes, so what a file says of its size is looked at first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import UsageError, VPPError

MOST_VALUES = 1 << 26
"""Of a column in a row group: half a gigabyte of numbers."""

_MOST_BYTES = 1 << 31  # of a column in a row group, before compression


def check_size(metadata: pq.FileMetaData) -> None:
    """Looks at what the footer of a file says of its columns.

    Raises:
        pa.ArrowInvalid: If it has more values or bytes than are read.
    """
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            values, num_bytes = column.num_values, column.total_uncompressed_size
            if not (0 <= values <= MOST_VALUES and 0 <= num_bytes <= _MOST_BYTES):
                expected = f"expected at most {MOST_VALUES} values in {_MOST_BYTES} bytes of a column in a row group"
                raise pa.ArrowInvalid(f"{expected}, found {values} in {num_bytes} of {column.path_in_schema:.100}")


@contextlib.contextmanager
def parquet_faults(where: str) -> Iterator[None]:
    """Raises what Arrow has against a file that is held in memory as a `UsageError`."""
    try:
        yield
    except VPPError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:  # all of them: no store can fail any more
        told = " ".join(str(error).split())
        raise UsageError(f"{where}: expected Parquet, found something else: {told:.300}") from error


def open_parquet(content: bytes) -> pq.ParquetFile:
    """Opens a file that is held in memory; within `parquet_faults`."""
    file = pq.ParquetFile(pa.BufferReader(content))
    check_size(file.metadata)
    return file


def read_parquet(content: bytes, where: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a file that is held in memory.

    Args:
        content: The file.
        where: What it is and its name, for messages.
        columns: What to read; all by default.

    Raises:
        UsageError: If it is damaged, too large, or lacks a column.
    """
    with parquet_faults(where):
        file = open_parquet(content)
        missing = sorted(set(columns or ()) - set(file.schema_arrow.names))
        if missing:
            raise UsageError(f"{where}: expected the columns {', '.join(columns or ())}, found no {', '.join(missing)}")
        return file.read(columns=None if columns is None else list(columns), use_threads=False)
